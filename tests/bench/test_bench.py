"""That `make bench` runs and reports everything; what it measures here says nothing, so no figure is judged."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from install_size import PRODUCT, closure
from machine_bundle import make_machine

pytestmark = pytest.mark.slow

BENCH = Path(__file__).with_name("bench.py")
SCENARIO = {"source": "simulated machine", "known": "vibration", "partner": "current", "new": "acoustic"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run prints, on the bundle that other tests use too."""
    machine, folder = make_machine(tmp_path_factory), tmp_path_factory.mktemp("scenario")
    for name in ("base.tar", "base.safetensors", "new.safetensors", "test.safetensors"):
        shutil.copy(machine.folder / name, folder / name)
    (folder / "scenario.json").write_text(json.dumps(SCENARIO))
    command = [sys.executable, BENCH, "--quick", "--scenario", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, int | float):
        yield value


def entries(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    flat = {name: report[name] for name in ("update_to_same_recall", "update_cost", "install_size", "startup")}
    return flat | {f"step {name}": entry for name, entry in report["step"].items()}


def test_every_entry_has_a_ratio_a_target_and_whether_it_was_met(report: dict[str, Any]) -> None:
    found = entries(report)
    assert {"step own_shapes", "step equal_shapes"} < set(found)
    for name, entry in found.items():
        assert entry["ratio"] > 0, name
        assert {"target", "met"} <= set(entry), name
        # The issue sets no figure for the last two.
        assert (entry["met"] is None) == (entry["target"] is None) == (name in ("install_size", "startup")), name


def test_all_numbers_are_finite(report: dict[str, Any]) -> None:
    assert all(math.isfinite(number) for number in numbers(report))


def test_the_machine_is_described(report: dict[str, Any]) -> None:
    assert report["machine"]["cores"] >= 1
    assert set(report["machine"]["versions"]) == {"edge-cmcl", "numpy", "onnxruntime", "torch", "typer"}


def test_the_update_was_measured_in_a_process_without_torch(report: dict[str, Any]) -> None:
    cost = report["update_cost"]
    assert cost["torch_loaded"] is False
    # Python with numpy and onnxruntime takes tens of megabytes; less would be another process's figure.
    assert cost["peak_memory_bytes"] > 50_000_000
    assert cost["seconds"]["median"] > 0.3


def test_the_base_install_is_without_torch(report: dict[str, Any]) -> None:
    size = report["install_size"]
    assert 50_000_000 < size["base_bytes"] < size["with_torch_bytes"]
    assert "torch" not in size["base_largest_bytes"]


def test_the_base_install_holds_what_the_project_asks_for_today() -> None:
    text = (BENCH.parents[2] / "pyproject.toml").read_text()
    asked = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert asked is not None
    lines = [line for line in asked[1].splitlines() if "python_version" not in line]
    names = {match[1] for line in lines if (match := re.match(r'\s*"([a-z-]+)', line))}
    assert len(names) == len(lines)
    assert names <= closure(PRODUCT), "the metadata of an editable install may be older"
