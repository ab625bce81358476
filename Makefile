# Python 3.10 to 3.13 and make are all it takes: every target makes its own .venv from the lock files.
PYTHON  ?= python3
WORKERS ?= 3

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP   := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c lock-host.txt
# The tests run side by side: each computes on one core, instead of all of them on every core.
ONE_CORE := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

STREAMS := tests/bench/streams
# Of `make compare`: retrieval, between sensors, or classification, against label text.
STREAM  ?= retrieval
DATASETS := utd_mhad sisfall isl_myo sp_sw_har borealtc hydraulic

# Of `make crash`: full, or reduced as in .ci/run.
CRASH ?= full
# Of `make links`: full, or reduced as in .ci/run.
LINKS ?= full
# Of `make deploy`: full, or reduced as in .ci/run.
DEPLOY ?= full
# Of `make pythons`: the rooms whose tests run on each; fewer in .ci/run.
ROOMS ?= continual bundle data device sync test_project.py test_limits.py
ROOM_TESTS ?= tests/deploy/test_pythons.py
# Of `make kit`: for which Pythons and processors to add wheels, such as KIT='--wheels 3.10 aarch64 --wheels 3.11 x86_64'.
KIT ?=
# Of `make firmware`: full, or reduced as in .ci/run.
FIRMWARE ?= full
# Of `make fuzz`: inputs of each parser, made blindly and guided by coverage (needs Python 3.11), and flipped bits.
EXECUTIONS ?= 200000
GUIDED ?= 100000
FLIPS ?= 10000
# Version of the MLflow server, that of the client in lock-host.txt.
MLFLOW := 3.17.2

.PHONY: help demo test slow bench compare data crash fuzz links load deploy arm64 pythons kit lock merging mlflow firmware proof lint clean
.DEFAULT_GOAL := help

help: ## Show this list
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(STAMP) ## Run the whole loop on a simulated machine (under two minutes)
	$(BIN)/edge-cmcl demo

test: lint ## Run the linters, then the tests (under ten minutes)
	$(ONE_CORE) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

slow: $(STAMP) ## Run the tests that take longest: all real data sets, older Pythons, the benchmark itself (minutes)
	EDGE_CMCL_SLOW=1 $(ONE_CORE) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m slow

bench: $(STAMP) ## Measure time, memory and size against the paper's method; prints one JSON
	@$(BIN)/python tests/bench/bench.py

compare: $(STAMP) data ## Compare all continual strategies on real sensors (under 40 minutes); writes .bench/retrieval/report.html
	$(BIN)/edge-cmcl compare $(STREAMS)/$(STREAM).toml --out .bench/$(STREAM) --best $(STREAMS)/$(STREAM).best.json
	$(BIN)/edge-cmcl report .bench/$(STREAM) --out .bench/$(STREAM)/report.html

data: $(STAMP)
	@for name in $(DATASETS); do \
	  test -d .bench/data/$$name || $(BIN)/edge-cmcl data prepare $$name --source ../shared/data/$$name.tar.xz --out .bench/data/$$name || exit; \
	done

crash: $(STAMP) ## Kill, starve and unplug a store at every file-system call (hours; needs root and strace)
	EDGE_CMCL_CRASH=$(CRASH) $(ONE_CORE) $(BIN)/python -m pytest tests/crash -rP

fuzz: $(STAMP) ## Fuzz every parser, and flip 10,000 bits over a bundle and a store (under an hour)
	$(ONE_CORE) $(BIN)/python tests/fuzz/parsers.py --executions $(EXECUTIONS)
	$(ONE_CORE) $(BIN)/python tests/fuzz/flip_bits.py --flips $(FLIPS)
ifneq ($(GUIDED),0)
	$(PIP) --no-build-isolation --editable '.[fuzz]'
	$(ONE_CORE) $(BIN)/python tests/fuzz/parsers.py --guided --executions $(GUIDED)
endif

links: $(STAMP) ## Push over slow, lossy and broken links in network namespaces (minutes; needs root)
	EDGE_CMCL_LINKS=$(LINKS) $(ONE_CORE) $(BIN)/python -m pytest tests/links -rP

load: $(STAMP) ## Saturate the local service while its generation changes, then ask it 100,000 times (minutes)
	$(ONE_CORE) $(BIN)/python tests/bench/service_load.py --check

deploy: $(STAMP) ## Install, upgrade, interrupt, boot and remove what a device gets, in Debian roots (minutes; needs root, strace, systemd-nspawn)
	EDGE_CMCL_DEPLOY=$(DEPLOY) $(ONE_CORE) $(BIN)/python -m pytest tests/deploy/test_scripts.py tests/deploy/test_install_script.py tests/deploy/test_boot.py -rPs

arm64: $(STAMP) ## Install and live on an emulated arm64 device, beside an x86 one (under ten minutes; needs root and qemu-user-static)
	EDGE_CMCL_ARM64=1 $(ONE_CORE) $(BIN)/python -m pytest tests/deploy/test_arm64.py -rPs

pythons: $(STAMP) ## Try the device set on Python 3.10, 3.11, 3.12 and 3.13, each from its lock (under an hour)
	EDGE_CMCL_PYTHONS=all EDGE_CMCL_ROOMS='$(ROOMS)' EDGE_CMCL_WORKERS=$(WORKERS) $(ONE_CORE) $(BIN)/python -m pytest -rPs \
	  tests/test_packaging.py tests/e2e/test_base_install.py $(ROOM_TESTS)

kit: $(STAMP) ## Make the folder that goes to a device, dist/edge-cmcl-VERSION; KIT='--wheels 3.10 aarch64' adds wheels
	PYTHON=$(BIN)/python deploy/build.sh $(KIT)

lock: $(STAMP) ## Write deploy/requirements-device.txt anew from the lock files (minutes; needs all four Pythons)
	$(BIN)/python deploy/lock.py

merging: $(STAMP) data ## Merge devices that taught different and the same real sensors, by every way (under ten minutes)
	$(ONE_CORE) $(BIN)/python -W ignore tests/bench/merging.py --data .bench/data --check

firmware: $(STAMP) ## Build the firmware library for this computer and Cortex-M boards, test all of it, and measure it (minutes)
	EDGE_CMCL_FIRMWARE=$(FIRMWARE) $(ONE_CORE) $(BIN)/python -m pytest tests/bridge/test_c_*.py tests/bridge/test_micro_*.py tests/bridge/test_firmware_to_update.py -rP
	$(BIN)/python tests/bench/firmware_cost.py

# The server has an environment of its own: it takes an older pyarrow than the host.
mlflow: .bench/mlflow/.installed ## Log a fleet to a real MLflow server, which this installs (minutes)
	$(ONE_CORE) $(BIN)/python -m pytest tests/fleet/test_mlflow.py

# The client, and a server in an environment of its own: it wants older libraries than the lock file has.
.bench/mlflow/.installed: $(STAMP)
	$(PIP) --no-build-isolation --editable '.[mlflow]'
	$(PYTHON) -m venv .bench/mlflow
	.bench/mlflow/bin/python -m pip install --quiet --disable-pip-version-check mlflow==$(MLFLOW)
	touch $@

proof: slow fuzz crash links load deploy arm64 pythons merging firmware ## Run the slow tests, the full fuzzing, crash, link, load, deployment and firmware tests, and the measurement of merges

lint: $(STAMP) ## Run ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## Remove what the targets made, except .venv and runs
	rm -rf build dist .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find edge_cmcl firmware_bridge tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and by its locked version: asked for by a range, pip may choose a build with gigabytes of CUDA.
$(STAMP): pyproject.toml lock-device.txt lock-host.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools torch
	$(PIP) --no-build-isolation --editable '.[host,dev]'
	@touch $@
