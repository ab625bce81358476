from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from edge_cmcl.data.splits import GUARD_WINDOWS, folds, hold_out
from edge_cmcl.errors import DataError, TooLittleDataError


@settings(max_examples=100, deadline=None)
@given(n=st.integers(2, 60), count=st.integers(2, 8))
def test_blocks_hold_every_row_out_once_with_a_guard_around_them(n: int, count: int) -> None:
    found = folds(n, None, count)
    assert len(found) == min(n, count)
    np.testing.assert_array_equal(np.concatenate([held_out for _, held_out in found]), np.arange(n))
    for training, held_out in found:
        assert len(training)
        assert not np.isin(training, held_out).any()
        np.testing.assert_array_equal(held_out, np.arange(held_out[0], held_out[-1] + 1))
        distance = np.abs(training[:, None] - held_out).min(axis=1)
        left_out = n - len(training) - len(held_out)
        # Where the guard would take the last training row, there is none.
        assert (distance > GUARD_WINDOWS).all() if left_out else len(training) + len(held_out) == n


def test_guard_windows_on_both_sides_are_left_out() -> None:
    training, held_out = folds(10, None, 5)[2]
    assert held_out.tolist() == [4, 5]
    assert training.tolist() == [0, 1, 2, 7, 8, 9]


def test_blocks_are_of_nearly_equal_size() -> None:
    sizes = [len(held_out) for _, held_out in folds(103, None, 5)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("n", "count"), [(2, 5), (3, 3), (3, 2)])
def test_few_rows_still_leave_something_to_train_on(n: int, count: int) -> None:
    for training, held_out in folds(n, None, count):
        assert len(training) >= 1
        assert len(held_out) >= 1


@settings(max_examples=100, deadline=None)
@given(groups=st.lists(st.integers(-3, 6), min_size=2, max_size=60), count=st.integers(2, 6))
def test_a_group_is_never_on_both_sides(groups: list[int], count: int) -> None:
    column = np.array(groups, dtype=np.int64)
    found = folds(len(column), column, count)
    held_out = np.concatenate([rows for _, rows in found])
    np.testing.assert_array_equal(np.sort(held_out), np.arange(len(column)))
    distinct = len(set(groups))
    assert len(found) == (min(count, distinct) if distinct > 1 else min(count, len(column)))
    if distinct > 1:
        for training, rows in found:
            assert len(training)
            assert len(training) + len(rows) == len(column)
            assert not set(column[training]) & set(column[rows])


def test_groups_of_unequal_size_are_spread_evenly() -> None:
    groups = np.repeat(np.arange(6), [10, 20, 20, 20, 30, 50])
    sizes = sorted(len(held_out) for _, held_out in folds(150, groups, 3))
    assert sizes == [50, 50, 50]


def test_one_group_alone_is_cut_into_blocks_of_time() -> None:
    one = folds(12, np.full(12, 7), 3)
    assert [held_out.tolist() for _, held_out in one] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_folds_are_the_same_every_time() -> None:
    groups = np.array([3, 1, 2, 1, 3, 2, 5, 5])
    for (a, b), (c, d) in zip(folds(8, groups, 3), folds(8, groups, 3), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.sampled_from([0.1, 0.5, 0.95, 1.0, 3.0, -20.0]), min_size=30, max_size=80),
    grouped=st.booleans(),
    window_s=st.sampled_from([0.2, 1.0, 2.0]),
)
def test_no_training_row_shares_a_sample_with_a_held_out_one(
    steps: list[float], grouped: bool, window_s: float
) -> None:
    time = np.cumsum([0.0, *steps])
    recording = np.concatenate([[0], np.cumsum(np.diff(time) <= 0)])
    groups = np.arange(len(time)) // 10 if grouped else None
    try:
        found = folds(len(time), groups, 3, time=time, window_s=window_s)
    except TooLittleDataError:
        reject()
    for training, held_out in found:
        apart = np.abs(time[training][:, None] - time[held_out])
        same = recording[training][:, None] == recording[held_out]
        assert (apart[same] >= window_s * (1 - 1e-5)).all()
        left_out = np.setdiff1d(np.arange(len(time)), np.union1d(training, held_out))
        assert all(
            (np.abs(time[row] - time[held_out])[recording[held_out] == recording[row]] < window_s).any()
            for row in left_out
        )


def test_windows_that_only_touch_all_train() -> None:
    training, held_out = folds(10, None, 5, time=np.arange(10) * 0.1, window_s=0.1)[2]
    assert held_out.tolist() == [4, 5]
    assert training.tolist() == [0, 1, 2, 3, 6, 7, 8, 9]


def test_recordings_that_start_their_clock_anew_do_not_overlap() -> None:
    time = np.tile([0.0, 0.5], 6)
    training, held_out = folds(12, np.arange(12) // 2, 6, time=time, window_s=1.0)[0]
    assert len(training) + len(held_out) == 12


def test_windows_that_all_overlap_cannot_be_split() -> None:
    with pytest.raises(DataError, match="overlaps one that is held out") as raised:
        folds(16, None, 5, time=np.arange(16) * 0.1, window_s=2.0)
    assert raised.value.got == "16 windows of 2 s that start within 1.5 s"


def test_the_parts_of_a_split_may_be_anywhere() -> None:
    parts = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0])
    (training, held_out), _ = hold_out(parts)
    assert held_out.tolist() == [0, 1, 2, 6, 7, 8]
    assert training.tolist() == [4]
    (training, _), _ = hold_out(parts, guard=0)
    assert training.tolist() == [3, 4, 5]
    (training, _), _ = hold_out(parts, time=np.arange(9.0), window_s=1.5)
    assert training.tolist() == [4]
