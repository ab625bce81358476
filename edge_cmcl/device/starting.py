"""Starting the generation in use, and confirming it.

A start of a generation on trial is counted on the disk before anything of it is opened, and no longer counts once the
self-test has passed: a process that it kills, by memory or within a graph, leaves its count behind. A start that its
user ends, or that finds no memory, says nothing of the generation and does not count.
"""

from __future__ import annotations

import warnings
from contextlib import suppress

from edge_cmcl.bundle import Loaded, Store, timestamp
from edge_cmcl.bundle.documents import Reverted, Trial
from edge_cmcl.device import trial as policy
from edge_cmcl.device.intact import fallbacks, intact
from edge_cmcl.device.memory import out_of_memory
from edge_cmcl.device.model import Model
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.store import CURRENT
from edge_cmcl.errors import (
    DigestError,
    EdgeCmclError,
    EdgeCmclWarning,
    FormatError,
    IntegrityError,
    PlatformError,
    RefusedError,
)


class RevertedWarning(EdgeCmclWarning):
    """A generation on trial failed, and the one that was confirmed last is in use again."""


def start(store: Store, *, threads: int = 0, wait_s: float = 0.0) -> Model:
    """Return the generation in use, ready to embed; one on trial is tested first, and reverted where it fails.

    Where the store cannot be written, since another process writes for longer than `wait_s` or the disk is read-only,
    nothing is counted or reverted. By default reading never waits.

    Raises:
        DigestError, FormatError: it is damaged, and there is nothing to go back to.
    """
    if _on_trial(store):
        with suppress(PlatformError), store.writer(wait_s=wait_s):
            model, reverted = _settled(store, threads)
            if reverted is not None:
                warnings.warn(_told(reverted, model.loaded), RevertedWarning, stacklevel=3)
            return model
    return current_model(store, threads)


def confirm(store: Store) -> Loaded:
    """End the trial of the current generation, which must pass its self-test; one that is confirmed stays so.

    Raises:
        RefusedError: it failed, and the generation confirmed before is current again.
        StoreLockedError, StorageError: the store cannot be written.
    """
    with store.writer():
        model, reverted = _settled(store, 0)
        if reverted is not None:
            raise RefusedError(_told(reverted, model.loaded), expected="a self-test that passes", got="one that failed")
        if store.state().trial is not None:
            store.save_state(policy.ended(store.state()))
        return model.loaded


def current_model(store: Store, threads: int = 0) -> Model:
    """Return the generation in use, untested; the store is only read.

    Where another one took its place and it was collected meanwhile, that one.
    """
    while True:
        digest = store.tags()[CURRENT]
        try:
            model = Model(store.load_manifest(digest), threads=threads)
        except DigestError:
            if store.tags()[CURRENT] == digest:
                raise
        else:
            if model.held or store.tags()[CURRENT] == digest:
                return model


def _on_trial(store: Store) -> bool:
    try:
        return policy.trial_of(store.state(), store.tags()[CURRENT]) is not None
    except FormatError:  # a damaged state costs the trial, not the model
        return False


def _settled(store: Store, threads: int) -> tuple[Model, Reverted | None]:
    """Return the generation in use after a start of the one on trial, and what that start reverted."""
    trial = policy.trial_of(store.state(), store.tags()[CURRENT])
    if trial is None:
        return Model(store.load(CURRENT), threads=threads), None
    if policy.exhausted(trial):
        return _revert(store, trial, f"{trial.attempts} starts did not get through its self-test", threads)
    store.save_state(policy.counted(store.state(), trial, trial.attempts + 1))
    try:
        model = Model(store.load(CURRENT), threads=threads)
        self_test(model)
    except EdgeCmclError as error:
        if out_of_memory(error):
            store.save_state(policy.counted(store.state(), trial, trial.attempts))
            raise PlatformError("there is too little memory to test the generation on trial", got=error.got) from error
        if isinstance(error, PlatformError):  # a disk that cannot be read counts
            raise
        return _revert(store, trial, error.message, threads)
    except BaseException as error:
        if out_of_memory(error) or not isinstance(error, Exception):  # no verdict: Ctrl-C, a signal, no memory
            store.save_state(policy.counted(store.state(), trial, trial.attempts))
        raise
    store.save_state(policy.counted(store.state(), trial, 0))
    return model, None


def _revert(store: Store, trial: Trial, reason: str, threads: int) -> tuple[Model, Reverted]:
    previous = next((each for each in intact(store, fallbacks(store, trial.digest)) if _works(each)), None)
    if previous is None:
        raise DigestError(
            f"the generation on trial failed, and no intact one is left in {store.name}",
            expected="one whose every file is as it was written",
            got=reason,
            hint="install the bundle again: it mends what is damaged; if that does not help, check the disk",
        )
    state = store.state()
    with suppress(IntegrityError):  # damaged, it cannot say its counter
        state = policy.noted(state, store.load_manifest(trial.digest).generation.counter)
    state = policy.reverted(state, trial, previous.digest, reason, timestamp())
    store.save_state(state)
    store.move_tags({CURRENT: previous.descriptor})
    assert state.reverted is not None
    return Model(previous, threads=threads), state.reverted


def _works(loaded: Loaded) -> bool:
    try:
        self_test(Model(loaded))
    except EdgeCmclError:
        return False
    return True


def _told(reverted: Reverted, now: Loaded) -> str:
    failed = reverted.digest[7:19]
    return f"generation {failed} failed: {reverted.reason}; generation {now.generation.counter} is in use again"
