"""Writing what a device made of its model as the next generation, on trial."""

from __future__ import annotations

from edge_cmcl.bundle import Generation, Loaded, Store
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.tags import free_tag
from edge_cmcl.device.model import Model
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.signing import signed
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.trial import begun, noted
from edge_cmcl.errors import ParityError, RefusedError


def commit_on_trial(store: Store, parent: str, generation: Generation) -> str:
    """Sign `generation`, whose blobs are in the store, make it current and begin its trial; return its digest.

    Args:
        store: the device store; its writer lock is held.
        parent: manifest digest of the generation in use.
        generation: its document.

    Raises:
        RefusedError: it does not pass its self-test.
        DigestError: it came back from the disk damaged.
        FormatError: the keys of this device are damaged.
        StorageError: the file system refused; the tags are as they were.
    """

    def accept(new: Loaded) -> dict[str, Descriptor]:
        _check(new)
        signature = signed(store, new)
        state = noted(store.state(), store.load_manifest(parent).generation.counter)
        store.save_state(begun(state, parent, new.digest, generation.created))
        return {**signature, free_tag(new, store.tags()): new.descriptor}

    return store.commit(generation, [CURRENT], accept)


def _check(new: Loaded) -> None:
    """Test a generation as it came back from the disk."""
    try:
        self_test(Model(new))
    except ParityError as error:
        raise RefusedError(
            f"the new generation was not committed, for it fails its self-test: {error.message}",
            expected=error.expected,
            got=error.got,
            hint="this device does not compute the same twice: check its memory and its power supply",
        ) from error
