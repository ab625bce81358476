"""Reading an OCI image layout folder: tags, generations, blobs. Every read is checked; nothing is locked.

A device's store and an exported bundle are both such layouts, so `evaluate` and `install` read either the same way.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.canonical import parse
from edge_cmcl.bundle.documents import ATTACHMENT_TAG, Descriptor, Index, Manifest, from_json, index_from_json
from edge_cmcl.bundle.generation import Generation, check_manifest, generation_from_json
from edge_cmcl.bundle.media_types import BUNDLE, OCI_MANIFEST
from edge_cmcl.bundle.parts import by_blob
from edge_cmcl.bundle.reading import damaged_blob, missing_blob, open_regular, read_file, verified_chunks
from edge_cmcl.errors import EdgeCmclError, FormatError, IntegrityError, ModelError, StorageError

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
LAYOUT_VERSION = "1.0.0"

DAMAGED = (IntegrityError, StorageError)
"""What a damaged file raises: its bytes are other ones, or the disk does not give them."""

_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


@dataclass(frozen=True)
class Loaded:
    """A generation read from a layout, its manifest and document verified; blobs are read and verified on demand.

    Attributes:
        layout: where it was read from.
        digest: of the manifest.
        size: bytes of the manifest.
        manifest: the OCI manifest.
        generation: its config document.
    """

    layout: Layout
    digest: str
    size: int
    manifest: Manifest
    generation: Generation

    @property
    def base(self) -> str:
        """Manifest digest of the export that this history began with: what a successor puts into its `base`."""
        return self.generation.base or self.digest

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the manifest, as an index lists it."""
        return Descriptor(media_type=OCI_MANIFEST, digest=self.digest, size=self.size, artifact_type=BUNDLE)

    @cached_property
    def blobs(self) -> dict[str, tuple[Descriptor, ...]]:
        """What each blob consists of, by its digest: its one layer, or its parts in order (FORMAT.md, "Parts")."""
        return by_blob(self.manifest.layers)

    def layers(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the layers that are the blob `digest`.

        Raises:
            FormatError: this generation has no such blob.
        """
        if digest not in self.blobs:
            raise FormatError(f"generation {self.digest[:19]} has no blob {digest[:80]}")
        return self.blobs[digest]

    def blob_size(self, digest: str) -> int:
        """Return the bytes of the blob `digest`; raises as `layers`."""
        return sum(layer.size for layer in self.layers(digest))

    def read(self, digest: str) -> bytes:
        """Return the bytes of the blob `digest`, verified.

        Raises:
            FormatError: as `layers`.
            DigestError: a layer is missing or damaged, or its parts together are another blob.
            StorageError: the file system could not read it.
        """
        return b"".join(self._chunks(digest))

    def verify(self, digest: str) -> None:
        """Check the blob `digest` in bounded memory; raises as `read` does."""
        for _ in self._chunks(digest):
            pass

    def _chunks(self, digest: str) -> Iterator[bytes]:
        whole = hashlib.sha256()
        for layer in self.layers(digest):
            with self.layout.chunks(layer) as chunks:
                for chunk in chunks:
                    whole.update(chunk)
                    yield chunk
        if f"sha256:{whole.hexdigest()}" != digest:
            raise damaged_blob(self.layout.name, digest, digest, f"sha256:{whole.hexdigest()}")


class Layout:
    """An OCI image layout folder, opened for reading.

    Args:
        root: the folder.
        name: what errors call it, where the folder is a copy of what the user knows.

    Raises:
        ModelError: `root` is not such a folder.
        FormatError: it has another layout version.
    """

    def __init__(self, root: Path, name: str = "") -> None:
        self.root = Path(root)
        self.name = name or str(root)
        self._check_marker()

    def _check_marker(self) -> None:
        marker = self.root / LAYOUT_FILE
        if not marker.is_file():
            raise ModelError(
                f"{self.name} is not a bundle or store",
                expected=f"an OCI image layout: a folder with the file {LAYOUT_FILE}",
                got="no such folder" if not self.root.exists() else f"no {LAYOUT_FILE}",
                hint="check the path; `edge-cmcl install` makes a store, `edge-cmcl export` a bundle",
            )
        document = parse(read_file(marker, limits.MAX_LAYOUT_BYTES), f"{self.name}: {LAYOUT_FILE}")
        version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
        if version != LAYOUT_VERSION:
            raise FormatError(
                f"{self.name} has a layout version that this edge-cmcl does not know",
                expected=LAYOUT_VERSION,
                got=str(version)[:80],
                hint="update edge-cmcl, or export the bundle again",
            )

    def blob_path(self, digest: str) -> Path:
        """Return where the blob `digest` ("sha256:HEX") lies."""
        return self.root / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def index(self) -> Index:
        """Read `index.json`.

        Raises:
            FormatError: it breaks its format or checksum.
        """
        data = read_file(self.root / INDEX_FILE, limits.MAX_DOCUMENT_BYTES)
        return index_from_json(data, f"{self.name}: {INDEX_FILE}")

    def tags(self) -> dict[str, str]:
        """Return the manifest digest of each tag, attachments (`sha256-HEX.sig`) included."""
        return {entry.tag: entry.digest for entry in self.index().manifests if entry.tag}

    def attachments(self, digest: str) -> list[Descriptor]:
        """Return the tagged manifests that say something about the manifest `digest`: signatures, judgements."""
        prefix = digest.replace(":", "-") + "."
        entries = self.index().manifests
        return [entry for entry in entries if entry.tag.startswith(prefix) and ATTACHMENT_TAG.fullmatch(entry.tag)]

    def has(self, digest: str) -> bool:
        """Return whether the blob `digest` is there, unverified."""
        return self.blob_path(digest).is_file()

    @contextmanager
    def chunks(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Yield the blob in chunks of at most 1 MiB; the last one is only followed by the end if the digest matched.

        Raises:
            DigestError: the blob is missing, or its size or digest is wrong.
        """
        with open_regular(self.blob_path(descriptor.digest), missing_blob(self.name, descriptor.digest)) as file:
            yield verified_chunks(file, descriptor, self.name)

    def read(self, descriptor: Descriptor) -> bytes:
        """Return the bytes of a blob, its size and sha256 checked.

        Raises:
            DigestError: the blob is missing, or its size or digest is wrong.
            StorageError: the file system could not read it.
        """
        with self.chunks(descriptor) as chunks:
            return b"".join(chunks)

    def verify(self, descriptor: Descriptor) -> None:
        """Check the size and digest of a blob in bounded memory; raises as `read` does."""
        with self.chunks(descriptor) as chunks:
            for _ in chunks:
                pass

    def load(self, ref: str) -> Loaded:
        """Read the generation that `ref` names: a tag, a manifest digest, or an unambiguous start of one.

        Raises:
            ModelError: there is no such generation, or `ref` is ambiguous.
            DigestError: its manifest or document is missing or changed.
            FormatError: its manifest or document breaks its format.
        """
        return self.load_manifest(self.resolve(ref))

    def load_manifest(self, digest: str) -> Loaded:
        """Read the generation whose manifest has exactly this digest; raises as `load` does."""
        data = self._manifest_bytes(digest)
        manifest = from_json(Manifest, data, f"manifest {digest[:19]}")
        name = f"generation {digest[:19]}"
        if manifest.config.size > limits.MAX_DOCUMENT_BYTES:
            expected = f"at most {limits.MAX_DOCUMENT_BYTES} bytes"
            raise FormatError(f"the document of {name} is too large", expected=expected, got=str(manifest.config.size))
        generation = generation_from_json(self.read(manifest.config), name)
        check_manifest(manifest, generation, name)
        return Loaded(self, digest, len(data), manifest, generation)

    def resolve(self, ref: str) -> str:
        """Return the manifest digest that `ref` names; raises as `load` does."""
        tags = self.tags()
        if ref in tags:
            return tags[ref]
        match = _PREFIX.fullmatch(ref)
        found = self._bundles_starting(match[1]) if match else []
        if len(found) == 1:
            return found[0]
        names = sorted(tag for tag in tags if not ATTACHMENT_TAG.fullmatch(tag))
        raise ModelError(
            f"{self.name} has {'several generations' if found else 'no generation'} {ref[:80]!r}",
            expected="a tag, a digest, or at least four hexadecimal digits of one",
            got=", ".join(digest[7:23] for digest in found[:5]) or f"tags: {', '.join(names[:10]) or 'none'}",
            hint="give more digits" if found else "`edge-cmcl log` lists the generations",
        )

    def lineage(
        self, digests: Iterable[str], *, past: tuple[type[EdgeCmclError], ...] = (IntegrityError,)
    ) -> Iterator[Loaded]:
        """Yield the generations `digests` and those before them, each once, the nearest first.

        A parent that is not here ends its line without an error: an exported bundle comes without its parents.

        Args:
            digests: manifest digests.
            past: errors that end the line of a generation that cannot be read, instead of being raised. A disk that
                does not give its bytes is no end of a history unless the caller says so.

        Raises:
            DigestError, FormatError, StorageError: a generation cannot be read, for another reason than `past`.
        """
        waiting, seen = list(digests), set[str]()
        while waiting:
            digest = waiting.pop(0)
            if digest in seen:
                continue
            seen.add(digest)
            try:
                loaded = self.load_manifest(digest)
            except past:
                continue
            yield loaded
            waiting += [parent for parent in loaded.generation.parents if self.has(parent)]

    def _manifest_bytes(self, digest: str) -> bytes:
        path = self.blob_path(digest)
        with open_regular(path, missing_blob(self.name, digest)) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limits.MAX_DOCUMENT_BYTES:
                expected = f"at most {limits.MAX_DOCUMENT_BYTES} bytes"
                raise FormatError(f"manifest {digest[:19]} is too large", expected=expected, got=f"{size} bytes")
        return self.read(Descriptor(media_type=OCI_MANIFEST, digest=digest, size=size))

    def _bundles_starting(self, prefix: str) -> list[str]:
        names = sorted(path.name for path in self.blob_path("").glob(f"{prefix}*"))
        return [f"sha256:{name}" for name in names if len(name) == 64 and self._is_bundle(f"sha256:{name}")]

    def _is_bundle(self, digest: str) -> bool:
        try:
            manifest = from_json(Manifest, self._manifest_bytes(digest), digest)
        except FormatError:
            return False
        return manifest.artifact_type == BUNDLE
