"""The trial of a generation, as boot loaders do it: the policy, without input or output (FORMAT.md, "State").

What `install` or `update` makes current is on trial until it is confirmed. `Trial.previous` is the generation that was
confirmed last; whatever else is current is on trial, but what a rollback released.

The state and the tags are two files, and the tags are the only point of commitment: everything here is written before
they move, says which generation it is about, and means nothing as long as another one is current. So a crash at any
instant leaves the old state or the new one, and nothing has to be written once the tags have moved.
"""

from __future__ import annotations

from edge_cmcl.bundle import State
from edge_cmcl.bundle.documents import Reverted, Trial

MAX_REASON = 500
"""Characters that a state keeps of why a generation was reverted."""


def trial_of(state: State, current: str) -> Trial | None:
    """Return the trial of the generation `current`, None where that is confirmed."""
    trial = state.trial
    if trial is None or trial.previous is None or current in (trial.previous, trial.released):
        return None
    return trial if trial.digest == current else trial.model_copy(update={"digest": current, "attempts": 0})


def begun(state: State, current: str | None, digest: str, now: str) -> State:
    """Return the state in which `digest` may become current, on trial.

    The first generation of a device, with none to go back to, needs no trial; neither does one that is current.
    """
    if current is None or current == digest:
        return state
    running = trial_of(state, current)
    trial = Trial(digest=digest, previous=running.previous if running else current, since=now)
    return state.model_copy(update={"trial": trial})


def noted(state: State, counter: int) -> State:
    """Return the state that remembers the counter of the current generation, before another one takes its place.

    While a generation is current, its own document says its counter; `State.highest_counter` is of those before.
    """
    return state.model_copy(update={"highest_counter": max(state.highest_counter, counter)})


def released(state: State, current: str, digest: str) -> State:
    """Return the state in which `digest` is confirmed as soon as it is current; until then `current` is what it was."""
    running = trial_of(state, current)
    if running is None:
        return ended(state)
    if digest == running.previous:
        return state
    return state.model_copy(update={"trial": running.model_copy(update={"released": digest})})


def counted(state: State, trial: Trial, attempts: int) -> State:
    """Return the state after so many starts of `trial` that have not got through their self-test."""
    return state.model_copy(update={"trial": trial.model_copy(update={"attempts": attempts})})


def ended(state: State) -> State:
    """Return the state in which whatever is current is confirmed."""
    return state.model_copy(update={"trial": None})


def reverted(state: State, trial: Trial, back_to: str, reason: str, now: str) -> State:
    """Return the state in which `trial` has failed as soon as `back_to` is current again."""
    record = Reverted(digest=trial.digest, since=now, reason=reason[:MAX_REASON])
    return released(state, trial.digest, back_to).model_copy(update={"reverted": record})


def reverted_of(state: State, current: str) -> Reverted | None:
    """Return the last trial that failed, None where none did or its generation is the current one, still or again."""
    return None if state.reverted is None or state.reverted.digest == current else state.reverted


def exhausted(trial: Trial) -> bool:
    """Whether a generation has used up its starts."""
    return trial.attempts >= trial.attempts_allowed
