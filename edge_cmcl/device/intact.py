"""Finding an intact generation where the one in use is damaged: a flipped bit must not cost a device its model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain

from edge_cmcl.bundle import Loaded, State, Store
from edge_cmcl.bundle.contents import check_digests
from edge_cmcl.bundle.documents import ATTACHMENT_TAG
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.limits import MAX_DOCUMENT_BYTES
from edge_cmcl.errors import EdgeCmclWarning, FormatError

_HEX = 64


class DamagedGenerationWarning(EdgeCmclWarning):
    """The generation in use is damaged, and an older one answers."""


def intact(store: Store, candidates: Iterable[str]) -> Iterator[Loaded]:
    """Yield those of `candidates` (digests) whose every blob is as it was written."""
    for digest in candidates:
        with suppress(*DAMAGED):
            loaded = store.load_manifest(digest)
            check_digests(loaded)
            yield loaded


def fallbacks(store: Store, damaged: str) -> Iterator[str]:
    """Yield the digests of what could be used instead of the generation `damaged`, the best first.

    That which a failed trial returns to, its ancestors, then all others, the newest first; where a damaged document
    hides what was before it, what lies among the blobs. Not the one whose trial has failed.
    """
    state = State()
    with suppress(FormatError):
        state = store.state()
    seen = {damaged, state.reverted.digest if state.reverted else ""}
    previous = [state.trial.previous] if state.trial and state.trial.previous else []
    before = (loaded.digest for loaded in store.lineage([*previous, damaged], past=DAMAGED))
    tagged = [digest for tag, digest in store.tags().items() if not ATTACHMENT_TAG.fullmatch(tag)]
    for digest in chain(before, _newest(store, tagged), _lying_about(store)):
        if digest not in seen:
            seen.add(digest)
            yield digest


def _newest(store: Store, digests: Iterable[str]) -> Iterator[str]:
    found = {loaded.digest: loaded.generation.counter for loaded in store.lineage(digests, past=DAMAGED)}
    yield from sorted(found, key=lambda digest: (-found[digest], digest))


def _lying_about(store: Store) -> Iterator[str]:
    """Yield what is a generation among all blobs, whether anything leads to it or not."""
    paths = [path for path in store.blob_path("").iterdir() if len(path.name) == _HEX]
    small = [path for path in paths if path.stat().st_size <= MAX_DOCUMENT_BYTES]
    yield from _newest(store, [f"sha256:{path.name}" for path in small])
