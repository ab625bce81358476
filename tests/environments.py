"""The installed command, and a venv with nothing but the base install of this tree, as a device has it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EDGE_CMCL = Path(sys.executable).with_name("edge-cmcl")
"""The command as installed in the environment that runs the tests."""

ALL_PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""The Pythons that pyproject.toml and the locks are for."""

THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_OTHERS = [pytest.param(each, marks=pytest.mark.slow) for each in ("3.10", "3.11") if each != THIS_PYTHON]
PYTHONS = ALL_PYTHONS if os.environ.get("EDGE_CMCL_PYTHONS") == "all" else (THIS_PYTHON, *_OTHERS)
"""Where the base install is tried: here; on JetPack 6's and Debian 12's in `make slow`; on all in `make pythons`."""

PROBE = "typing_extensions==4.16.0"  # small, and in the lock


def base_install(root: Path, version: str, scratch: Path) -> Path:
    """Install this tree's wheel and the device lock for Python `version`; return the venv's bin folder.

    The dependencies stay in `.bench/` until the lock or pyproject.toml changes; the wheel is built anew in each test
    run, by the first worker that asks: the others may be using it.
    Skips where that Python or the package registry is absent.
    """
    python = find_python(version)
    inputs = [(root / name).read_bytes() for name in ("lock-device.txt", "pyproject.toml")]
    key = hashlib.sha256(b"\0".join([*inputs, str(python).encode()])).hexdigest()[:12]
    folder = root / ".bench" / f"base-{version}-{key}"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of one test run share the folder
        run, made_for = os.environ.get("PYTEST_XDIST_TESTRUNUID", ""), folder / "made-for"
        if run and made_for.exists() and made_for.read_text() == run:
            return folder / "bin"
        wheel = build_wheel(root, scratch)
        if not (folder / "complete").exists():
            for older in folder.parent.glob(f"base-{version}-*/"):
                shutil.rmtree(older)
            subprocess.run([python, "-m", "venv", folder], check=True)
            _pip(folder, "install", "-c", root / "lock-device.txt", wheel)
            (folder / "complete").touch()
        _pip(folder, "install", "--no-deps", "--force-reinstall", wheel)
        made_for.write_text(run)
    return folder / "bin"


def find_python(version: str) -> Path:
    """Return a Python of `version` ("3.10"): the running one, one on the path, or pyenv's; or skip."""
    if version == THIS_PYTHON:
        return Path(getattr(sys, "_base_executable", sys.executable))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        if (
            subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode
            == 0
        ):
            return Path(candidate)
    pytest.skip(f"there is no Python {version} here")


def build_wheel(root: Path, scratch: Path) -> Path:
    """Build in a copy: setuptools leaves a build folder behind and would pack stale files from it."""
    source = scratch / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("edge_cmcl", "firmware_bridge"):
        shutil.copytree(root / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", scratch, source]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = scratch.glob("edge_cmcl-*.whl")
    return wheel


def _pip(folder: Path, *arguments: str | Path) -> None:
    pip = [folder / "bin" / "python", "-m", "pip", "-q", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    probe = [*pip, "download", "--no-cache-dir", "--no-deps", "-d", folder / "probe", PROBE]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("the package registry cannot be reached")
    pytest.fail(f"the base install fails:\n{done.stderr}")
