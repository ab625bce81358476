"""A generation from a remote, brought into a folder of its own as an OCI layout: limits first, then bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.documents import Descriptor, Index, Manifest, from_json, to_json
from edge_cmcl.bundle.generation import Generation, check_manifest, generation_from_json
from edge_cmcl.bundle.layout import DAMAGED, INDEX_FILE, LAYOUT_FILE, Layout
from edge_cmcl.bundle.marker import MARKER
from edge_cmcl.bundle.media_types import BUNDLE, OCI_MANIFEST
from edge_cmcl.durable import make_folder, replacing, storage_errors, sync_folder, write_bytes
from edge_cmcl.errors import FormatError, ModelError, StorageError
from edge_cmcl.progress import Progress, silent
from edge_cmcl.sync.remote import Remote

SIGNATURE_SUFFIX = "sig"
_PARTS = "parts"


def fetch(
    remote: Remote,
    ref: str,
    have: Layout | None,
    folder: Path,
    *,
    suffixes: Sequence[str] = (SIGNATURE_SUFFIX,),
    progress: Progress = silent,
) -> Layout:
    """Bring one generation and its attachments into `folder`, as a layout that `import_layout` accepts; return that.

    A blob that `have` holds intact is linked or copied from there. A later call with the same folder goes on where this
    one was cut off. `folder` has an index only when everything it names is there.

    Args:
        remote: where from.
        ref: tag or digest of the generation.
        have: a store or bundle that may hold some of it, None for none.
        folder: made where there is none; nothing else may write to it meanwhile.
        suffixes: which attachments to look for: tags `sha256-HEX.SUFFIX`.
        progress: told of the bytes that come over the link.

    Raises:
        ModelError: the remote has no generation `ref`.
        RemoteError: the remote is away or refuses.
        DigestError: bytes are not what their digest says.
        FormatError: a document breaks its format, or there is more than a bundle may hold.
        StorageError: this side cannot hold it.
    """
    pulled = _Pull(remote, have, Path(folder), progress)
    entry, manifest = pulled.manifest(remote.head(ref), ref)
    name = f"generation {entry.digest[:19]}"
    if manifest.artifact_type != BUNDLE:
        raise FormatError(f"{remote.name}: {name} is something else", expected=BUNDLE, got=str(manifest.artifact_type))
    attached = [found for suffix in suffixes if (found := pulled.attachment(entry, suffix)) is not None]
    manifests = [manifest, *(each for _, each in attached)]
    generation = pulled.blobs(manifests, lambda data: _checked(manifest, data, name))
    tag = f"{generation.name}-{generation.counter}"
    index = Index.of(*(found for found, _ in attached)).with_tag(tag, entry)
    write_bytes(pulled.folder / LAYOUT_FILE, MARKER)
    write_bytes(pulled.folder / INDEX_FILE, to_json(index))
    layout = Layout(pulled.folder, f"{ref[:80]} of {remote.name}")
    layout.load_manifest(entry.digest)
    return layout


def _checked(manifest: Manifest, document: bytes, name: str) -> Generation:
    generation = generation_from_json(document, name)
    check_manifest(manifest, generation, name)
    return generation


class _Pull:
    """One pull: the folder and what is known of it."""

    def __init__(self, remote: Remote, have: Layout | None, folder: Path, progress: Progress) -> None:
        self.folder = folder
        self._remote = remote
        self._have = have
        self._progress = progress
        self._blobs = folder / "blobs" / "sha256"
        make_folder(self._blobs)
        make_folder(folder / _PARTS)
        with storage_errors(folder):
            (folder / INDEX_FILE).unlink(missing_ok=True)

    def manifest(self, found: Descriptor | None, shown: str) -> tuple[Descriptor, Manifest]:
        """Bring a manifest here; return its descriptor and what it says.

        Args:
            found: what the remote says of it.
            shown: what errors call it.
        """
        if found is None:
            raise ModelError(
                f"{self._remote.name} has no {shown[:100]!r}",
                expected="a tag, or the digest of a generation",
                got="none",
                hint="nothing was pushed or promoted under that name yet",
            )
        if found.media_type != OCI_MANIFEST:
            raise FormatError(
                f"{self._remote.name}: {shown[:100]} is no bundle", expected=OCI_MANIFEST, got=found.media_type[:100]
            )
        data = self._kept(found) or self._remote.manifest(found.digest)
        if data is None:
            raise FormatError(
                f"{self._remote.name}: the manifest of {shown[:100]} is gone", expected=found.digest, got="none"
            )
        manifest = from_json(Manifest, data, f"manifest {found.digest[:19]} of {self._remote.name}")
        write_bytes(self._at(found.digest), data)
        entry = Descriptor(
            media_type=OCI_MANIFEST, digest=digest_of(data), size=len(data), artifact_type=manifest.artifact_type
        )
        return entry, manifest

    def attachment(self, generation: Descriptor, suffix: str) -> tuple[Descriptor, Manifest] | None:
        """Bring the manifest of an attachment here; return its tagged entry and what it says, None for none."""
        tag = f"{generation.digest.replace(':', '-')}.{suffix}"
        found = self._remote.head(tag)
        if found is None:
            return None
        entry, manifest = self.manifest(found, tag)
        if manifest.subject is not None and manifest.subject.digest != generation.digest:
            got = manifest.subject.digest
            raise FormatError(f"{tag} is about another manifest", expected=generation.digest, got=got)
        for blob in (manifest.config, *manifest.layers):
            if blob.size > limits.MAX_ATTACHMENT_BYTES:
                expected = f"at most {limits.MAX_ATTACHMENT_BYTES} bytes a blob"
                raise FormatError(f"attachment {tag} is too large", expected=expected, got=f"{blob.size} bytes")
        (tagged,) = Index.of().with_tag(tag, entry).manifests
        return tagged, manifest

    def blobs(self, manifests: Sequence[Manifest], check: Callable[[bytes], Generation]) -> Generation:
        """Bring every blob here; the generation's document comes first, and `check` may refuse it."""
        config = manifests[0].config
        if config.size > limits.MAX_DOCUMENT_BYTES:
            expected = f"at most {limits.MAX_DOCUMENT_BYTES} bytes"
            raise FormatError(
                "the document of a generation is too large", expected=expected, got=f"{config.size} bytes"
            )
        wanted = {blob.digest: blob for each in manifests for blob in (each.config, *each.layers)}
        self._check_total(wanted.values())
        missing = [blob for blob in wanted.values() if not self._is_here(blob)]
        self._check_space(missing)
        total, done = sum(blob.size for blob in missing), 0

        def moved(count: int) -> None:
            nonlocal done
            done += count
            self._progress("receive", min(done, total), total)

        previous, self._remote.moved = self._remote.moved, moved
        try:
            if config in missing:
                self._download(config)
            generation = check(_Blobs(self.folder).read(config))
            for blob in missing:
                if blob != config:
                    self._download(blob)
        finally:
            self._remote.moved = previous
        with storage_errors(self._blobs):
            sync_folder(self._blobs)
        return generation

    def _download(self, blob: Descriptor) -> None:
        part = self.folder / _PARTS / blob.digest[7:]
        self._remote.download(blob, part)
        with storage_errors(part):
            part.replace(self._at(blob.digest))

    def _is_here(self, blob: Descriptor) -> bool:
        """Whether a blob is in the folder, or could be linked or copied from what we have; verified in both cases."""
        target = self._at(blob.digest)
        with storage_errors(target):
            if target.exists():
                try:
                    _Blobs(self.folder).verify(blob)
                    return True
                except DAMAGED:
                    target.unlink()
        if self._have is None or not self._have.has(blob.digest):
            return False
        try:
            self._have.verify(blob)
            self._take_over(self._have, blob, target)
        except DAMAGED:
            return False
        return True

    def _take_over(self, have: Layout, blob: Descriptor, target: Path) -> None:
        try:
            os.link(have.blob_path(blob.digest), target)
        except OSError:  # another file system, or one without hard links
            with have.chunks(blob) as chunks, replacing(target) as file:
                for chunk in chunks:
                    file.write(chunk)

    def _kept(self, found: Descriptor) -> bytes | None:
        """Return a manifest that is here already."""
        for layout in filter(None, (_Blobs(self.folder), self._have)):
            try:
                return layout.read(found)
            except DAMAGED:
                continue
        return None

    def _check_total(self, blobs: Iterable[Descriptor]) -> None:
        sizes = [blob.size for blob in blobs]
        if sum(sizes) > limits.MAX_BUNDLE_BYTES or len(sizes) > limits.MAX_BUNDLE_FILES:
            expected = f"{limits.MAX_BUNDLE_FILES} files and {limits.MAX_BUNDLE_BYTES} bytes at most"
            got = f"{len(sizes)} files, {sum(sizes)} bytes"
            raise FormatError(f"{self._remote.name} offers too much", expected=expected, got=got)

    def _check_space(self, missing: Iterable[Descriptor]) -> None:
        with storage_errors(self.folder):
            free = shutil.disk_usage(self.folder).free
            parts = [self.folder / _PARTS / blob.digest[7:] for blob in missing]
            needed = sum(blob.size for blob in missing) - sum(part.stat().st_size for part in parts if part.exists())
        if needed > free:
            hint = "free some space, or `edge-cmcl gc`"
            raise StorageError(f"{self.folder} is too small", expected=f"{needed} bytes", got=f"{free} free", hint=hint)

    def _at(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")


class _Blobs(Layout):
    """The blobs of a folder that is no layout yet."""

    def _check_marker(self) -> None:
        pass
