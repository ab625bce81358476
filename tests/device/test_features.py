from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_cmcl.device.features import CLIP, RunningStatistics, Statistics, standardise, unit

Array = NDArray[np.float32]


def statistics_of(raw: Array, chunks: int = 1) -> Statistics:
    running = RunningStatistics(raw.shape[1])
    for part in np.array_split(raw, chunks):
        running.update(part)
    return running.statistics()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 80),
    chunks=st.integers(1, 10),
    offset=st.sampled_from([0.0, 1.0, 1000.0]),
)
def test_running_statistics_are_those_of_all_rows_at_once(seed: int, n: int, chunks: int, offset: float) -> None:
    raw = (offset + np.random.default_rng(seed).standard_normal((n, 6))).astype(np.float32)
    found = statistics_of(raw, chunks)
    exact = raw.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-6, atol=1e-6)
    floor = 1e-3 * np.maximum(np.abs(exact.mean(0)), np.median(exact.std(0)[exact.std(0) > 0]) if n > 1 else 1.0)
    np.testing.assert_allclose(found.std, np.maximum(exact.std(0), floor), rtol=1e-5)
    assert found.mean.dtype == found.std.dtype == np.float32


def test_a_large_offset_does_not_drown_the_spread() -> None:
    # A sum of squares in single precision would lose it.
    raw = (1e4 + np.random.default_rng(0).standard_normal((5000, 3))).astype(np.float32)
    running = RunningStatistics(3)
    for part in np.array_split(raw, 50):
        running.update(part)
    floor = 1e-3 * 1e4
    assert np.sqrt(running._squares / running.n) == pytest.approx(raw.astype(np.float64).std(0), rel=1e-9)
    np.testing.assert_allclose(running.statistics().std, floor, rtol=1e-3)


@pytest.mark.parametrize("unit_scale", [1e-6, 1.0, 1e6])
def test_the_floor_of_the_spread_follows_the_unit(unit_scale: float) -> None:
    rng = np.random.default_rng(0)
    raw = np.stack([rng.standard_normal(100), np.zeros(100), np.full(100, 5.0)], axis=1)
    found = statistics_of((unit_scale * raw).astype(np.float32))
    assert (found.std > 0).all()
    np.testing.assert_allclose(found.std / unit_scale, [raw[:, 0].std(), 1e-3 * raw[:, 0].std(), 5e-3], rtol=1e-4)


def test_constant_outputs_keep_a_positive_spread() -> None:
    found = statistics_of(np.zeros((5, 4), np.float32))
    assert (found.std > 0).all()
    np.testing.assert_array_equal(standardise(np.zeros((2, 4), np.float32), found), np.zeros((2, 4)))


def test_no_rows_change_nothing() -> None:
    raw = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    running = RunningStatistics(3)
    running.update(raw[:0])
    running.update(raw)
    running.update(raw[:0])
    np.testing.assert_array_equal(running.statistics().mean, statistics_of(raw).mean)


def test_features_are_standardised_clipped_and_scaled_to_unit_norm() -> None:
    statistics = Statistics(np.array([1.0, 0.0, 0.0], np.float32), np.array([2.0, 1.0, 0.1], np.float32))
    found = standardise(np.array([[3.0, -2.0, 100.0], [1.0, 0.0, 0.0]], np.float32), statistics)
    scores = np.array([1.0, -2.0, CLIP])
    np.testing.assert_allclose(found[0], scores / np.linalg.norm(scores), rtol=1e-6)
    np.testing.assert_array_equal(found[1], np.zeros(3))
    assert found.dtype == np.float32


def test_standardising_leaves_its_input_alone() -> None:
    raw = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    kept = raw.copy()
    standardise(raw, statistics_of(raw))
    np.testing.assert_array_equal(raw, kept)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.floats(-15.0, 15.0))
def test_rows_of_ordinary_size_get_unit_norm(seed: int, exponent: float) -> None:
    rows = (10.0**exponent * np.random.default_rng(seed).standard_normal((3, 50))).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(unit(rows).astype(np.float64), axis=1), 1.0, atol=1e-5)


def test_a_zero_row_stays_zero() -> None:
    np.testing.assert_array_equal(unit(np.zeros((2, 3), np.float32)), np.zeros((2, 3)))


def test_a_tiny_row_is_never_blown_up_beyond_unit_norm() -> None:
    assert np.linalg.norm(unit(np.full((1, 4), 1e-25, np.float32))) <= 1.0 + 1e-5
