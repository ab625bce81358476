"""Committing what a device made by itself: whole or not there, tested as it came back from the disk, on trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge_cmcl.bundle import Generation, Loaded, Store
from edge_cmcl.bundle.tags import generation_tag
from edge_cmcl.device.model import Model
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.store import CURRENT, raise_counter
from edge_cmcl.device.trial import begun


def commit(store: Store, before: Loaded, generation: Generation) -> str:
    """Make `generation`, whose blobs are written, current and put it on trial; return its manifest's digest.

    Args:
        store: held for writing.
        before: the generation in use.
        generation: its child.

    Raises:
        RefusedError, ParityError: it fails its self-test; what was in use stays.
        StorageError: there is no room.
    """

    def accept(new: Loaded) -> None:
        self_test(Model(new))
        store.save_state(begun(store.state(), before.digest, new.digest, generation.created))

    digest = store.commit(generation, [CURRENT, generation_tag(generation)], accept)
    raise_counter(store, generation.counter)
    return digest


@contextmanager
def all_or_nothing(store: Store) -> Iterator[None]:
    """Remove the blobs that a commit had written when it failed or was interrupted: a full disk must not stay full."""
    blobs = store.blob_path("")
    there, current = set(blobs.iterdir()), store.tags()[CURRENT]
    try:
        yield
    except BaseException:
        if store.tags()[CURRENT] == current:
            for written in set(blobs.iterdir()) - there:
                written.unlink(missing_ok=True)
        raise
