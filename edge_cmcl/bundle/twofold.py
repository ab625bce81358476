"""The two files of a store that change are kept twice: a flipped bit in one costs nothing (FORMAT.md, "Files")."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.reading import read_file
from edge_cmcl.durable import write_bytes
from edge_cmcl.errors import EdgeCmclWarning, FormatError

Document = TypeVar("Document")


class DamagedFileWarning(EdgeCmclWarning):
    """A file is damaged, and its copy was used."""


def copy_of(path: Path) -> Path:
    """Return where the copy of `path` lies: "copy-of-NAME" beside it."""
    return path.with_name(f"copy-of-{path.name}")


def write_twice(path: Path, data: bytes) -> None:
    """Replace `path` durably, then its copy. Power lost in between leaves the copy one step behind.

    Raises:
        StorageError: the file system refused.
    """
    write_bytes(path, data)
    write_bytes(copy_of(path), data)


def read_either(path: Path, parse: Callable[[bytes, str], Document]) -> Document:
    """Return what `parse` makes of `path`, or of its copy where the file is damaged or missing.

    Args:
        path: the file.
        parse: called with its bytes and its name; raises FormatError, also for a wrong checksum.

    Raises:
        FormatError: both are damaged.

    Warns:
        DamagedFileWarning: the copy was used.
    """
    try:
        return parse(read_file(path, limits.MAX_DOCUMENT_BYTES), str(path))
    except FormatError as error:
        try:
            found = parse(read_file(copy_of(path), limits.MAX_DOCUMENT_BYTES), str(copy_of(path)))
        except FormatError:
            raise error from None
        warnings.warn(f"{error.message}: its copy is used", DamagedFileWarning, stacklevel=2)
        return found
