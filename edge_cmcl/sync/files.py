"""The few things that a folder remote needs of a file system, near or far; paths are relative to its folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager


class Sink(ABC):
    """A file opened for writing at its end."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Append bytes; when it returns, the other side has them."""

    @abstractmethod
    def flush(self) -> None:
        """Flush what was written to the disk, where the other side can."""


class Files(ABC):
    """A folder. Methods raise AwayError for what may be over soon and RemoteError for what stays.

    Attributes:
        local: whether the folder is on this machine: looking costs nothing then.
        chunk_bytes: how much is written between two flushes, and so may be sent twice after a cut.
    """

    local: bool
    chunk_bytes: int

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Return the bytes of a regular file; None where there is none."""

    @abstractmethod
    def has_folder(self, path: str) -> bool:
        """Return whether there is such a folder."""

    @abstractmethod
    def read(self, path: str, most: int) -> bytes | None:
        """Return the first `most` bytes of a file; None where there is none."""

    @abstractmethod
    def pieces(self, path: str, offset: int) -> Iterator[bytes]:
        """Yield the bytes of a file from `offset` on, some at a time."""

    @abstractmethod
    def names(self, folder: str) -> list[str] | None:
        """Return the names in a folder; None where there is none."""

    @abstractmethod
    def make_folder(self, path: str) -> None:
        """Make a folder in an existing one; one that is there is left alone."""

    @abstractmethod
    def replace(self, path: str, data: bytes) -> None:
        """Write a small file beside `path`, flush it, and move it there: readers see the old one or the new one."""

    @abstractmethod
    def extend(self, path: str, offset: int) -> AbstractContextManager[Sink]:
        """Open a file, made where there is none, and cut off what is beyond `offset`."""

    @abstractmethod
    def move(self, path: str, target: str) -> bool:
        """Rename a file or folder at one instant, over a file if need be; False where a folder stands in the way."""

    @abstractmethod
    def remove(self, path: str) -> bool:
        """Remove a file; False where there is none."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""
