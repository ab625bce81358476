"""Bringing one sensor's samples, recorded at times of their own, onto the clock of the windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.import_spec import SensorFile
from edge_cmcl.data.recordings import Table
from edge_cmcl.data.windows import on_clock
from edge_cmcl.errors import DataError

MAX_DUPLICATES = 0.1  # share of the samples that may have the same time as the one before
MIN_RATE_SHARE = 0.1  # of the nominal rate: below it the time's unit is surely wrong
_GAP_PERIODS = 1.5


@dataclass(frozen=True)
class Record:
    """One sensor's samples in order of time.

    Attributes:
        time_s: float64 (t,), strictly increasing.
        values: float64 (t, C), scaled; NaN where missing.
        period_s: median distance of the samples.
        rows: samples in the file.
        duplicates: of them, those averaged into another one of the same time.
    """

    time_s: NDArray[np.float64]
    values: NDArray[np.float64]
    period_s: float
    rows: int
    duplicates: int


def record_of(sensor: SensorFile, table: Table) -> Record:
    """Put a sensor's columns together; samples with equal times are averaged if they are no more than 10 %.

    Raises:
        DataError: the time goes back, does not advance, has too many duplicates or cannot be in its stated unit.
    """
    time = table.times[(sensor.time_column, sensor.time_unit)]
    values = np.stack([table.numbers[column] for column in sensor.columns], axis=1) / sensor.scale
    check_order(table.path, sensor.time_column, time)
    rows = len(time)
    time, values = _average_duplicates(table.path, time, values)
    period_s = float(np.median(np.diff(time)))
    if 1 / period_s < MIN_RATE_SHARE * sensor.rate_hz:
        got = f"a sample every {period_s:g} s ({sensor.time_column!r} read as {sensor.time_unit})"
        hint = f"state the unit of the time, for instance {sensor.time_column}[ms], or a lower rate"
        expected = f"at least {MIN_RATE_SHARE * sensor.rate_hz:g} Hz for windows at {sensor.rate_hz:g} Hz"
        raise DataError(f"{table.path} is too slow for {sensor.name!r}", expected=expected, got=got, hint=hint)
    return Record(time, values, period_s, rows, rows - len(time))


def on_windows(
    record: Record, begins_s: NDArray[np.float64], samples: int, rate_hz: float, max_gap_s: float | None
) -> NDArray[np.float64]:
    """Return the record in windows of `samples` at `rate_hz`, float64 (n, samples, C), NaN where it is missing.

    Args:
        record: the sensor's samples.
        begins_s: (n,) start of each window.
        samples: samples in a window.
        rate_hz: rate of the windows.
        max_gap_s: longest distance of two samples that is no gap; None for 1.5 of the longer period.
    """
    gap = max_gap_s if max_gap_s is not None else _GAP_PERIODS * max(record.period_s, 1 / rate_hz)
    clock = begins_s[:, None] + np.arange(samples) / rate_hz
    values = record.values
    if record.period_s * rate_hz < 1 / _GAP_PERIODS:
        values = moving_mean(record.time_s, values, 1 / rate_hz)
    return on_clock(record.time_s, values, clock.ravel(), gap).reshape(len(begins_s), samples, values.shape[1])


def moving_mean(time_s: NDArray[np.float64], values: NDArray[np.float64], width_s: float) -> NDArray[np.float64]:
    """Return the mean of the finite samples within `width_s` around each sample, (t, C); missing ones stay NaN."""
    first = np.searchsorted(time_s, time_s - width_s / 2, side="left")
    last = np.searchsorted(time_s, time_s + width_s / 2, side="right")
    finite = np.isfinite(values)
    centre = np.where(finite, values, 0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)  # keeps the sums small
    padding = np.zeros((1, values.shape[1]))
    sums = np.concatenate([padding, np.cumsum(np.where(finite, values - centre, 0.0), axis=0)])
    counts = np.concatenate([padding, np.cumsum(finite, axis=0)])
    mean = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1) + centre
    return np.where(finite, mean, np.nan)


def hold(
    path: Path, time_s: NDArray[np.float64], texts: Sequence[str], instants_s: NDArray[np.float64]
) -> NDArray[np.str_]:
    """Return the text that holds at each instant, of the same shape: the last one given, "" before the first.

    Raises:
        DataError: the time goes back.
    """
    check_order(path, "the time of labels or groups", time_s)
    last = np.searchsorted(time_s, instants_s, side="right")
    return np.array(["", *texts])[last]


def check_order(path: Path, column: str, time_s: NDArray[np.float64]) -> None:
    """Check that a time never goes back.

    Raises:
        DataError: it does; names the row and both times.
    """
    back = np.flatnonzero(np.diff(time_s) < 0)
    if len(back):
        row = int(back[0]) + 2
        got = f"{time_s[row - 1]:.6f} s in data row {row}, after {time_s[row - 2]:.6f} s"
        hint = "sort the file by time, or split it where the clock was reset and give the parts as runs"
        raise DataError(f"{path}: the time goes back", expected=f"{column!r} in ascending order", got=got, hint=hint)


def _average_duplicates(
    path: Path, time: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    new = np.concatenate([[True], np.diff(time) > 0])
    if new.sum() < 2:
        raise DataError(f"{path}: the time does not advance", expected="at least two times", got=f"{time[0]:g} s only")
    duplicates = int((~new).sum())
    if duplicates == 0:
        return time, values
    if duplicates > MAX_DUPLICATES * len(time):
        got = f"{duplicates} of {len(time)} samples have the same time as the one before"
        hint = "record times with a finer resolution, or give each sample its own time"
        raise DataError(f"{path}: the times are too coarse", expected="a time per sample", got=got, hint=hint)
    firsts = np.flatnonzero(new)
    finite = np.isfinite(values)
    sums = np.add.reduceat(np.where(finite, values, 0.0), firsts, axis=0)
    counts = np.add.reduceat(finite.astype(np.float64), firsts, axis=0)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return time[firsts], means
