"""What the sequence of a stream tells: lost, repeated, late and restarted."""

from __future__ import annotations

import random

import pytest

from firmware_bridge.tracking import Counts, Tracker

RESTART = -1


def follow(*sequences: int) -> Tracker:
    tracker = Tracker()
    for sequence in sequences:
        if sequence == RESTART:
            tracker.restart()
        else:
            tracker.take(sequence)
    return tracker


@pytest.mark.parametrize(
    ("sequences", "counts"),
    [
        ((0, 1, 2), Counts(taken=3)),
        ((500, 501), Counts(taken=2)),
        ((500, 499), Counts(taken=1, duplicates=1)),
        ((0, 1, 5), Counts(taken=3, lost=3)),
        ((0, 2, 1, 3), Counts(taken=4, reordered=1)),
        ((0, 1, 1, 2), Counts(taken=3, duplicates=1)),
        ((0, 2, 1, 1), Counts(taken=3, reordered=1, duplicates=1)),
        ((0, 300, 1), Counts(taken=2, lost=299, stale=1)),
        ((0xFFFFFFFE, 0xFFFFFFFF, 0, 1), Counts(taken=4)),
        ((0xFFFFFFFF, 1, 0), Counts(taken=3, reordered=1)),
        ((0, 1, RESTART, 0, 1), Counts(taken=4, reboots=1)),
        ((7, 8, RESTART, 2, 3, 1), Counts(taken=5, reboots=1, lost=1, reordered=1)),
    ],
)
def test_what_happened_is_counted(sequences: tuple[int, ...], counts: Counts) -> None:
    assert follow(*sequences).counts == counts


def test_a_frame_that_counts_is_told_from_one_to_drop() -> None:
    tracker = Tracker()
    assert [tracker.take(n) for n in (0, 2, 1, 1, 2, 3)] == [True, True, True, False, False, True]


def test_however_frames_are_shuffled_repeated_and_lost_none_counts_twice_and_the_sums_agree() -> None:
    rng = random.Random(1)
    sent = [n for n in range(5000) if rng.random() > 0.05 or n in (0, 4999)]
    arriving = sorted([*sent, *rng.sample(sent[1:], 300)], key=lambda n: n + rng.uniform(0, 20) * (n > 0))
    tracker = Tracker()
    taken = [n for n in arriving if tracker.take(n)]
    assert len(taken) == len(set(taken)) == tracker.counts.taken
    assert set(taken) == set(sent)
    assert tracker.counts.lost == 5000 - len(sent)
    assert tracker.counts.duplicates == 300
