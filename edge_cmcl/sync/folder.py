"""A shared folder as a remote: an OCI image layout with one small file per tag, so that several may write at once.

`index.json` is one file for all tags: whoever reads, changes and replaces it takes back what another one did meanwhile.
Here each tag is a file of its own below `tags/`, replaced by a rename, and that is what this room reads; `index.json`
is drawn up from them for other tools (SYNC.md, "Folders").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.documents import (
    Descriptor,
    Manifest,
    from_json,
)
from edge_cmcl.bundle.layout import INDEX_FILE, LAYOUT_FILE
from edge_cmcl.bundle.marker import MARKER
from edge_cmcl.bundle.media_types import OCI_MANIFEST
from edge_cmcl.bundle.reading import missing_blob, open_regular
from edge_cmcl.errors import DigestError, FormatError, IntegrityError, RemoteError
from edge_cmcl.sync.address import Address
from edge_cmcl.sync.files import Files, Sink
from edge_cmcl.sync.link import AwayError, Link
from edge_cmcl.sync.partial import Partial, arrive
from edge_cmcl.sync.remote import BlobMissingError, Remote
from edge_cmcl.sync.sessions import Sessions
from edge_cmcl.sync.settings import LinkSettings
from edge_cmcl.sync.tag_files import TAGS, TagFiles

T = TypeVar("T")

UPLOADS, BLOBS = "uploads", "blobs/sha256"
_OURS = {TAGS, UPLOADS, "blobs", INDEX_FILE, LAYOUT_FILE, "lost+found", "System Volume Information"}


class Folder(Remote):
    """A folder, near or behind ssh (see `Remote`).

    Args:
        address: of the folder, which exists.
        settings: limits, and where unfinished uploads are remembered.
        open_files: makes what reads and writes there.
    """

    def __init__(
        self, address: Address, settings: LinkSettings, open_files: Callable[[Address, LinkSettings], Files]
    ) -> None:
        self.name = address.url
        self.moved = lambda count: None
        self.link = Link(self.name, settings)
        self._files = open_files(address, settings)
        self._tags = TagFiles(self._files, self.name)
        self._sessions = Sessions(settings.work, self.name)
        self._checked = self._made = False

    def head(self, ref: str) -> Descriptor | None:
        """See `Remote.head`."""
        return self._step(f"cannot look up {ref[:80]}", lambda: self._head(ref))

    def _head(self, ref: str) -> Descriptor | None:
        if ref.startswith("sha256:"):
            size = self._files.size(_blob_path(ref))
            if size is None:
                return None
            if size > limits.MAX_DOCUMENT_BYTES:
                raise self._too_large(f"the manifest {ref}", size, limits.MAX_DOCUMENT_BYTES)
            return Descriptor(media_type=OCI_MANIFEST, digest=ref, size=size)
        return self._tags.get(ref)

    def manifest(self, ref: str) -> bytes | None:
        """See `Remote.manifest`."""
        return self._step(f"cannot get the manifest {ref[:80]}", lambda: self._manifest(ref))

    def _manifest(self, ref: str) -> bytes | None:
        found = self._head(ref)
        if found is None:
            return None
        data = self._files.read(_blob_path(found.digest), limits.MAX_DOCUMENT_BYTES + 1)
        if data is None:
            raise missing_blob(self.name, found.digest)
        if len(data) > limits.MAX_DOCUMENT_BYTES:
            raise self._too_large(f"the manifest {ref[:80]}", len(data), limits.MAX_DOCUMENT_BYTES)
        if digest_of(data) != found.digest:
            hint = "the folder is damaged, or somebody changed it: remove that file and push again"
            raise DigestError(
                f"{self.name}: the manifest {ref[:80]} is damaged",
                expected=found.digest,
                got=digest_of(data),
                hint=hint,
            )
        self.link.receive(len(data))
        return data

    def tags(self) -> list[str]:
        """See `Remote.tags`."""
        return self._step("cannot list the tags", self._tags.names)

    def has(self, blob: Descriptor) -> bool:
        """See `Remote.has`."""
        return self._step("cannot look up a blob", lambda: self._files.size(_blob_path(blob.digest)) == blob.size)

    def upload(self, blob: Descriptor, path: Path) -> None:
        """See `Remote.upload`."""
        part = f"{UPLOADS}/{blob.digest[7:]}.{self._sessions.writer()}"
        what = f"cannot send blob {blob.digest[:19]}"
        while not self._step(what, lambda: self._send(blob, path, part)):
            pass
        self._sessions.drop(blob.digest)

    def _send(self, blob: Descriptor, path: Path, part: str) -> bool:
        """Send what is missing of `part`; False where a cut came after some of it."""
        self._make()
        begun = offset = self._kept_bytes(blob, part)
        with open_regular(path, missing_blob(str(path.parent), blob.digest)) as source:
            source.seek(offset)
            try:
                with self._files.extend(part, offset) as sink:
                    while offset < blob.size:
                        data = source.read(min(self._files.chunk_bytes, blob.size - offset))
                        self._sent(sink, data, blob)
                        offset += len(data)
                        self._sessions.keep(blob.digest, {"offset": offset})
                        self.moved(len(data))
            except AwayError:
                if offset == begun:
                    raise
                return False
        if begun and self._files.local and not self._is_intact(blob, part):  # power may have failed meanwhile
            self._sessions.drop(blob.digest)
            return False
        self._files.move(part, _blob_path(blob.digest))
        return True

    def _is_intact(self, blob: Descriptor, part: str) -> bool:
        digest = hashlib.sha256()
        for piece in self._files.pieces(part, 0):
            digest.update(piece)
        return f"sha256:{digest.hexdigest()}" == blob.digest

    def _sent(self, sink: Sink, data: bytes, blob: Descriptor) -> None:
        if not data:
            raise DigestError(f"blob {blob.digest} is damaged", expected=f"{blob.size} bytes", got="fewer")
        self.link.send(len(data))
        sink.write(data)
        sink.flush()

    def _kept_bytes(self, blob: Descriptor, part: str) -> int:
        """Return how much of a part is known to be there: what was acknowledged, if it still is."""
        kept = (self._sessions.get(blob.digest) or {}).get("offset", 0)
        there = self._files.size(part) or 0
        return min(kept, there, blob.size) if isinstance(kept, int) and kept > 0 else 0

    def download(self, blob: Descriptor, target: Path) -> None:
        """See `Remote.download`."""
        what = f"cannot get blob {blob.digest[:19]}"

        def receive(arriving: Partial) -> None:
            self._step(what, lambda: self._receive(arriving))

        arrive(blob, target, self.name, receive)

    def _receive(self, partial: Partial) -> None:
        before, path = partial.size, _blob_path(partial.blob.digest)
        size = self._files.size(path)
        if size is None:
            raise missing_blob(self.name, partial.blob.digest)
        if size != partial.blob.size:
            got = f"{size} bytes"
            raise DigestError(
                f"blob {partial.blob.digest} in {self.name} is damaged", expected=f"{partial.blob.size} bytes", got=got
            )
        try:
            for piece in self._files.pieces(path, before):
                self.link.receive(len(piece))
                partial.write(piece)
                self.moved(len(piece))
        except AwayError:
            if partial.size == before:
                raise
        if partial.size == before:
            raise AwayError("it sent nothing")

    def put(self, ref: str, manifest: bytes, media_type: str) -> None:
        """See `Remote.put`."""
        self._step(f"cannot put the manifest {ref[:80]}", lambda: self._put(ref, manifest, media_type))

    def _put(self, ref: str, manifest: bytes, media_type: str) -> None:
        self._make()
        parsed = from_json(Manifest, manifest, f"the manifest {ref[:80]}")
        if self._files.local:
            for blob in (parsed.config, *parsed.layers):
                if self._files.size(_blob_path(blob.digest)) != blob.size:
                    expected = "a folder that has all its blobs"
                    raise BlobMissingError(
                        f"{self.name} lacks a blob of {ref[:80]}", expected=expected, got=blob.digest
                    )
        digest = digest_of(manifest)
        self.link.send(len(manifest))
        if self._files.size(_blob_path(digest)) != len(manifest):
            self._files.replace(_blob_path(digest), manifest)
        if not ref.startswith("sha256:"):
            entry = Descriptor(
                media_type=media_type, digest=digest, size=len(manifest), artifact_type=parsed.artifact_type
            )
            self._tags.set(ref, entry)

    def remove(self, tag: str) -> bool:
        """See `Remote.remove`."""

        def removed() -> bool:
            self._make()
            return self._tags.remove(tag)

        done = self._step(f"cannot remove the tag {tag[:80]}", removed)
        self.settle()
        return done

    def settle(self) -> None:
        """See `Remote.settle`. Behind ssh this is left to the host (`fold`): it reads every tag."""
        if self._files.local and len(self.tags()) <= limits.MAX_INDEX_ENTRIES:
            self.fold()

    def fold(self) -> None:
        """Draw up `index.json` from the tags, for tools that read OCI layouts (`TagFiles.fold`)."""

        def folded() -> None:
            self._make()
            self._tags.fold()

        self._step("cannot write the index", folded)

    def close(self) -> None:
        """See `Remote.close`."""
        self._files.close()
        self._sessions.close()

    def _step(self, what: str, action: Callable[[], T]) -> T:
        def checked() -> T:
            self._check()
            return action()

        return self.link.step(what, checked)

    def _check(self) -> None:
        """Refuse a folder that is not there (a stick that is not mounted), or that is something else."""
        if self._checked:
            return
        names = self._files.names(".")
        if names is None:
            hint = "mount it, or make the folder once by hand: a stick that is not mounted must not fill this disk"
            raise RemoteError(f"{self.name} is away", expected="a folder that exists", got="none", hint=hint)
        strangers = sorted(name for name in set(names) - _OURS if not name.startswith("."))
        if LAYOUT_FILE not in names and strangers:
            hint = "name an empty folder, or one that holds an OCI image layout"
            raise FormatError(
                f"{self.name} is something else", expected=LAYOUT_FILE, got=", ".join(strangers[:5]), hint=hint
            )
        self._checked = True

    def _make(self) -> None:
        """Make what is missing of the layout, its marker last."""
        if self._made:
            return
        for folder in ("blobs", BLOBS, UPLOADS):
            self._files.make_folder(folder)
        self._tags.make(UPLOADS)
        if self._files.size(INDEX_FILE) is None:
            self._tags.fold()
        if self._files.size(LAYOUT_FILE) is None:
            self._files.replace(LAYOUT_FILE, MARKER)
        self._made = True

    def _too_large(self, what: str, size: int, most: int) -> IntegrityError:
        return FormatError(f"{self.name}: {what} is too large", expected=f"at most {most} bytes", got=f"{size} bytes")


def _blob_path(digest: str) -> str:
    return f"{BLOBS}/{digest[7:]}"
