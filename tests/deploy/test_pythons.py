"""The device set on each Python, from the hashed lock alone, passes the tests of the device rooms (issue 7, no. 2)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from environments import ALL_PYTHONS, build_wheel, find_python
from kits import ROOT
from machine_bundle import GIVEN, make_full

ALL_ROOMS = "continual bundle data device sync test_project.py test_limits.py"
ROOMS = os.environ.get("EDGE_CMCL_ROOMS", ALL_ROOMS).split()
"""Of which the tests run: all, or fewer as in .ci/run."""
TOOLS = ("asyncssh", "hypothesis", "prometheus_client", "pytest", "pytest-xdist", "securesystemslib")
"""What the tests of these rooms need beside the device set; lock-host.txt says which."""
NEEDS_HOST = re.compile(
    r"^(?:from|import) (?:torch|onnx|scipy|edge_cmcl\.host|vectors\.exported|published)\b", re.MULTILINE
)
WORKERS = os.environ.get("EDGE_CMCL_WORKERS", "2")

pytestmark = [
    pytest.mark.skipif(not os.environ.get("EDGE_CMCL_PYTHONS"), reason="takes minutes: `make pythons` runs it"),
]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def machine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a host makes: a device set cannot train it."""
    folder = tmp_path_factory.mktemp("made") / "machine"
    folder.mkdir()
    make_full(folder)
    return folder


@pytest.mark.parametrize("version", ALL_PYTHONS)
def test_the_device_rooms_pass_their_tests_on_the_locked_set(
    version: str, wheel: Path, machine_folder: Path, tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([find_python(version), "-m", "venv", venv], check=True)
    requirements = ROOT / "deploy" / "requirements-device.txt"
    install(venv, "--require-hashes", "--only-binary", ":all:", "-r", requirements)
    before = listed(venv)
    install(venv, "--no-deps", wheel)
    install(venv, "-c", ROOT / "lock-host.txt", *TOOLS)
    after = listed(venv)
    assert before.items() <= after.items()
    assert not {"torch", "onnx", "scipy"} & set(after)
    left_out = [path for path in modules() if NEEDS_HOST.search(path.read_text())]
    done = subprocess.run(
        [
            *(venv / "bin" / "pytest", "-q", "-n", WORKERS, "--dist", "loadfile", "-p", "no:cacheprovider"),
            *(f"--basetemp={tmp_path / 'tests'}", *(f"--ignore={path}" for path in left_out)),
            *(ROOT / "tests" / room for room in ROOMS),
        ],
        env={**os.environ, GIVEN: str(machine_folder), "PYTHONPATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    passed = done.stdout.splitlines()[-1].strip(" =")
    print(f"Python {version}: {passed}; without {len(left_out)} modules that need a host")


def modules() -> list[Path]:
    """Return the test modules of the device rooms."""
    named = [ROOT / "tests" / room for room in ROOMS]
    return [path for place in named for path in ([place] if place.is_file() else sorted(place.rglob("test_*.py")))]


def install(venv: Path, *arguments: str | Path) -> None:
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def listed(venv: Path) -> dict[str, str]:
    """Return the version of each package of a virtual environment."""
    freeze = [venv / "bin" / "python", "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check"]
    done = subprocess.run(freeze, capture_output=True, text=True, check=True)
    pairs = (line.split("==") for line in done.stdout.splitlines())
    return {name.lower(): version for name, version in pairs}
