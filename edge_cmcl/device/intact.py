"""Finding an intact generation where the one in use is damaged: a flipped bit must not cost a device its model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from edge_cmcl.bundle import Layout, Loaded
from edge_cmcl.bundle.contents import check_digests
from edge_cmcl.bundle.documents import ATTACHMENT_TAG
from edge_cmcl.errors import EdgeCmclWarning, IntegrityError


class DamagedGenerationWarning(EdgeCmclWarning):
    """The generation in use is damaged, and an older one answers."""


def intact(store: Layout, candidates: Iterable[str], but: str) -> Loaded | None:
    """Return the first of `candidates` (digests) whose every blob is as it was written, `but` left out."""
    for digest in dict.fromkeys(candidates):
        if digest != but:
            with suppress(IntegrityError):
                loaded = store.load_manifest(digest)
                check_digests(loaded)
                return loaded
    return None


def older(store: Layout) -> Iterator[str]:
    """Yield the digests of all generations whose document can be read, the newest first.

    A damaged one ends its line: what came before it is found through other tags only.
    """
    waiting = [digest for tag, digest in store.tags().items() if not ATTACHMENT_TAG.fullmatch(tag)]
    found: dict[str, Loaded] = {}
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            with suppress(IntegrityError):
                found[digest] = store.load_manifest(digest)
                waiting += found[digest].generation.parents
    ranked = sorted(found.values(), key=lambda loaded: (-loaded.generation.counter, loaded.digest))
    yield from (loaded.digest for loaded in ranked)
