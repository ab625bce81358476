"""Writing what a device made of its model as the next generation, on trial, or nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge_cmcl.bundle import Generation, Loaded, Store
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.tags import generation_tag
from edge_cmcl.device.model import Model
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.signing import signed
from edge_cmcl.device.store import CURRENT, raise_counter
from edge_cmcl.device.trial import begun
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
        store.save_state(begun(store.state(), parent, new.digest, generation.created))
        return signature

    digest = store.commit(generation, [CURRENT, generation_tag(generation)], accept)
    raise_counter(store, generation.counter)
    return digest


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
