"""Mending a store from a bundle that it took in before: a blob is named by its digest, so nothing else can come in."""

from __future__ import annotations

from pathlib import Path

from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.store import Store
from edge_cmcl.bundle.transfer import opened


def mend(store: Store, source: Path) -> int:
    """Write anew what is damaged or missing in `store` of the generation in the bundle `source`; return how many blobs.

    No tag moves and nothing else changes, so that what grew from that generation works again, too.

    Args:
        store: its writer lock is held.
        source: a bundle of one generation that the store has, or had.

    Raises:
        ModelError: `source` is no bundle.
        DigestError, FormatError: it is damaged itself.
        StorageError: the file system refused.
    """
    mended = 0
    with opened(source) as loaded:
        for blob in (loaded.descriptor, loaded.manifest.config, *loaded.manifest.layers):
            try:
                store.verify(blob)
            except DAMAGED:
                store.put(loaded.layout.read(blob))
                mended += 1
    return mended
