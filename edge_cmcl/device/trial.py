"""The trial of a generation, as boot loaders do it: the policy, without input or output (FORMAT.md, "State").

What `install` or `update` makes current is on trial until it is confirmed. `Trial.previous` is the generation that was
confirmed last; whatever else is current is on trial. So a power cut between the state and the tags, two files, leaves
either the old trial or one that begins anew, and never an untested generation that counts as confirmed.
"""

from __future__ import annotations

from edge_cmcl.bundle import State
from edge_cmcl.bundle.documents import Reverted, Trial

MAX_REASON = 500
"""Characters that a state keeps of why a generation was reverted."""


def trial_of(state: State, current: str) -> Trial | None:
    """Return the trial of the generation `current`, None where that is confirmed."""
    trial = state.trial
    if trial is None or trial.previous in (None, current):
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


def counted(state: State, trial: Trial, attempts: int) -> State:
    """Return the state after so many starts of `trial` that have not got through their self-test."""
    return state.model_copy(update={"trial": trial.model_copy(update={"attempts": attempts})})


def ended(state: State) -> State:
    """Return the state in which whatever is current is confirmed."""
    return state.model_copy(update={"trial": None})


def reverted(state: State, trial: Trial, reason: str, now: str) -> State:
    """Return the state after `trial` failed and what it replaced is current again."""
    record = Reverted(digest=trial.digest, since=now, reason=reason[:MAX_REASON])
    return ended(state).model_copy(update={"reverted": record})


def exhausted(trial: Trial) -> bool:
    """Whether a generation has used up its starts."""
    return trial.attempts >= trial.attempts_allowed
