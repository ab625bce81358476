"""What a device has made and not sent yet: found from the store itself, so that no queue can be out of step with it."""

from __future__ import annotations

from contextlib import suppress

from edge_cmcl.bundle import Loaded, State, Store
from edge_cmcl.bundle.documents import SyncState
from edge_cmcl.device.store import generations
from edge_cmcl.errors import StoreLockedError
from edge_cmcl.sync.push import own_tag
from edge_cmcl.sync.remote import Remote


def unsent(store: Store, state: State) -> list[Loaded]:
    """Return the generations that this device has made and its remote has not got, oldest first.

    None on a device that never synced: there is nobody to keep them for.
    """
    if not state.sync.remote:
        return []
    sent = set(state.sync.sent)
    return [
        loaded
        for loaded in reversed(generations(store))
        if loaded.digest not in sent and loaded.generation.device_id == state.device_id
    ]


def meet(store: Store, remote: str) -> None:
    """Note which remote this device syncs with, so that what was not sent to it yet stays. Another one has got nothing.

    What the host decided, and how often this device reported, goes with it: a host may move its remote.

    Raises:
        StoreLockedError, StorageError: it could not be noted.
    """
    known = store.state().sync
    if known.remote != remote:
        with store.writer():
            _save(store, known.model_copy(update={"remote": remote, "sent": (), "reported": None, "report": None}))


def lost(known: SyncState, remote: Remote) -> bool:
    """Whether the remote has lost what was sent to it: a wiped registry, or another stick at the same place.

    Raises:
        RemoteError: the other side is away.
    """
    return bool(known.sent) and remote.head(own_tag(known.sent[-1])) is None


def note_sent(store: Store, digest: str) -> None:
    """Remember that the remote has a generation; what is gone here is forgotten."""
    sent = [each for each in store.state().sync.sent if store.has(each)]
    note(store, sent=tuple(dict.fromkeys((*sent, digest))))


def note(store: Store, **changes: object) -> None:
    """Change what is known of the remote. Where an update holds the store, the next sync finds it out again.

    Raises:
        StorageError: the file system refused.
    """
    with suppress(StoreLockedError), store.writer():
        _save(store, store.state().sync.model_copy(update=changes))


def _save(store: Store, known: SyncState) -> None:
    store.save_state(store.state().model_copy(update={"sync": known}))
