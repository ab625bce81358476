from __future__ import annotations

import pytest

from edge_cmcl.bundle import State
from edge_cmcl.device.trial import begun, counted, ended, exhausted, noted, released, reverted, reverted_of, trial_of

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")
NOW = "2026-01-02T03:04:05Z"


def test_the_first_generation_of_a_device_has_nothing_to_go_back_to_and_no_trial() -> None:
    assert trial_of(begun(State(), None, A, NOW), A) is None


def test_what_becomes_current_is_on_trial_until_it_is_confirmed() -> None:
    state = begun(State(), A, B, NOW)
    trial = trial_of(state, B)
    assert trial is not None
    assert (trial.digest, trial.previous, trial.attempts) == (B, A, 0)
    assert trial_of(ended(state), B) is None


def test_a_generation_made_on_one_that_is_on_trial_returns_to_the_one_confirmed_last() -> None:
    state = begun(begun(State(), A, B, NOW), B, C, NOW)
    trial = trial_of(state, C)
    assert trial is not None
    assert trial.previous == A


def test_power_lost_between_the_state_and_the_tags_confirms_nothing_untested() -> None:
    before_the_tags = begun(State(), A, B, NOW)
    assert trial_of(before_the_tags, A) is None  # A is current still, and was confirmed
    two = counted(begun(State(), A, B, NOW), begun(State(), A, B, NOW).trial, 2)  # type: ignore[arg-type]
    other = trial_of(two, C)  # tags moved to C, the state was written for B
    assert other is not None
    assert (other.digest, other.previous, other.attempts) == (C, A, 0)


def test_starts_are_counted_until_none_is_left() -> None:
    state = begun(State(), A, B, NOW)
    for attempts in range(3):
        trial = trial_of(state, B)
        assert trial is not None
        assert not exhausted(trial)
        state = counted(state, trial, attempts + 1)
    trial = trial_of(state, B)
    assert trial is not None
    assert exhausted(trial)


@pytest.mark.parametrize("reason", ["short", "x" * 5000])
def test_a_reverted_generation_is_remembered_with_its_reason(reason: str) -> None:
    state = begun(State(), A, B, NOW)
    assert state.trial is not None
    after = reverted(state, state.trial, A, reason, NOW)
    record = reverted_of(after, A)
    assert record is not None
    assert (trial_of(after, A), record.digest, record.reason) == (None, B, reason[:500])
    State.model_validate(after.model_dump(by_alias=True))


def test_power_lost_before_a_revert_has_moved_the_tags_leaves_the_trial_as_it_was() -> None:
    state = begun(State(), A, B, NOW)
    trial = trial_of(state, B)
    assert trial is not None
    after = reverted(state, trial, C, "it failed", NOW)
    assert reverted_of(after, B) is None
    assert trial_of(after, B) == trial.model_copy(update={"released": C})
    assert trial_of(after, C) is None


@pytest.mark.parametrize("to", [A, C])
def test_a_rollback_confirms_what_it_returns_to_only_once_that_is_current(to: str) -> None:
    on_trial = begun(State(), A, B, NOW)
    after = released(on_trial, B, to)
    trial = trial_of(after, B)
    assert trial is not None
    assert (trial.digest, trial.previous) == (B, A)
    assert trial_of(after, to) is None


def test_a_rollback_from_a_confirmed_generation_puts_nothing_on_trial() -> None:
    over = begun(State(), A, B, NOW)  # and A is current again
    after = released(over, A, C)
    assert (trial_of(after, A), trial_of(after, C)) == (None, None)


def test_the_highest_counter_never_goes_down() -> None:
    assert noted(noted(State(), 7), 3).highest_counter == 7
