"""The one durable write of the project.

A file is written beside its target, flushed to the disk, renamed over it, and the folder is flushed too: without
the last step ext4 and xfs can lose the rename when power fails (design.md section 7).
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edge_cmcl.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of an `OSError` that say that there is no room."""

_ADVICE = {
    errno.ENOSPC: "free some space on that file system; on a device: old recordings, edge-cmcl gc",
    errno.EDQUOT: "free some of the quota on that file system",
    errno.EROFS: "remount the file system for writing, or choose another folder",
    errno.EACCES: "give this user permission to write there, or choose another folder",
    errno.EPERM: "give this user permission to write there, or choose another folder",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` about `path` into a `StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        hint = _ADVICE.get(error.errno or 0, "check that the folder exists and the disk is healthy")
        raise StorageError(f"cannot write {path}", got=reason, hint=hint) from error


@contextmanager
def replacing(path: Path, *, private: bool = False, flush_folder: bool = True) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path`, whole and on disk, when the block ends without an error.

    On an error, Ctrl-C included, the temporary file is removed and `path` stays as it was.

    Args:
        path: where the file goes.
        private: mode 0600 from its first byte on, instead of what the umask allows.
        flush_folder: False for a caller that calls `sync_folder` itself, once for several files.

    Raises:
        StorageError: the file system refused.
    """
    path = Path(path)
    with storage_errors(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            with storage_errors(path):
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o600 if private else 0o666 & ~_umask())
        with storage_errors(path):
            temporary.replace(path)
            if flush_folder:
                sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        with storage_errors(path):
            raise error
    except BaseException:
        _remove(temporary)
        raise


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write `data` to `path` durably, replacing what was there (see `replacing`)."""
    with replacing(path, private=private) as file:
        file.write(data)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write several files of one folder durably: all are with the kernel before the first one is flushed.

    Raises:
        StorageError: the file system refused; some may have been written.
    """
    with ExitStack() as stack:
        for name, data in files.items():
            stack.enter_context(replacing(folder / name, flush_folder=False)).write(data)
    with storage_errors(folder):
        sync_folder(folder)


def make_folder(path: Path) -> None:
    """Create `path` and its missing parents, flushed to the disk; an existing folder is left alone.

    Raises:
        StorageError: the file system refused.
    """
    path = Path(path)
    if path.is_dir():
        return
    with storage_errors(path):
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename or a new file inside it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # what went wrong first is what its user is told; the store's next writer removes it
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
