"""What every remote can do: a registry, a shared folder, a folder behind ssh (SYNC.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.errors import RemoteError
from edge_cmcl.sync.link import Link

Self = TypeVar("Self", bound="Remote")


class BlobMissingError(RemoteError):
    """The remote refuses a manifest because it has not got a blob of it."""


class Remote(ABC):
    """OCI content on the other side: manifests under tags and digests, and blobs. A context manager.

    Every method raises RemoteError where the remote is away, refuses or is full, and DigestError or FormatError where
    it lies or answers nonsense; nothing of the libraries below gets out. What can be tried again was tried again.

    Attributes:
        name: the address as the user wrote it.
        link: counts the payloads sent and received.
        moved: called with the bytes of a blob that have just arrived, at either side; a caller may set it.
    """

    name: str
    link: Link
    moved: Callable[[int], None]

    @abstractmethod
    def head(self, ref: str) -> Descriptor | None:
        """Return the media type, digest and size of the manifest `ref`, a tag or digest; None where there is none."""

    @abstractmethod
    def manifest(self, ref: str) -> bytes | None:
        """Return the manifest `ref`, of at most 4 MiB; its digest is `ref`, or what the remote says it is for a tag.

        Raises:
            DigestError: it is not.
            FormatError: it is too large.
        """

    @abstractmethod
    def tags(self) -> list[str]:
        """Return every tag, sorted."""

    @abstractmethod
    def has(self, blob: Descriptor) -> bool:
        """Return whether the remote has a blob of this digest and size, as it says."""

    @abstractmethod
    def upload(self, blob: Descriptor, path: Path) -> None:
        """Send the blob in the file `path`; goes on where an earlier call was cut off, in another process, too.

        Raises:
            DigestError: the file is not that blob, or the remote says that what it got is not.
        """

    @abstractmethod
    def download(self, blob: Descriptor, target: Path) -> None:
        """Bring a blob to the file `target`, flushed to the disk; goes on with what an earlier call left there.

        Bytes beyond the size of `blob` are not read.

        Raises:
            DigestError: the bytes are not that blob; `target` is removed.
            StorageError: this side could not write.
        """

    @abstractmethod
    def put(self, ref: str, manifest: bytes, media_type: str) -> None:
        """Put a manifest under a tag, or under its digest; what others see changes at one instant.

        Raises:
            BlobMissingError: the remote has not got a blob of it.
        """

    @abstractmethod
    def remove(self, tag: str) -> bool:
        """Remove a tag; False where the remote cannot do that."""

    @abstractmethod
    def settle(self) -> None:
        """Do what is due after a push: a local folder lists the new tags in `index.json` for other tools."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
