from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cmcl.data.windows import DropReport, on_clock, repair, resample_whole, starts
from edge_cmcl.errors import DataError


@given(t=st.integers(2, 60), length=st.integers(2, 60))
def test_a_straight_line_stays_straight_when_resampled(t: int, length: int) -> None:
    line = np.linspace(-1, 3, t)[:, None] * np.array([1.0, -2.0])
    out = resample_whole(line, length)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.linspace(-1, 3, length)[:, None] * np.array([1.0, -2.0]), atol=1e-6)


def test_resampling_bridges_nan_and_keeps_the_shape_of_frames() -> None:
    frames = np.repeat(np.arange(5.0), 6).reshape(5, 2, 3)
    frames[2] = np.nan
    out = resample_whole(frames, 9)
    assert out.shape == (9, 2, 3)
    np.testing.assert_allclose(out[:, 0, 0], np.linspace(0, 4, 9))


@pytest.mark.parametrize("record", [np.zeros((1, 2)), np.full((5, 2), np.nan)])
def test_a_record_without_two_samples_or_without_any_finite_one_is_refused(record: np.ndarray) -> None:
    with pytest.raises(DataError):
        resample_whole(record, 16)


def test_the_clock_is_nan_outside_the_record_and_in_long_gaps_only() -> None:
    time = np.array([0.0, 1.0, 2.0, 5.0, 6.0])
    clock = np.array([-0.5, 0.0, 0.5, 2.0, 3.0, 5.0, 5.5, 6.0, 6.5])
    out = on_clock(time, time * 2, clock, max_gap_s=1.0)[:, 0]
    np.testing.assert_allclose(out, [np.nan, 0, 1, 4, np.nan, 10, 11, 12, np.nan])
    bridged = on_clock(time, time * 2, clock, max_gap_s=3.0)[:, 0]
    np.testing.assert_allclose(bridged, [np.nan, 0, 1, 4, 6, 10, 11, 12, np.nan])


def test_a_missing_sample_makes_a_gap_in_its_own_channel() -> None:
    time = np.arange(5.0)
    values = np.stack([time, time], axis=1)
    values[2, 1] = np.nan
    out = on_clock(time, values, time, max_gap_s=1.5)
    np.testing.assert_allclose(out[:, 0], time)
    assert np.flatnonzero(np.isnan(out[:, 1])).tolist() == [2]


def test_a_clock_that_ends_a_rounding_error_late_loses_nothing() -> None:
    time = np.arange(10) * 0.1
    clock = time + 1e-12
    assert np.isfinite(on_clock(time, time, clock, max_gap_s=0.15)).all()


@given(missing=st.sets(st.integers(0, 19)))
def test_repair_fills_up_to_a_fifth_and_refuses_more(missing: set[int]) -> None:
    window = np.stack([np.arange(20.0), np.arange(20.0) * -2], axis=1)
    holed = window.copy()
    holed[sorted(missing), 1] = np.nan
    out, filled = repair(holed)
    if len(missing) > 4:
        assert (out, filled) == (None, 0)
        return
    assert out is not None
    assert (out.dtype, filled) == (np.float32, len(missing))
    kept = sorted(set(range(20)) - missing)
    np.testing.assert_allclose(out[:, 0], window[:, 0])
    np.testing.assert_allclose(out[kept[0] : kept[-1] + 1, 1], window[kept[0] : kept[-1] + 1, 1])
    assert np.isfinite(out).all()


@given(total=st.integers(0, 100), length=st.integers(1, 40), step=st.integers(1, 40))
def test_every_whole_window_is_cut_and_none_runs_over(total: int, length: int, step: int) -> None:
    expected = [i for i in range(0, total + 1, step) if i + length <= total]
    assert list(starts(total, length, step)) == expected


def test_reports_add_up() -> None:
    first, second = DropReport(kept=2, interpolated=3), DropReport(kept=1)
    first.drop("mixed label")
    second.drop("mixed label", 2)
    second.drop("gap")
    first.merge(second)
    assert first.as_json() == {"kept": 3, "dropped": {"gap": 1, "mixed label": 3}, "interpolated": 3}
