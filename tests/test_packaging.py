from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path
from typing import Any

import pytest
from environments import PYTHONS

ROOT = Path(__file__).parent.parent
DEVICE_ROOMS = [
    "service",
    "device",
    "bundle",
    "data",
    "data.prepare",
    "continual",
    "sync",
    "project",
    "tensors",
    "durable",
    "errors",
]
HOST_ONLY = {"torch", "onnx", "onnxscript", "rich", "scipy", "pyarrow"}


def modules_after(python: Path | str, statement: str) -> set[str]:
    code = f"import sys, json; {statement}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("room", DEVICE_ROOMS)
def test_a_device_room_imports_nothing_of_the_host(room: str) -> None:
    loaded = modules_after(sys.executable, f"import edge_cmcl.{room}")
    assert "edge_cmcl" in loaded
    assert not loaded & HOST_ONLY


def test_the_command_line_starts_without_arrays_models_or_validation() -> None:
    loaded = modules_after(sys.executable, "import edge_cmcl.cli.app")
    assert "typer" in loaded
    assert not loaded & (HOST_ONLY | {"numpy", "pydantic", "onnxruntime", "safetensors", "cryptography"})


@pytest.mark.parametrize("version", PYTHONS)
def test_the_base_install_has_every_device_room_and_no_torch(base_bin: Callable[[str], Path], version: str) -> None:
    python = base_bin(version) / "python"
    for absent in sorted(HOST_ONLY - {"rich"}):  # typer brings rich
        done = subprocess.run([python, "-c", f"import {absent}"], capture_output=True, text=True, check=False)
        assert f"No module named '{absent}'" in done.stderr
    imports = ", ".join(f"edge_cmcl.{room}" for room in DEVICE_ROOMS)
    loaded = modules_after(python, f"import {imports}, numpy, onnxruntime")
    assert not loaded & HOST_ONLY


@pytest.mark.parametrize("version", PYTHONS)
def test_the_base_install_runs_the_command_and_has_its_data_files(
    base_bin: Callable[[str], Path], run_cli: Callable[..., object], tmp_path: Path, version: str
) -> None:
    program = base_bin(version) / "edge-cmcl"
    help_text = run_cli("--help", program=program)
    assert (help_text.code, help_text.stderr) == (0, "")
    wrote = run_cli("init", "new.toml", "--json", program=program)
    assert (wrote.code, wrote.json) == (0, {"project": "new.toml"})
    assert (tmp_path / "new.toml").read_bytes() == (ROOT / "edge_cmcl" / "project_template.toml").read_bytes()


@pytest.mark.parametrize("version", PYTHONS)
def test_the_base_install_says_what_the_service_needs(
    base_bin: Callable[[str], Path], run_cli: Callable[..., Any], version: str
) -> None:
    done = run_cli("serve", "--json", program=base_bin(version) / "edge-cmcl")
    error = done.json["error"]
    assert (done.code, error["type"], error["got"]) == (7, "MissingExtraError", "no starlette, uvicorn")


@pytest.mark.parametrize("version", PYTHONS)
def test_the_base_install_is_exactly_what_the_device_lock_says(base_bin: Callable[[str], Path], version: str) -> None:
    python = base_bin(version) / "python"
    done = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True)
    installed = {canonical(entry["name"]): entry["version"] for entry in json.loads(done.stdout)}
    locked = locked_versions("lock-device.txt", version)
    for own in ("edge-cmcl", "pip", "setuptools"):
        installed.pop(own, None)
        locked.pop(own, None)
    unneeded = {"coloredlogs", "humanfriendly", "sympy", "mpmath"} if version != "3.10" else set()
    assert installed == {name: number for name, number in locked.items() if name not in unneeded}


def test_this_environment_is_what_the_host_lock_says() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    locked = {**locked_versions("lock-device.txt", version), **locked_versions("lock-host.txt", version)}
    installed = {name: distribution(name).version.partition("+")[0] for name in closure("edge-cmcl")}
    installed.pop("edge-cmcl")
    assert "torch" in installed
    assert installed == {name: locked.get(name) for name in installed}


@pytest.mark.parametrize("name", ["lock-device.txt", "lock-host.txt"])
def test_a_lock_names_exact_versions_and_neither_places_nor_cuda(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?:|file:|@|nvidia|cuda[^.]|triton", re.sub(r"#.*", "", text), re.IGNORECASE)
    for line in text.splitlines():
        if line and not line.startswith(("#", "-c ")):
            assert re.fullmatch(r'[\w.-]+==[\w.]+(; python_version (<|>=) "3\.11")?', line)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_versions(file: str, version: str) -> dict[str, str]:
    old = version == "3.10"
    locked = {}
    for line in (ROOT / file).read_text().splitlines():
        match = re.match(r'([\w.-]+)==([\w.]+)(?:; python_version (<|>=) "3\.11")?', line)
        if match and match[3] in (None, "<" if old else ">="):
            locked[canonical(match[1])] = match[2]
    return locked


def closure(name: str) -> set[str]:
    """Return the installed distributions that `name` and its extras host and dev need, themselves included."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = canonical(waiting.pop())
        if current in found:
            continue
        try:
            lines = requires(current) or []
        except PackageNotFoundError:
            continue  # a marker keeps it out here
        found.add(current)
        extras = ("host", "dev") if current == "edge-cmcl" else ()
        for line in lines:
            extra = re.search(r"""extra == ['"]([^'"]+)""", line)
            if extra is None or extra[1] in extras:
                match = re.match(r"[\w.-]+", line)
                assert match
                waiting.append(match[0])
    return found
