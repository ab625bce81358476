"""A blob on its way in: what arrived so far, hashed as it comes, never longer than it may be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.reading import CHUNK_BYTES
from edge_cmcl.durable import storage_errors, sync_folder
from edge_cmcl.errors import DigestError


class Partial:
    """The file of a blob that arrives, opened by `opened`.

    Attributes:
        blob: what it is to become.
        size: bytes that are there.
        inherited: bytes of them that an earlier call left.
    """

    def __init__(self, blob: Descriptor, path: Path, file: BinaryIO) -> None:
        self.blob = blob
        self.size = 0
        self._path = path
        self._file = file
        self._hash = hashlib.sha256()
        with storage_errors(path):
            if os.fstat(file.fileno()).st_size > blob.size:
                file.truncate(0)
            while piece := file.read(CHUNK_BYTES):
                self._hash.update(piece)
                self.size += len(piece)
        self.inherited = self.size

    @property
    def left(self) -> int:
        """Bytes that are missing."""
        return self.blob.size - self.size

    @property
    def intact(self) -> bool:
        """Whether all bytes are there, and are the blob's."""
        return self.left == 0 and f"sha256:{self._hash.hexdigest()}" == self.blob.digest

    def write(self, piece: bytes) -> None:
        """Add bytes that arrived.

        Raises:
            DigestError: they are more than the blob has.
            StorageError: the file system refused.
        """
        if len(piece) > self.left:
            raise DigestError(
                f"blob {self.blob.digest} is longer than it should be",
                expected=f"{self.blob.size} bytes",
                got="more",
                hint="the remote lies or is damaged: do not use it",
            )
        with storage_errors(self._path):
            self._file.write(piece)
        self._hash.update(piece)
        self.size += len(piece)

    def restart(self) -> None:
        """Forget every byte."""
        with storage_errors(self._path):
            self._file.seek(0)
            self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size = self.inherited = 0

    def finish(self, remote: str) -> None:
        """Check the digest and flush the file to the disk.

        Raises:
            DigestError: it is another one; the file is removed.
        """
        if not self.intact:
            self._path.unlink(missing_ok=True)
            raise DigestError(
                f"blob {self.blob.digest} of {remote} is not what it should be",
                expected=self.blob.digest,
                got=f"sha256:{self._hash.hexdigest()} ({self.size} bytes)",
                hint="the remote lies or is damaged: do not use it",
            )
        with storage_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            sync_folder(self._path.parent)


@contextmanager
def opened(blob: Descriptor, path: Path) -> Iterator[Partial]:
    """Yield the partial file at `path`, made where there is none.

    Raises:
        StorageError: the file system refused.
    """
    with storage_errors(path):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.fdopen(os.open(path, flags, 0o644), "r+b")
    with file:
        yield Partial(blob, path, file)


def arrive(blob: Descriptor, target: Path, remote: str, receive: Callable[[Partial], None]) -> None:
    """Bring a blob to the file `target`, going on with what is there; see `Remote.download`.

    Args:
        blob: what it is.
        target: where it goes.
        remote: its name, for errors.
        receive: adds at least one byte, or raises.
    """
    with opened(blob, target) as partial:
        while True:
            while partial.left:
                receive(partial)
            if partial.intact or not partial.inherited:
                return partial.finish(remote)
            partial.restart()  # what an earlier call left may be what is damaged
