"""Bundles between stores: one generation exported to a folder or tar, and imported from one (FORMAT.md, "Transfer").

Nothing that was not verified reaches a store, and a failure on either side leaves what was there as it was.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge_cmcl.bundle import limits, tarball
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.contents import check_contents
from edge_cmcl.bundle.documents import ATTACHMENT_TAG, Descriptor, Index, Manifest, from_json, to_json
from edge_cmcl.bundle.layout import INDEX_FILE, LAYOUT_FILE, Layout, Loaded
from edge_cmcl.bundle.marker import MARKER
from edge_cmcl.bundle.media_types import BUNDLE, OCI_MANIFEST
from edge_cmcl.bundle.reading import user_file
from edge_cmcl.bundle.store import Store
from edge_cmcl.durable import make_folder, replacing, storage_errors, sync_folder, write_bytes
from edge_cmcl.errors import DigestError, FormatError, IntegrityError, ModelError, UsageError


def export_layout(layout: Layout, ref: str, out: Path) -> str:
    """Write the generation `ref` with its attachments, and nothing else, to `out`; return its manifest digest.

    `out` becomes an OCI layout folder, or a tar of one where it ends in .tar. Every blob is verified on the way. An
    older bundle at `out` is replaced when the new one is whole.

    Raises:
        ModelError: there is no such generation.
        DigestError, FormatError: it is damaged.
        UsageError: something that is not a bundle is at `out`.
        StorageError: the file system refused.
    """
    out = Path(out)
    loaded = layout.load(ref)
    check_replaceable(out)
    attachments = layout.attachments(loaded.digest)
    blobs = _blobs(loaded, attachments)
    tag = f"{loaded.generation.name}-{loaded.generation.counter}"
    index = Index.of().with_tag(tag, loaded.descriptor)
    for entry in attachments:
        index = index.with_tag(entry.tag, entry)
    make_folder(out.resolve().parent)
    if tarball.is_tar(out):
        with replacing(out) as file:
            _write_tar(file, layout, blobs, index)
    else:
        with _replacing_folder(out) as folder:
            _write_folder(folder, layout, blobs, index)
    return loaded.digest


def import_layout(
    source: Path,
    store: Store,
    *,
    ref: str | None = None,
    tags: Iterable[str] = (),
    admit: Callable[[Loaded], None] | None = None,
    accept: Callable[[Loaded], Mapping[str, Descriptor]] | None = None,
) -> str:
    """Bring one generation of the bundle `source` (a folder or tar) into `store`; return its manifest digest.

    Everything is copied beside the store first, each blob's digest checked on the way, then the manifest and the
    generation; then `admit` may refuse it by raising, before any payload is opened; then every payload is checked, and
    `accept` may refuse it. Only after that do the blobs move into the store, and last the tags, those of its
    attachments included.

    Args:
        source: OCI layout folder, or an uncompressed tar of one.
        store: where it goes.
        ref: which generation, where `source` holds several.
        tags: tags of the store to point to it, in the same replacement of the index.
        admit: called with the generation before its payloads are opened: the place to ask who has signed it.
        accept: called with the verified generation, before the store changes; returns further tags to move with it.

    Raises:
        ModelError: `source` is no bundle, or holds several generations and `ref` is None.
        DigestError, FormatError: it is damaged, hostile, or does not fit together; the store is as it was.
        StoreLockedError, StorageError: the store cannot be written.
    """
    with store.writer(), store.scratch() as scratch:
        staged, digest = _staged(Path(source), ref, scratch)
        loaded = staged.load_manifest(digest)
        if admit is not None:
            admit(loaded)
        check_contents(loaded)
        store.check_newer(loaded.generation)
        further = accept(loaded) if accept is not None else {}
        attachments = staged.attachments(loaded.digest)
        blobs = _blobs(loaded, attachments)
        layers = {layer.digest for layer in loaded.manifest.layers}
        for blob in blobs:
            if blob.digest not in layers:
                staged.verify(blob)
        entries = {entry.tag: entry for entry in attachments} | dict.fromkeys(tags, loaded.descriptor)
        store.adopt(loaded, blobs, {**entries, **further})
    return loaded.digest


@contextmanager
def opened(source: Path, ref: str | None = None) -> Iterator[Loaded]:
    """Open a bundle folder, a store or a bundle's tar for reading, without installing it.

    A tar is unpacked into a temporary folder for as long as the block lasts.

    Raises:
        ModelError: `source` is no bundle, or holds several generations and `ref` is None.
        DigestError, FormatError: it is damaged.
    """
    if not Path(source).is_file():
        layout = Layout(source)
        yield layout.load_manifest(_chosen(layout, ref))
        return
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-") as folder:
        layout, digest = _staged(Path(source), ref, Path(folder))
        yield layout.load_manifest(digest)


def _staged(source: Path, ref: str | None, folder: Path) -> tuple[Layout, str]:
    """Copy the bundle `source` into the empty `folder`; return that as a layout, and the generation's digest."""
    if source.is_file():
        _unpack(source, folder)
        layout = Layout(folder, str(source))
        return layout, _chosen(layout, ref)
    layout = Layout(source)
    digest = _chosen(layout, ref)
    loaded = layout.load_manifest(digest)
    attachments = layout.attachments(digest)
    blobs = _blobs(loaded, attachments)
    _check_total(blobs, layout.name)
    _write_folder(folder, layout, blobs, Index.of(loaded.descriptor, *attachments))
    return Layout(folder, str(source)), digest


def _chosen(layout: Layout, ref: str | None) -> str:
    """Return the digest of the generation `ref`, or of the only one in the index."""
    if ref is not None:
        return layout.resolve(ref)
    entries = [e for e in layout.index().manifests if not ATTACHMENT_TAG.fullmatch(e.tag)]
    digests = sorted({e.digest for e in entries if e.media_type == OCI_MANIFEST and e.artifact_type in (None, BUNDLE)})
    if len(digests) != 1:
        raise ModelError(
            f"{layout.name} does not hold one generation",
            expected="exactly one in its index",
            got=", ".join(digest[:19] for digest in digests[:5]) or "none",
            hint="name one of them, or export one as a bundle with `edge-cmcl export`",
        )
    return digests[0]


def _blobs(loaded: Loaded, attachments: Iterable[Descriptor]) -> list[Descriptor]:
    """Return every blob that a copy of this generation needs: manifest, document, layers; the same of attachments."""
    blobs = [loaded.descriptor, loaded.manifest.config, *loaded.manifest.layers]
    attachments = list(attachments)
    if len(attachments) > limits.MAX_ATTACHMENTS:
        expected = f"at most {limits.MAX_ATTACHMENTS} attachments"
        raise FormatError(f"{loaded.layout.name} holds too much", expected=expected, got=str(len(attachments)))
    for entry in attachments:
        name = f"attachment {entry.tag[:100]}"
        _check_attachment(entry, name)
        manifest = from_json(Manifest, loaded.layout.read(entry), name)
        if manifest.subject is not None and manifest.subject.digest != loaded.digest:
            raise FormatError(f"{name} is about another manifest", expected=loaded.digest, got=manifest.subject.digest)
        for blob in (manifest.config, *manifest.layers):
            _check_attachment(blob, name)
        blobs += [entry, manifest.config, *manifest.layers]
    return list({blob.digest: blob for blob in blobs}.values())


def _check_total(blobs: list[Descriptor], name: str) -> None:
    total = sum(blob.size for blob in blobs)
    if total > limits.MAX_BUNDLE_BYTES or len(blobs) > limits.MAX_BUNDLE_FILES:
        expected = f"{limits.MAX_BUNDLE_FILES} files and {limits.MAX_BUNDLE_BYTES} bytes at most"
        raise FormatError(f"{name} holds too much", expected=expected, got=f"{len(blobs)} files, {total} bytes")


def _check_attachment(blob: Descriptor, name: str) -> None:
    if blob.size > limits.MAX_ATTACHMENT_BYTES:
        expected = f"at most {limits.MAX_ATTACHMENT_BYTES} bytes a blob"
        raise FormatError(f"{name} is too large", expected=expected, got=f"{blob.size} bytes")


def _write_folder(folder: Path, layout: Layout, blobs: Iterable[Descriptor], index: Index) -> None:
    make_folder(folder / "blobs" / "sha256")
    write_bytes(folder / LAYOUT_FILE, MARKER)
    for blob in blobs:
        target = folder / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")
        with layout.chunks(blob) as chunks, replacing(target, flush_folder=False) as file:
            for chunk in chunks:
                file.write(chunk)
    with storage_errors(folder):
        sync_folder(folder / "blobs" / "sha256")
    write_bytes(folder / INDEX_FILE, to_json(index))


def _write_tar(file: BinaryIO, layout: Layout, blobs: Iterable[Descriptor], index: Index) -> None:
    for name, data in ((LAYOUT_FILE, MARKER), (INDEX_FILE, to_json(index))):
        tarball.write_member(file, name, len(data), [data])
    for blob in sorted(blobs, key=lambda blob: blob.digest):
        name = f"blobs/sha256/{blob.digest.removeprefix('sha256:')}"
        with layout.chunks(blob) as chunks:
            tarball.write_member(file, name, blob.size, chunks)
    tarball.write_end(file)


def _unpack(source: Path, folder: Path) -> None:
    """Unpack the tar of a layout into the empty `folder`; every blob must have the digest that its name says."""
    make_folder(folder / "blobs" / "sha256")
    with user_file(source) as file:
        for name, _, chunks in tarball.members(file, str(source)):
            with replacing(folder / name, flush_folder=False) as target:
                digest = hashlib.sha256()
                for chunk in chunks:
                    digest.update(chunk)
                    target.write(chunk)
                wanted = Path(name).name
                if name.startswith("blobs/") and digest.hexdigest() != wanted:
                    raise DigestError(
                        f"{source}: blob sha256:{wanted} is damaged",
                        expected=f"sha256:{wanted}",
                        got=f"sha256:{digest.hexdigest()}",
                        hint="copy or export the bundle again",
                    )


@contextmanager
def _replacing_folder(out: Path) -> Iterator[Path]:
    """Yield a new folder beside `out` that takes its place when the block ends without an error."""
    out = out.resolve()
    with storage_errors(out):
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        new, old = beside / "new", beside / "old"
        new.mkdir()
    try:
        yield new
        with storage_errors(out):
            if out.exists():
                out.rename(old)
            new.rename(out)
            sync_folder(out.parent)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(beside, ignore_errors=True)


def check_replaceable(out: Path) -> None:
    """Refuse to replace anything but a bundle of ours: images of others are OCI layouts, too, and a store is more.

    Raises:
        UsageError: something else is at `out`.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir()) and not tarball.is_tar(out)):
        return
    try:
        replaceable = _is_our_tar(out) if tarball.is_tar(out) else _is_our_folder(out)
    except (IntegrityError, ModelError):
        replaceable = False
    if not replaceable:
        raise UsageError(
            f"{out} exists and is not a bundle",
            expected="a new path, or an intact bundle of edge-cmcl to replace",
            got="a folder" if out.is_dir() else "a file",
            hint="choose another --out, or remove it first",
        )


def _is_our_folder(out: Path) -> bool:
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if not names <= {LAYOUT_FILE, INDEX_FILE, "blobs"}:
        return False
    layout = Layout(out)
    digest = _only_generation(layout.index())
    return digest is not None and layout.load_manifest(digest).digest == digest


def _is_our_tar(out: Path) -> bool:
    """Return whether the only generation in the index of a tar, which comes before the blobs, is one of ours."""
    wanted = None
    with user_file(out) as file:
        for name, size, chunks in tarball.members(file, str(out)):
            if name == INDEX_FILE:
                wanted = _only_generation(from_json(Index, b"".join(chunks), f"{out}: {INDEX_FILE}"))
            elif wanted is not None and wanted.endswith(f":{Path(name).name}") and size <= limits.MAX_DOCUMENT_BYTES:
                manifest = b"".join(chunks)
                ours = from_json(Manifest, manifest, f"{out}: {wanted[:19]}").artifact_type == BUNDLE
                return ours and digest_of(manifest) == wanted
    return False


def _only_generation(index: Index) -> str | None:
    """Return the digest of the only entry of an index that is no attachment, None where there are more or none."""
    digests = {entry.digest for entry in index.manifests if not ATTACHMENT_TAG.fullmatch(entry.tag)}
    return digests.pop() if len(digests) == 1 else None
