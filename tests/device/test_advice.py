from __future__ import annotations

from dataclasses import replace

import pytest

from edge_cmcl.device.advice import DO_NOT_LEARN, LEARN, UNCLEAR, Evidence, Findings, advise
from edge_cmcl.device.guard import Failure
from edge_cmcl.device.outcome import PairOutcome

GOOD = Evidence("acc", 100, 25.0, 0.5, 0.15, 0.16, 0.35, (0.3, 0.4), 0.005, 100, 1e9)
POOR = replace(GOOD, mrr=0.16, gain=0.01, interval=(-0.02, 0.04), p=0.4)
REFUSED = Failure("drift", "acc may have moved too far", "", "90%")
FOUND = Findings("gyro", False, 100, [GOOD], 0.4)


def pair(change: tuple[float, float] | None) -> PairOutcome:
    return PairOutcome(("gyro", "acc"), 100, 25.0, 0.15, 0.4 if change else None, 0.5, (0.4, 0.6), change)


@pytest.mark.parametrize(
    ("changed", "recommendation", "reason"),
    [
        ({}, LEARN, "predicts acc"),
        ({"pairs": 31}, UNCLEAR, "record at least 32"),
        ({"evidence": [POOR]}, DO_NOT_LEARN, "no better than shuffled"),
        ({"evidence": [replace(GOOD, p=0.03)]}, UNCLEAR, "3.0% of shuffled pairings"),
        ({"evidence": [replace(GOOD, p=0.2, stretches=3, pairings=24.0)]}, UNCLEAR, "only 3 stretches"),
        ({"new_share": 0.01}, DO_NOT_LEARN, "a spare"),
        ({"new_share": None}, LEARN, "predicts acc"),
        ({"failed": [REFUSED]}, DO_NOT_LEARN, "the guard would refuse"),
        ({"known": True, "judged": [pair((0.02, 0.1))]}, LEARN, "predicts acc"),
        ({"known": True, "judged": [pair((-0.05, 0.005))]}, DO_NOT_LEARN, "it is known"),
        ({"known": True, "judged": [pair((-0.05, 0.05))]}, UNCLEAR, "may raise"),
        ({"judged": [pair(None)]}, LEARN, "predicts acc"),
    ],
)  # fmt: skip
def test_the_recommendation_follows_from_the_figures(
    changed: dict[str, object], recommendation: str, reason: str
) -> None:
    advice = advise(replace(FOUND, **changed))  # type: ignore[arg-type]
    assert advice.recommendation == recommendation
    assert reason in advice.reasons[0]


def test_a_partner_that_has_nothing_to_do_with_the_sensor_is_named() -> None:
    found = replace(FOUND, evidence=[GOOD, replace(POOR, partner="depth")])
    advice = advise(found)
    assert advice.recommendation == LEARN
    assert any("depth" in reason and "leave it out: --with acc" in reason for reason in advice.reasons)


def test_what_learning_more_of_a_known_sensor_would_bring_is_told() -> None:
    advice = advise(replace(FOUND, known=True, judged=[pair((0.02, 0.1))]))
    assert advice.reasons[1:] == ["learning more of it would raise the held-out MRR with acc from 0.400 to 0.500"]


def test_of_several_partners_each_needs_a_smaller_p() -> None:
    doubtful = replace(GOOD, p=0.009)
    assert advise(replace(FOUND, evidence=[doubtful])).recommendation == LEARN
    assert advise(replace(FOUND, evidence=[doubtful, POOR])).recommendation == UNCLEAR
