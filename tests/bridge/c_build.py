"""Builds the firmware library and the programs of tests/firmware; skips where a compiler is missing."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import toolchains

LIBRARY, PROGRAMS = toolchains.C_LIBRARY, toolchains.FIRMWARE
SANITIZED = " ".join((*toolchains.SANITIZED, "-fno-omit-frame-pointer"))


def needs(*programs: str) -> None:
    """Skip the test where a program that it needs is not installed."""
    for program in programs:
        toolchains.need(program)


@functools.cache
def folder() -> Path:
    """Return a folder for all that this run builds."""
    path = tempfile.mkdtemp(prefix="edge-cmcl-firmware-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def run(*command: str | Path) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@functools.cache
def make(target: str, cc: str = "gcc", cflags: str = SANITIZED, *variables: str) -> Path:
    """Make a target of firmware_bridge/c; return the folder that it was built in."""
    needs("make", cc)
    build = folder() / f"{cc}-{abs(hash((cflags, variables)))}"
    run("make", "-s", "-C", LIBRARY, target, f"CC={cc}", f"CFLAGS={cflags}", f"BUILD={build}", *variables)
    return build


@functools.cache
def program(name: str, cc: str = "gcc", cflags: str = SANITIZED) -> Path:
    """Return tests/firmware/NAME.c, built with the library."""
    build = make("lib", cc, cflags)
    out = build / name
    source = PROGRAMS / f"{name}.c"
    warnings = ["-std=gnu99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    run(cc, *warnings, *cflags.split(), f"-I{LIBRARY}", source, build / "libec.a", "-pthread", "-lm", "-o", out)
    return out
