"""Compilers and emulators for the C library's tests; what is not installed is skipped, and the skip says so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
C_LIBRARY = ROOT / "firmware_bridge" / "c"
MICRO = [*sorted(C_LIBRARY.glob("ec_micro*.c")), C_LIBRARY / "ec_crc.c"]
"""The sources of the micro model, and what they need of the library."""
FIRMWARE = ROOT / "tests" / "firmware"

STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-ffp-contract=off", f"-I{C_LIBRARY}")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def need(program: str) -> str:
    """Return the path of `program`, or skip."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def compiled(out: Path, program: str, *arguments: str | Path, cwd: Path | None = None) -> Path:
    """Compile with the strictest warnings into `out`, or fail with what the compiler said."""
    command = [need(program), *STRICT, *arguments, "-o", out]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out
