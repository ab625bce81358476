"""The bundle that the crash tests install: that of a simulated machine with as small a model as there can be."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from machine_bundle import make_small  # noqa: E402


def public_key_of(bundle: Path) -> Path:
    """Return the public key of whoever signed `bundle`: it lies beside it."""
    return bundle.with_name("machine.key.pub")


def base_bundle(given: Path | None) -> Path:
    """Return `given`, or the bundle in `.bench/small-machine`, which is made where it is not there yet."""
    if given is not None:
        return given.resolve()
    folder = TESTS.parent / ".bench" / "small-machine"
    if not (folder / "base.tar").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_small(folder)
    return folder / "base.tar"
