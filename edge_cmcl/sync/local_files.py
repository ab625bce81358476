"""A folder of this machine: a share that is mounted, a USB stick. No hard links, locks or modes: vfat has none."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edge_cmcl.bundle.reading import open_regular
from edge_cmcl.durable import FULL, sync_folder
from edge_cmcl.errors import EdgeCmclError, RemoteError, StorageError
from edge_cmcl.sync.address import Address
from edge_cmcl.sync.files import Files, Sink
from edge_cmcl.sync.settings import LinkSettings

_PIECE_BYTES = 1 << 18
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)


class LocalFiles(Files):
    """See `Files`. A failure here is not tried again: a stick that is not there does not come by waiting."""

    local = True
    chunk_bytes = 1 << 20

    def __init__(self, address: Address, settings: LinkSettings) -> None:
        self._root = Path(address.path)
        self._name = address.url

    def size(self, path: str) -> int | None:
        """See `Files.size`."""
        with self._errors():
            try:
                found = self._at(path)
                return found.stat().st_size if found.is_file() else None
            except (FileNotFoundError, NotADirectoryError):
                return None

    def has_folder(self, path: str) -> bool:
        """See `Files.has_folder`."""
        with self._errors():
            return self._at(path).is_dir()

    def read(self, path: str, most: int) -> bytes | None:
        """See `Files.read`."""
        file = self._opened(path)
        if file is None:
            return None
        with file, self._errors():
            return file.read(most)

    def pieces(self, path: str, offset: int) -> Iterator[bytes]:
        """See `Files.pieces`."""
        file = self._opened(path)
        if file is None:
            return
        with file:
            while True:
                with self._errors():
                    file.seek(offset)
                    piece = file.read(_PIECE_BYTES)
                if not piece:
                    return
                offset += len(piece)
                yield piece

    def names(self, folder: str) -> list[str] | None:
        """See `Files.names`."""
        with self._errors():
            try:
                return sorted(entry.name for entry in self._at(folder).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return None

    def make_folder(self, path: str) -> None:
        """See `Files.make_folder`."""
        with self._errors():
            self._at(path).mkdir(exist_ok=True)
            _flush_folder(self._at(path).parent)

    def replace(self, path: str, data: bytes) -> None:
        """See `Files.replace`."""
        target = self._at(path)
        beside = target.with_name(f".{secrets.token_hex(8)}.tmp")
        with self._errors():
            try:
                with beside.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(target)
                _flush_folder(target.parent)
            except BaseException:
                with suppress(OSError):
                    beside.unlink(missing_ok=True)
                raise

    @contextmanager
    def extend(self, path: str, offset: int) -> Iterator[Sink]:
        """See `Files.extend`."""
        with self._errors():
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.fdopen(os.open(self._at(path), flags, 0o644), "r+b", buffering=0)
        with file:
            sink = _LocalSink(file, self)
            with self._errors():
                file.truncate(offset)
                file.seek(offset)
            yield sink

    def move(self, path: str, target: str) -> bool:
        """See `Files.move`."""
        with self._errors():
            try:
                self._at(path).replace(self._at(target))
            except OSError as error:
                if error.errno not in _IN_THE_WAY:
                    raise
                return False
            _flush_folder(self._at(target).parent)
        return True

    def remove(self, path: str) -> bool:
        """See `Files.remove`."""
        with self._errors():
            try:
                self._at(path).unlink()
            except FileNotFoundError:
                return False
            _flush_folder(self._at(path).parent)
        return True

    def close(self) -> None:
        """See `Files.close`: there is no connection."""

    def _at(self, path: str) -> Path:
        return self._root / path

    def _opened(self, path: str) -> BinaryIO | None:
        missing = EdgeCmclError("missing")
        try:
            return open_regular(self._at(path), missing)
        except StorageError as error:
            raise self._refused(error.got, error.hint) from error
        except EdgeCmclError as error:
            if error is missing:
                return None
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in FULL:
                hint = "free space there; the same command goes on where this one stopped"
                raise RemoteError(f"{self._name} is full", expected="space", got=reason, hint=hint) from error
            hint = "give this user permission to write there" if error.errno in _DENIED else "is it still mounted?"
            raise self._refused(reason, hint) from error

    def _refused(self, reason: str, hint: str) -> RemoteError:
        return RemoteError(f"cannot use {self._name}", expected="a folder to read and write", got=reason, hint=hint)


class _LocalSink(Sink):
    def __init__(self, file: BinaryIO, files: LocalFiles) -> None:
        self._file = file
        self._files = files

    def write(self, data: bytes) -> None:
        with self._files._errors():
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]

    def flush(self) -> None:
        with self._files._errors():
            os.fsync(self._file.fileno())


def _flush_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot; a rename is atomic there all the same
        sync_folder(folder)
