"""Checked reading of single files: small documents whole, blobs in chunks against their size and digest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.errors import DigestError, EdgeCmclError, FormatError, ModelError, StorageError

CHUNK_BYTES = limits.MIB


def read_file(path: Path, limit: int) -> bytes:
    """Return the bytes of a small regular file.

    Raises:
        FormatError: it is missing or larger than `limit` bytes.
        StorageError: the file system could not read it.
    """
    with open_regular(path, FormatError(f"{path} is missing", expected="a file", got="none")) as file, _reading(path):
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1)
    if len(data) > limit:
        raise FormatError(f"{path} is too large", expected=f"at most {limit} bytes", got=f"{size} bytes")
    return data


def open_regular(path: Path, missing: EdgeCmclError) -> BinaryIO:
    """Open a regular file; O_NONBLOCK so that a pipe put in its place cannot hang the reader."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        try:
            raise missing from error
        finally:
            del missing  # its traceback holds this frame, and the circle would keep alive what the callers hold
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FormatError(f"{path} is not a regular file", expected="a regular file", got="something else")
    return file


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> StorageError:
    reason = error.strerror or str(error)
    return StorageError(f"cannot read {path}", got=reason, hint="check its permissions and the disk")


def verified_chunks(file: BinaryIO, descriptor: Descriptor, layout: str) -> Iterator[bytes]:
    """Yield the bytes of an opened blob and check its digest after the last; `layout` says in errors whose it is.

    Raises:
        DigestError: its size, before the first chunk, or its digest is wrong.
        StorageError: the file system could not read it.
    """
    size = os.fstat(file.fileno()).st_size
    if size != descriptor.size:
        raise damaged_blob(layout, descriptor.digest, f"{descriptor.size} bytes", f"{size} bytes")
    digest = hashlib.sha256()
    left = size
    while left:
        with _reading(Path(layout)):
            chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            break
        digest.update(chunk)
        left -= len(chunk)
        yield chunk
    if left or f"sha256:{digest.hexdigest()}" != descriptor.digest:
        raise damaged_blob(layout, descriptor.digest, descriptor.digest, f"sha256:{digest.hexdigest()}")


def missing_blob(layout: str, digest: str) -> DigestError:
    """Return the error for a blob that is not there."""
    return DigestError(
        f"blob {digest} is missing in {layout}",
        expected="a file of that name in blobs/sha256",
        got="none",
        hint="the copy is incomplete: install or export the bundle again",
    )


def damaged_blob(layout: str, digest: str, expected: str, got: str) -> DigestError:
    """Return the error for a blob that is not what its digest or size says."""
    return DigestError(
        f"blob {digest} in {layout} is damaged",
        expected=expected,
        got=got,
        hint="the file changed since it was written: install or export the bundle again",
    )


@contextmanager
def user_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that the user named.

    Raises:
        ModelError: it cannot be opened.
    """
    try:
        source = path.open("rb")
    except OSError as error:
        raise ModelError(f"cannot read {path}", got=error.strerror or str(error)) from error
    with source:
        yield source


def check_size(size: int) -> None:
    """Check that a blob of `size` bytes may be stored.

    Raises:
        FormatError: it is too large.
    """
    if size > limits.MAX_BLOB_BYTES:
        raise FormatError("a blob is too large", expected=f"at most {limits.MAX_BLOB_BYTES} bytes", got=f"{size} bytes")
