"""Writing what a device made of its model as the next generation, on trial."""

from __future__ import annotations

from edge_cmcl.bundle import Generation, Loaded, Store
from edge_cmcl.bundle.tags import generation_tag
from edge_cmcl.device.model import Model
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.trial import begun, noted


def commit_on_trial(store: Store, parent: str, generation: Generation) -> str:
    """Make `generation`, whose blobs are in the store, current and begin its trial; return its manifest digest.

    Args:
        store: the device store; its writer lock is held.
        parent: manifest digest of the generation in use.
        generation: its document.

    Raises:
        RefusedError, ParityError, IntegrityError: what came back from the disk does not pass its self-test.
        StorageError: the file system refused; the tags are as they were.
    """

    def accept(new: Loaded) -> None:
        self_test(Model(new))  # as it came back from the disk
        state = noted(store.state(), store.load_manifest(parent).generation.counter)
        store.save_state(begun(state, parent, new.digest, generation.created))

    return store.commit(generation, [CURRENT, generation_tag(generation)], accept)
