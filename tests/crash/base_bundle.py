"""The bundle that the crash tests install: that of the simulated machine, made once by the installed command."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from machine_bundle import write_machine  # noqa: E402


def public_key_of(bundle: Path) -> Path:
    """Return the public key of whoever signed `bundle`: it lies beside it."""
    return bundle.with_name("machine.key.pub")


def base_bundle(given: Path | None) -> Path:
    """Return `given`, or the bundle in `.bench/machine`, which is made where it is not there yet."""
    if given is not None:
        return given.resolve()
    folder = TESTS.parent / ".bench" / "machine"
    if not (folder / "base.tar").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_machine(folder)
    return folder / "base.tar"
