"""What a command may write over, decided before it starts to work: never its own input, and no file of another kind."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from edge_cmcl.errors import DataError, StorageError, UsageError

MICRO, MICRO_HEADER = "edge-cmcl/micro", "edge-cmcl/micro-header"
"""Formats of a micro model's blob (firmware_bridge/BLOB.md) and of its C header: what they begin with tells them."""

_BEGINNINGS = {b"ECMM": MICRO, b"/* edge-cmcl micro model": MICRO_HEADER}

Force = Annotated[bool, typer.Option("--force", help="Replace a file of another kind at --out.")]


def check_output(out: Path, inputs: Iterable[Path], kind: str, *, force: bool) -> None:
    """Check that `out` may be written.

    Args:
        out: the file that the command is asked to write.
        inputs: the files that it reads; the same file by another name counts too.
        kind: format of the files that it writes, as they say; an older one of that kind is replaced.
        force: replace a file of another kind.

    Raises:
        UsageError: `out` is one of the inputs, a folder, or a file of another kind.
        StorageError: its folder is missing or cannot be written.
    """
    check_folder(out)
    if out.is_dir():
        raise UsageError(
            f"{out} is a folder", expected="--out FILE", hint=f"for instance --out {out / 'out'}.safetensors"
        )
    if not out.exists():
        return
    for source in inputs:
        if source.exists() and out.samefile(source):
            hint = "choose another --out"
            raise UsageError(f"{out} is also what is read", expected="another file", got=str(source), hint=hint)
    if not force and _format(out) != kind:
        raise UsageError(
            f"{out} exists and is not a file that this command writes",
            expected=f"a new path, or a file of format {kind!r} to replace",
            got=_format(out) or "a file of another kind",
            hint="choose another --out, or --force to replace it",
        )


def check_bundle(out: Path) -> None:
    """Check that a bundle may be written to `out`; missing folders above it are made later.

    Raises:
        UsageError: something that is not a bundle is there.
        StorageError: the folder that it goes to cannot be written.
    """
    from edge_cmcl.bundle.transfer import check_replaceable

    check_replaceable(out)
    first_made = out.absolute()
    while not first_made.parent.exists():
        first_made = first_made.parent
    check_folder(first_made)


def check_folder(out: Path) -> None:
    """Check that the folder of `out` is there and can be written.

    Raises:
        StorageError: it is not.
    """
    folder = out.parent
    if not folder.is_dir():
        raise StorageError(
            f"cannot write {out}", expected="a folder that is there", got=f"no folder {folder}", hint="make it first"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        hint = "give this user permission to write there, or choose another folder"
        raise StorageError(f"cannot write {out}", got=f"{folder} cannot be written by this user", hint=hint)


def _format(path: Path) -> str:
    """Return the format that a safetensors file names in its metadata, or that a file's beginning tells; else ""."""
    from edge_cmcl.tensors import TensorFile

    with suppress(OSError), path.open("rb") as file:
        beginning = file.read(max(map(len, _BEGINNINGS)))
        for first, kind in _BEGINNINGS.items():
            if beginning.startswith(first):
                return kind
    try:
        with TensorFile(path) as file:
            return file.metadata.get("format", "")
    except DataError:
        return ""
