"""Garbage collection: what no kept generation needs is removed, safely while others read (FORMAT.md, "Collection").

A reader holds the generation that it uses by a shared lock on the file of its manifest, which works on a read-only
disk, too, and ends with its process. What is held is kept.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_cmcl.bundle.documents import ATTACHMENT_TAG, Descriptor, Manifest, from_json
from edge_cmcl.bundle.layout import Layout, Loaded
from edge_cmcl.bundle.store import Store
from edge_cmcl.bundle.tags import GENERATION_TAG, free_tag
from edge_cmcl.durable import FULL, storage_errors, sync_folder
from edge_cmcl.errors import StorageError

_HEX = 64


@dataclass(frozen=True)
class Collected:
    """What a collection removed.

    Attributes:
        generations: manifest digests of the generations removed.
        held: those that would have been removed, but a process uses them.
        blobs: number of blobs removed, manifests included.
        bytes: their size.
    """

    generations: tuple[str, ...]
    held: tuple[str, ...]
    blobs: int
    bytes: int


def collect(store: Store, generations: Iterable[Loaded], kept: Iterable[str]) -> Collected:
    """Remove every generation of `generations` that is not in `kept`, and every blob that nothing needs any more.

    First the tags, in one replacement of `index.json`, in which a generation that stays and was found only through one
    that goes gets a tag of its own; then the manifests; then the rest. Where the disk is too full for another index,
    layers of what goes make room for it. After a kill in between, the next collection removes what is left.

    Args:
        store: the store; its writer lock is held.
        generations: all generations that are in it.
        kept: manifest digests to keep; what has a tag other than `generation-...` is kept, too.

    Raises:
        DigestError, FormatError: something that is to be kept is damaged; nothing was removed.
        StorageError: the file system refused.
    """
    generations = list(generations)
    named = {digest for tag, digest in store.tags().items() if not _collectable(tag)}
    wanted = {*kept, *named}
    doomed = [loaded.digest for loaded in generations if loaded.digest not in wanted]
    with ExitStack() as locks, storage_errors(store.root):
        free = [digest for digest in doomed if _unused(store.blob_path(digest), locks)]
        staying = {loaded.digest: loaded for loaded in generations if loaded.digest not in free}
        needed = _needed(store, staying.values())
        tags = {tag: digest for tag, digest in store.tags().items() if _about(tag, digest) not in free}
        lost = _unreachable(staying, tags.values())
        entries = {free_tag(loaded, store.tags()): loaded.descriptor for loaded in lost}
        if entries or tags != store.tags():  # a disk too full to write an index may still lose its garbage
            _move_tags(store, entries, store.tags().keys() - tags.keys(), lambda: _free_layers(store, needed, free))
        removed = [size for path in _garbage(store, needed, free) if (size := _remove(path)) is not None]
        sync_folder(store.blob_path(""))
    held = tuple(digest for digest in doomed if digest not in free)
    return Collected(tuple(free), held, len(removed), sum(removed))


def _move_tags(
    store: Store, entries: Mapping[str, Descriptor], drop: Iterable[str], make_room: Callable[[], bool]
) -> None:
    """Replace the index; where there is no room for it, once more after `make_room`, unless that found nothing."""
    drop = list(drop)
    try:
        store.move_tags(entries, drop=drop)
    except StorageError as error:
        cause = error.__cause__
        if not (isinstance(cause, OSError) and cause.errno in FULL and make_room()):
            raise
        store.move_tags(entries, drop=drop)


def _free_layers(store: Store, needed: set[str], generations: Iterable[str]) -> bool:
    """Remove the layers that only `generations` have, and return whether there were any.

    Their manifests and documents stay, so whoever finds such a generation after a kill sees a damaged one of before.
    """
    layers = {layer.digest for digest in generations for layer in store.load_manifest(digest).manifest.layers}
    removed = [_remove(store.blob_path(digest)) for digest in sorted(layers - needed)]
    return any(size is not None for size in removed)


def hold(layout: Layout, digest: str) -> int | None:
    """Return an open file that keeps the generation `digest` from collection until it is closed; None if it is gone."""
    try:
        descriptor = os.open(layout.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    with suppress(OSError):  # a file system without locks has no collection that waits for them either
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.fstat(descriptor).st_nlink == 0:
        os.close(descriptor)
        return None
    return descriptor


def _collectable(tag: str) -> bool:
    return tag.startswith(GENERATION_TAG) or ATTACHMENT_TAG.fullmatch(tag) is not None


def _about(tag: str, digest: str) -> str:
    """Return the generation that a tag belongs to: of an attachment, the one that it says something about."""
    match = ATTACHMENT_TAG.fullmatch(tag)
    return f"sha256:{match[1]}" if match else digest


def _unreachable(staying: Mapping[str, Loaded], tagged: Iterable[str]) -> list[Loaded]:
    """Return the generations that neither a tag leads to nor another one that stays, but for other such ones."""
    waiting, seen = [digest for digest in tagged if digest in staying], set[str]()
    while waiting:
        digest = waiting.pop()
        if digest not in seen:
            seen.add(digest)
            waiting += [parent for parent in staying[digest].generation.parents if parent in staying]
    parents = {parent for digest in staying.keys() - seen for parent in staying[digest].generation.parents}
    return [loaded for digest, loaded in staying.items() if digest not in seen | parents]


def _unused(path: Path, locks: ExitStack) -> bool:
    """Lock a manifest against readers until `locks` closes; return False where one uses it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    locks.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _needed(store: Store, kept: Iterable[Loaded]) -> set[str]:
    """Return the digest of every blob of `kept`, and of what is attached to them."""
    needed = set()
    for loaded in kept:
        needed |= {loaded.digest, loaded.manifest.config.digest, *(layer.digest for layer in loaded.manifest.layers)}
        for entry in store.attachments(loaded.digest):
            manifest = from_json(Manifest, store.read(entry), f"attachment {entry.tag[:100]}")
            needed |= {entry.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}
    return needed


def _garbage(store: Store, needed: set[str], generations: Iterable[str]) -> list[Path]:
    """Return the files to remove, the manifests of removed generations first."""
    first = [store.blob_path(digest) for digest in generations]
    names = (path for path in store.blob_path("").iterdir() if len(path.name) == _HEX)
    rest = sorted(path for path in names if f"sha256:{path.name}" not in needed and path not in first)
    return [*first, *rest]


def _remove(path: Path) -> int | None:
    """Remove one file and return its size, None where it was gone."""
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return None
    return size
