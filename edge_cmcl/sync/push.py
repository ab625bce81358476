"""Generations to a remote: what it lacks, in an order in which nothing points to what is not there yet (SYNC.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.documents import Descriptor, Manifest, from_json
from edge_cmcl.bundle.layout import DAMAGED, Layout, Loaded
from edge_cmcl.errors import FormatError, UsageError
from edge_cmcl.progress import Progress, silent
from edge_cmcl.sync.remote import BlobMissingError, Remote

GENERATION_TAG = "generation-"
_HEX = 32


@dataclass(frozen=True)
class Item:
    """One blob or manifest that a push would send.

    Attributes:
        blob: media type, digest and size.
        generation: manifest digest of the generation that it is for.
        there: whether the remote has it.
        attached: whether it belongs to an attachment, such as the signature.
        tag: where a manifest goes, "" for a blob.
    """

    blob: Descriptor
    generation: str
    there: bool
    attached: bool = False
    tag: str = ""


@dataclass(frozen=True)
class Sent:
    """What a push sent.

    Attributes:
        generations: manifest digests of those that the remote lacked, oldest first.
        blobs: number of blobs and manifests.
        size: their bytes.
        tags: those that moved, beside the generations' own.
    """

    generations: tuple[str, ...]
    blobs: int
    size: int
    tags: tuple[str, ...]


def own_tag(digest: str) -> str:
    """Return the tag that keeps a generation on a remote, where what has no tag is collected."""
    return f"{GENERATION_TAG}{digest.removeprefix('sha256:')[:_HEX]}"


def plan(layout: Layout, generations: Sequence[Loaded], remote: Remote) -> list[Item]:
    """Return everything that generations consist of, each once, in the order in which a push sends it.

    Of a generation whose parent the remote has, only what the parent has not got is asked for, up to the first blob
    that is missing: a push sends them in this order. What others left there beyond that by chance is sent again.

    Args:
        layout: where they lie, with their attachments.
        generations: oldest first.
        remote: where to.

    Raises:
        RemoteError: it is away or refuses.
        DigestError, FormatError: a manifest here is damaged, or the remote answers nonsense.
    """
    known: set[str] = set()
    listed: set[str] = set()
    items: list[Item] = []
    for loaded in generations:
        found = remote.head(own_tag(loaded.digest))
        whole = found is not None and found.digest == loaded.digest
        if not whole:
            known |= _of_parents(layout, loaded, remote, known)
        follows, rest_lacks = any(parent in known for parent in loaded.generation.parents), False
        for blob in _unique(loaded.manifest.config, *loaded.manifest.layers):
            if blob.digest not in listed:
                there = whole or blob.digest in known or (not rest_lacks and remote.has(blob))
                rest_lacks = rest_lacks or (follows and not there)
                items.append(Item(blob, loaded.digest, there))
                listed.add(blob.digest)
        items += _attachments(layout, loaded, remote, listed)
        items.append(Item(loaded.descriptor, loaded.digest, whole, tag=own_tag(loaded.digest)))
        known.add(loaded.digest)
    return items


def push(
    layout: Layout,
    generations: Sequence[Loaded],
    remote: Remote,
    tags: Mapping[str, Descriptor],
    progress: Progress = silent,
) -> Sent:
    """Send generations and then move tags; what the remote has is not sent again.

    Whatever instant it ends at, each tag on the remote points to something whole. A second call goes on where the first
    one ended, in the middle of a blob, too.

    Args:
        layout: where they lie, with their attachments.
        generations: oldest first.
        remote: where to.
        tags: the manifest in `layout` that each tag of the remote shall point to; they move last, in this order.
        progress: told of bytes.

    Raises:
        RemoteError: the remote is away, refuses or is full.
        DigestError, FormatError: a blob here is damaged (nothing of it was sent), or the remote lies.
    """
    lacking = [item for item in plan(layout, generations, remote) if not item.there]
    total, done = sum(item.blob.size for item in lacking), 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        progress("send", min(done, total), total)

    by_digest = {loaded.digest: loaded for loaded in generations}
    previous, remote.moved = remote.moved, moved
    try:
        for item in lacking:
            _send(layout, item, remote, by_digest[item.generation])
        moved_tags = tuple(tag for tag, entry in tags.items() if _point(layout, tag, entry, remote))
        remote.settle()
    finally:
        remote.moved = previous
    new = tuple(item.generation for item in lacking if item.tag == own_tag(item.generation))
    return Sent(new, len(lacking), total, moved_tags)


def _send(layout: Layout, item: Item, remote: Remote, loaded: Loaded) -> None:
    if not item.tag:
        layout.verify(item.blob)
        remote.upload(item.blob, layout.blob_path(item.blob.digest))
        return
    data = layout.read(item.blob)
    try:
        remote.put(item.tag, data, item.blob.media_type)
    except BlobMissingError:
        if item.attached:
            raise
        for blob in _unique(loaded.manifest.config, *loaded.manifest.layers):  # it has lost what its tags promise
            if not remote.has(blob):
                layout.verify(blob)
                remote.upload(blob, layout.blob_path(blob.digest))
        remote.put(item.tag, data, item.blob.media_type)
    remote.moved(len(data))


def _point(layout: Layout, tag: str, entry: Descriptor, remote: Remote) -> bool:
    """Move one tag; False where it is there already."""
    if tag.startswith(GENERATION_TAG):
        expected = f"a tag that does not begin with {GENERATION_TAG}"
        raise UsageError(f"the tag {tag[:80]!r} is kept for single generations", expected=expected, got=tag[:80])
    found = remote.head(tag)
    if found is not None and found.digest == entry.digest:
        return False
    remote.put(tag, layout.read(entry), entry.media_type)
    return True


def _of_parents(layout: Layout, loaded: Loaded, remote: Remote, known: set[str]) -> set[str]:
    """Return the blobs of those parents that the remote has whole."""
    found: set[str] = set()
    for parent in loaded.generation.parents:
        if parent in known:
            continue
        try:
            older = layout.load_manifest(parent)
        except DAMAGED:
            continue  # it is not here: each blob is asked for
        there = remote.head(own_tag(parent))
        if there is not None and there.digest == parent:
            found |= {parent, *_digests(older)}
    return found


def _attachments(layout: Layout, loaded: Loaded, remote: Remote, listed: set[str]) -> Iterator[Item]:
    entries = layout.attachments(loaded.digest)
    if len(entries) > limits.MAX_ATTACHMENTS:
        expected = f"at most {limits.MAX_ATTACHMENTS}"
        raise FormatError(f"{layout.name}: too many attachments", expected=expected, got=str(len(entries)))
    for entry in entries:
        found = remote.head(entry.tag)
        there = found is not None and found.digest == entry.digest
        manifest = from_json(Manifest, layout.read(entry), f"attachment {entry.tag[:100]}")
        for blob in _unique(manifest.config, *manifest.layers):
            if blob.digest not in listed:
                listed.add(blob.digest)
                yield Item(blob, loaded.digest, there or remote.has(blob), attached=True)
        yield Item(entry, loaded.digest, there, attached=True, tag=entry.tag)


def _digests(loaded: Loaded) -> set[str]:
    return {loaded.manifest.config.digest, *(layer.digest for layer in loaded.manifest.layers)}


def _unique(*blobs: Descriptor) -> list[Descriptor]:
    return list({blob.digest: blob for blob in blobs}.values())
