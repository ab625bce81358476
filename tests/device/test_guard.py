from __future__ import annotations

import numpy as np
import pytest

from edge_cmcl.continual.certificate import Certificate
from edge_cmcl.device.guard import failures, record, refuse
from edge_cmcl.device.outcome import PairOutcome
from edge_cmcl.errors import RefusedError
from edge_cmcl.limits import MAX_DRIFT

GOOD = {"acc": np.ones((2, 3), np.float32)}


def moved(relative: float, origin: str = "base") -> Certificate:
    return Certificate("acc", origin, relative, relative)


def pair(before: float | None, change: tuple[float, float] | None) -> PairOutcome:
    return PairOutcome(("acc", "gyro"), 40, 40.0, 0.1, before, 0.5, (0.4, 0.6), change)


def checks(*found: object) -> list[str]:
    return [failure.check for failure in failures(*found)]  # type: ignore[arg-type]


def test_an_update_that_moves_little_and_makes_no_known_pair_worse_passes() -> None:
    passing = [pair(0.5, (-0.05, 0.05)), pair(0.5, (0.0, 0.1)), pair(None, None)]
    assert checks(GOOD, [moved(0.0), moved(MAX_DRIFT)], passing) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_fails_and_not_even_force_lets_it_pass(bad: float) -> None:
    (failure,) = failures({"acc": np.array([[1.0, bad]])}, [], [])
    assert (failure.check, failure.final) == ("numbers", True)


@pytest.mark.parametrize("relative", [MAX_DRIFT * 1.001, np.inf, np.nan])
def test_an_origin_that_moved_too_far_fails_and_names_itself(relative: float) -> None:
    (failure,) = failures(GOOD, [moved(0.01), moved(relative, "night")], [])
    assert (failure.check, failure.final) == ("drift", False)
    assert "acc as learned in night" in failure.message


@pytest.mark.parametrize("change", [(-0.2, -0.01), (np.nan, np.nan)])
def test_a_known_pair_that_is_worse_beyond_its_interval_fails(change: tuple[float, float]) -> None:
    (failure,) = failures(GOOD, [], [pair(0.6, change)])
    assert (failure.check, failure.final) == ("recall", False)
    assert "not below 0.600" in failure.expected


def test_the_limit_is_its_users_to_set() -> None:
    assert checks(GOOD, [moved(0.05)], [], 0.04) == ["drift"]
    assert checks(GOOD, [moved(0.05)], [], 0.06) == []


def test_a_refusal_says_the_worst_first_what_else_failed_and_at_which_stage() -> None:
    found = failures({"acc": np.array([[np.nan]])}, [moved(1.8), moved(1.9, "night")], [pair(0.6, (-0.2, -0.1))])
    assert [failure.check for failure in found] == ["numbers", "recall", "drift", "drift"]
    with pytest.raises(RefusedError) as caught:
        refuse(found[2:], 100, 400)
    assert caught.value.exit_code == 5
    assert "already after 100 of 400 pairs" in caught.value.message
    assert "up to 190.00%; also acc as learned in base" in caught.value.got
    refuse([], 400, 400)


def test_what_was_overridden_is_recorded_with_figures() -> None:
    kept = record(failures(GOOD, [moved(1.8)], []))
    assert kept["forced"] is True
    assert kept["failed"][0]["got"] == "up to 180.00%"
