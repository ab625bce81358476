"""Cutting recordings into windows: resampling, short gaps, and a count of what was dropped and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_cmcl.errors import DataError

MAX_MISSING = 0.2


@dataclass
class DropReport:
    """What windowing kept, repaired and dropped, and why.

    Attributes:
        kept: windows (rows of the pairs file) that were kept.
        dropped: reason to number of windows dropped for it; one reason per window.
        interpolated: samples that were missing and filled in by interpolation, over all sensors.
    """

    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    interpolated: int = 0

    def drop(self, reason: str, count: int = 1) -> None:
        """Count `count` windows dropped for `reason`."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def merge(self, other: DropReport) -> None:
        """Add the counts of `other` to this report."""
        self.kept += other.kept
        self.interpolated += other.interpolated
        for reason, count in other.dropped.items():
            self.drop(reason, count)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {"kept": self.kept, "dropped": dict(sorted(self.dropped.items())), "interpolated": self.interpolated}


def resample_whole(values: ArrayLike, length: int) -> NDArray[np.float32]:
    """Stretch a whole record to `length` samples by linear interpolation; the first and last sample are kept.

    Args:
        values: (t, ...) samples, t >= 2; NaN and infinity are bridged from their neighbours in time.
        length: samples wanted, >= 2.

    Returns:
        float32 (length, ...).

    Raises:
        DataError: fewer than two samples, or a channel without any finite sample.
    """
    record = np.asarray(values, dtype=np.float64)
    if record.ndim < 1 or len(record) < 2:
        raise DataError("a record is too short to resample", expected="at least 2 samples", got=str(record.shape))
    columns = record.reshape(len(record), -1)
    position = np.linspace(0.0, len(record) - 1.0, length)
    index = np.arange(len(record), dtype=np.float64)
    out = np.empty((length, columns.shape[1]), dtype=np.float32)
    for c in range(columns.shape[1]):
        finite = np.isfinite(columns[:, c])
        if not finite.any():
            raise DataError("a record cannot be resampled", expected="finite samples", got=f"none in channel {c}")
        out[:, c] = np.interp(position, index[finite], columns[finite, c])
    return out.reshape(length, *record.shape[1:])


def on_clock(
    time_s: NDArray[np.float64], values: ArrayLike, clock_s: NDArray[np.float64], max_gap_s: float
) -> NDArray[np.float64]:
    """Bring a record onto a clock by linear interpolation between its finite samples, channel by channel.

    Args:
        time_s: (t,) strictly increasing seconds.
        values: (t,) or (t, C) samples; those that are NaN or infinite count as missing.
        clock_s: (m,) increasing seconds.
        max_gap_s: the longest distance between two samples that is bridged.

    Returns:
        float64 (m, C), C = 1 for values of shape (t,); NaN where the clock is outside the record or in a longer gap.
    """
    record = np.asarray(values, dtype=np.float64)
    record = record.reshape(len(time_s), -1)
    out = np.full((len(clock_s), record.shape[1]), np.nan)
    slack = 1e-6 * max_gap_s  # a clock computed in floating point may end a hair after the last sample
    for c in range(record.shape[1]):
        finite = np.isfinite(record[:, c])
        time = time_s[finite]
        if len(time) == 0:
            continue
        right = np.clip(np.searchsorted(time, clock_s), 0, len(time) - 1)
        left = np.clip(np.where(time[right] > clock_s, right - 1, right), 0, len(time) - 1)
        inside = (clock_s >= time[0] - slack) & (clock_s <= time[-1] + slack)
        near = np.minimum(np.abs(clock_s - time[left]), np.abs(time[right] - clock_s)) <= slack
        bridged = inside & (near | (time[right] - time[left] <= max_gap_s))
        out[bridged, c] = np.interp(clock_s[bridged], time, record[finite, c])
    return out


def repair(window: ArrayLike, max_missing: float = MAX_MISSING) -> tuple[NDArray[np.float32] | None, int]:
    """Fill in the missing samples of one window by linear interpolation; its ends repeat the nearest sample.

    A sample is missing where any of its channels is NaN or infinite.

    Args:
        window: (T, ...) samples.
        max_missing: share of the T samples that may be missing.

    Returns:
        The window as float32 (T, ...) and how many samples were filled in; (None, 0) where too many are missing.
    """
    record = np.asarray(window, dtype=np.float64)
    columns = record.reshape(len(record), -1)
    good = np.isfinite(columns).all(axis=1)
    missing = len(record) - int(good.sum())
    if missing > max_missing * len(record) or not good.any():
        return None, 0
    if missing == 0:
        return record.astype(np.float32), 0
    filled = columns.copy()
    index = np.arange(len(record), dtype=np.float64)
    for c in range(columns.shape[1]):
        finite = np.isfinite(columns[:, c])
        filled[~finite, c] = np.interp(index[~finite], index[finite], columns[finite, c])
    return filled.reshape(record.shape).astype(np.float32), missing


def starts(total: int, length: int, step: int) -> range:
    """Return the first sample of each whole window of `length` samples in a record of `total`, `step` apart."""
    return range(0, total - length + 1, step)
