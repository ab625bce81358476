"""Mending a store from a bundle that it took in before: a blob is named by its digest, so nothing else can come in."""

from __future__ import annotations

from edge_cmcl.bundle.layout import DAMAGED, Loaded
from edge_cmcl.bundle.store import Store


def mend(store: Store, loaded: Loaded) -> int:
    """Write anew what is damaged or missing in `store` of the generation of a bundle; return how many blobs.

    No tag moves and nothing else changes, so that what grew from that generation works again, too.

    Args:
        store: its writer lock is held.
        loaded: a generation that the store has, or had, opened where it is whole.

    Raises:
        DigestError, FormatError: it is damaged itself.
        StorageError: the file system refused.
    """
    mended = 0
    for blob in (loaded.descriptor, loaded.manifest.config, *loaded.manifest.layers):
        try:
            store.verify(blob)
        except DAMAGED:
            store.put(loaded.layout.read(blob))
            mended += 1
    return mended
