"""Writes deploy/requirements-device.txt: what a device gets, with the hash of every wheel that may be taken for it.

    python deploy/lock.py            # needs Python 3.10, 3.11, 3.12 and 3.13, on the path or from pyenv, and PyPI

The lock files at the top of the repository choose the versions; here pip resolves them once for each Python, and once
more for each processor and C library that devices have. Only the public index is asked, whatever pip is set up for, and
only hashes are written: no place that a file came from.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "deploy" / "requirements-device.txt"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
GLIBCS = (28, 39)
"""Minor versions of glibc 2: the oldest that onnxruntime has wheels for, and a recent one; some packages have both."""
EXTRAS = ("bridge", "serve")
"""Of pyproject.toml: what the units in deploy/systemd need beside the base install."""

WHEELS_ONLY = {"cobs": "1.2.0"}
"""Versions other than those of the lock files, which have no wheels: a device has no compiler. cobs 1.2.0 is the same
in Python alone: it decodes 21 MB a second on one core, and ten streams at 10 kHz of three int16 channels are 0.6 MB."""

HEADER = """\
# What a device gets: the base install and what the services need, exact, with the SHA-256 of every wheel that fits
# Python 3.10 to 3.13 on x86_64 and aarch64. Made from the lock files by `python deploy/lock.py`; never edit it.
"""

Chosen = dict[str, dict[str, str]]
"""Version by Python ("3.10") by package."""


def main() -> None:
    """Resolve for every Python and machine, and write the file."""
    chosen: Chosen = defaultdict(dict)
    hashes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for python in PYTHONS:
        pins = {name: version for name, version, _ in resolve(python)}
        for name, version in pins.items():
            chosen[name][python] = version
        for machine in MACHINES:
            for glibc in GLIBCS:
                for name, version, sha256 in wheels(pins, python, machine, glibc):
                    hashes[name, version].add(sha256)
        print(f"Python {python}: {len(pins)} packages", file=sys.stderr)
    OUTPUT.write_text(HEADER + "".join(entry(name, chosen[name], hashes) for name in sorted(chosen)))


def resolve(python: str) -> list[tuple[str, str, str]]:
    """Return what pip would install for `python` on this machine: name, version and SHA-256 of each package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += project["optional-dependencies"].get(extra, [])
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(constrained())
        return report("--python", interpreter(python), "install", "-c", constraints, *wanted)


def constrained() -> str:
    """Return the lines of the lock files, with those versions that have wheels."""
    lines = [line for name in ("lock-device.txt", "lock-host.txt") for line in (ROOT / name).read_text().splitlines()]
    kept = [line for line in lines if line.partition("==")[0] not in WHEELS_ONLY and not line.startswith("-c ")]
    return "\n".join([*kept, *(f"{name}=={version}" for name, version in WHEELS_ONLY.items()), ""])


def wheels(pins: dict[str, str], python: str, machine: str, glibc: int) -> list[tuple[str, str, str]]:
    """Return the wheel that pip takes for each of `pins` on such a device: name, version and SHA-256."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(glibc, 16, -1)] + [f"manylinux2014_{machine}"]
    tags += [f"manylinux1_{machine}"] if machine == "x86_64" else []
    number = python.replace(".", "")
    target = ["--python-version", python, "--implementation", "cp"]
    target += [f"--abi={abi}" for abi in (f"cp{number}", "abi3", "none")] + [f"--platform={tag}" for tag in tags]
    requirements = [f"{name}=={version}" for name, version in pins.items()]
    return report("install", "--no-deps", "--target", "unused", *target, *requirements)


def report(*arguments: str | Path) -> list[tuple[str, str, str]]:
    """Run pip without installing anything; return name, version and SHA-256 of each package it chose."""
    place = arguments.index("install")
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--quiet"]
    # pip's own index alone: those and the folders of files that this machine adds may hold other builds of a version.
    places = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")
    environment = {name: value for name, value in os.environ.items() if name not in places}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "report.json"
        before, after = arguments[: place + 1], arguments[place + 1 :]
        command = [sys.executable, "-m", "pip", *before, *options, "--report", output, *after]
        subprocess.run(command, check=True, cwd=ROOT, env={**environment, "PIP_CONFIG_FILE": os.devnull})
        return [described(item) for item in json.loads(output.read_text())["install"]]


def described(item: dict[str, Any]) -> tuple[str, str, str]:
    """Return name, version and SHA-256 of one item of pip's report."""
    name = item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
    return name, item["metadata"]["version"], item["download_info"]["archive_info"]["hashes"]["sha256"]


def interpreter(python: str) -> Path:
    """Return Python `python`: pyenv's, or one on the path; raise SystemExit where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for found in sorted(pyenv.glob(f"versions/{python}.*/bin/python")):
        return found
    on_path = shutil.which(f"python{python}")
    if on_path is None:
        raise SystemExit(f"lock.py: there is no Python {python} on the path or in {pyenv}")
    return Path(on_path)


def entry(name: str, versions: dict[str, str], hashes: dict[tuple[str, str], set[str]]) -> str:
    """Return the lines of one package: one requirement for each version, with the Pythons that take it."""
    lines = []
    for version in sorted(set(versions.values())):
        pythons = [python for python in PYTHONS if versions.get(python) == version]
        listed = " \\\n".join(f"    --hash=sha256:{sha256}" for sha256 in sorted(hashes[name, version]))
        lines.append(f"{name}=={version}{marker(pythons)} \\\n{listed}\n")
    return "".join(lines)


def marker(pythons: list[str]) -> str:
    """Return the environment marker that holds on these Pythons, "" where it is all of them."""
    first, last = PYTHONS.index(pythons[0]), PYTHONS.index(pythons[-1])
    bounds = [f'python_version >= "{PYTHONS[first]}"'] if first else []
    bounds += [f'python_version < "{PYTHONS[last + 1]}"'] if last + 1 < len(PYTHONS) else []
    return f" ; {' and '.join(bounds)}" if bounds else ""


if __name__ == "__main__":
    main()
