"""The two files of a store that change are kept twice: a flipped bit in one costs nothing (FORMAT.md, "Files")."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.reading import read_file
from edge_cmcl.durable import write_bytes
from edge_cmcl.errors import EdgeCmclWarning, FormatError, StorageError

Document = TypeVar("Document")


class DamagedFileWarning(EdgeCmclWarning):
    """A file is damaged, and its copy was used."""


def copy_of(path: Path) -> Path:
    """Return where the copy of `path` lies: "copy-of-NAME" beside it."""
    return path.with_name(f"copy-of-{path.name}")


def write_twice(path: Path, data: bytes) -> None:
    """Replace the copy of `path` durably, then `path`, which is what counts: until the last step the old state does.

    Raises:
        StorageError: the file system refused; what was there counts, as long as it can be put back at all: `path` may
            have been replaced without its folder being flushed.
    """
    before = {each: _bytes(each) for each in (path, copy_of(path))}
    try:
        write_bytes(copy_of(path), data)
        write_bytes(path, data)
    except BaseException:
        for each, old in before.items():
            with suppress(OSError, StorageError):
                _put_back(each, old)
        raise


def mend(path: Path, parse: Callable[[bytes, str], object]) -> None:
    """Make `path` and its copy equal again, after a crash between the two, or after one was damaged.

    Where the file system refuses, they stay as they are: they can be read all the same.
    """
    found = {each: _bytes(each) for each in (path, copy_of(path))}
    if found[path] == found[copy_of(path)]:
        return
    for each, data in found.items():
        with suppress(FormatError, StorageError):
            if data is not None and parse(data, str(each)) is not None:
                write_bytes(copy_of(path) if each == path else path, data)
                return


def read_either(path: Path, parse: Callable[[bytes, str], Document]) -> Document:
    """Return what `parse` makes of `path`, or of its copy where the file is damaged or missing.

    Args:
        path: the file.
        parse: called with its bytes and its name; raises FormatError, also for a wrong checksum.

    Raises:
        FormatError, StorageError: both are damaged.

    Warns:
        DamagedFileWarning: the copy was used.
    """
    try:
        return parse(read_file(path, limits.MAX_DOCUMENT_BYTES), str(path))
    except (FormatError, StorageError) as error:  # other bytes than were written, or a disk that does not give them
        try:
            found = parse(read_file(copy_of(path), limits.MAX_DOCUMENT_BYTES), str(copy_of(path)))
        except (FormatError, StorageError):
            raise error from None
        warnings.warn(f"{error.message}: its copy is used", DamagedFileWarning, stacklevel=2)
        return found


def _bytes(path: Path) -> bytes | None:
    """Return what is in `path`, None where it cannot be read: a damaged disk must not stop its repair."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def _put_back(path: Path, old: bytes | None) -> None:
    if old is None:
        path.unlink(missing_ok=True)
    elif path.read_bytes() != old:
        write_bytes(path, old)
