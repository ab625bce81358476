"""The generations of a device's store: going back, what is there, and what need not stay."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from edge_cmcl.bundle import Layout, Loaded, Store
from edge_cmcl.bundle.collect import Collected, collect
from edge_cmcl.bundle.contents import check_digests
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.device.held_out import drop
from edge_cmcl.device.intact import fallbacks, intact
from edge_cmcl.device.outbox import unsent
from edge_cmcl.device.store import CURRENT, PREVIOUS, generations
from edge_cmcl.device.trial import noted, released
from edge_cmcl.errors import ModelError

KEPT = 3
"""Generations that a collection leaves by default: the one in use and two to go back to."""


def rollback(store: Store, ref: str = "") -> Loaded:
    """Make an older generation current again, confirmed: it is a decision of its user. Nothing is deleted.

    Args:
        store: the device store.
        ref: a tag, a digest or the start of one, or a counter that one generation alone has; by default the parent of
            the current one or, where that is not here, what the last `install` replaced.

    Raises:
        ModelError: there is no such generation here, or several.
        DigestError: it is damaged; the current one stays.
    """
    with store.writer():
        current = store.tags()[CURRENT]
        loaded = store.load(_named(store, ref) if ref else _before(store, current))
        check_digests(loaded)
        state = store.state()
        counter = 0
        with suppress(*DAMAGED):  # damaged, it cannot say its counter
            counter = store.load_manifest(current).generation.counter
        prepared = released(noted(state, counter), current, loaded.digest)
        if prepared != state:
            store.save_state(prepared)
        last = store.tags().get(PREVIOUS) == loaded.digest
        store.set_tag(CURRENT, loaded.digest, drop=[PREVIOUS] if last else ())
    return loaded


def log(store: Layout) -> list[dict[str, Any]]:
    """Return every generation of the store, newest first, in JSON types; those rolled back from included."""
    from edge_cmcl.device.signing import keyring, signed_by

    trust, entries = keyring(store).trust(), store.index().manifests
    current = store.tags()[CURRENT]
    leading = {loaded.digest for loaded in store.lineage([current])}
    return [
        {
            "digest": loaded.digest,
            "counter": loaded.generation.counter,
            "created": loaded.generation.created,
            "action": loaded.generation.action,
            "device_id": loaded.generation.device_id,
            "modalities": sorted(loaded.generation.modalities),
            "parents": list(loaded.generation.parents),
            "tags": _tags_of(store, loaded.digest),
            "current": loaded.digest == current,
            "in_use": loaded.digest in leading,
            "signed_by": vars(signed_by(loaded, trust, entries)).copy(),
        }
        for loaded in generations(store)
    ]


def collect_garbage(store: Store, keep: int = KEPT) -> Collected:
    """Remove old generations and what only they need, safely while others read (`bundle.collect`).

    Beside the newest ones stay the one in use and the base that it began with, what a failed trial or a rollback
    returns to, what waits to be sent, and what another process uses just now. Pairs that were kept back go with the
    last generation that learned from the rest of them.

    Args:
        store: the device store.
        keep: how many of the newest to keep, at least 1.

    Raises:
        DigestError, FormatError: the state, or something that is to be kept, is damaged; nothing was removed.
        StoreLockedError, StorageError: the store cannot be written.
    """
    with store.writer():
        state, found = store.state(), generations(store, whole=True)
        kept = {loaded.digest for loaded in found[: max(keep, 1)]} | {loaded.digest for loaded in unsent(store, state)}
        kept.add(store.load(CURRENT).base)  # to install another base, a device has to be able to go back to its own
        if state.trial is not None and state.trial.previous is not None:
            kept.add(state.trial.previous)
        collected = collect(store, found, kept)
        drop(store, {pair.origin for loaded in generations(store) for pair in loaded.generation.pairs})
        return collected


def _before(store: Store, current: str) -> str:
    """Return the digest of what was current before the generation `current`."""
    try:
        parents = store.load_manifest(current).generation.parents
    except DAMAGED:  # it cannot say what was before it
        found = next((loaded.digest for loaded in intact(store, fallbacks(store, current))), None)
    else:
        found = next((digest for digest in parents if store.has(digest)), store.tags().get(PREVIOUS))
    if found is None:
        raise ModelError(
            "there is nothing to roll back to",
            expected="a parent of the current generation in the store, or one that an install replaced",
            got="none: it is the first one installed, or those before it were collected",
            hint="`edge-cmcl log` lists what is here",
        )
    return found


def _named(store: Store, ref: str) -> str:
    """Return `ref`, or the digest of the only generation with that counter."""
    if ref in store.tags() or not ref.isdecimal():
        return ref
    found = [loaded.digest for loaded in generations(store) if str(loaded.generation.counter) == ref]
    if len(found) > 1:
        raise ModelError(
            f"there are {len(found)} generations {ref} here",
            expected="a tag or digest of one of them",
            got=", ".join(" ".join([digest[7:19], *_tags_of(store, digest)]) for digest in found),
            hint="`edge-cmcl log` lists what is here",
        )
    return found[0] if found else ref


def _tags_of(store: Layout, digest: str) -> list[str]:
    return sorted(tag for tag, found in store.tags().items() if found == digest)
