"""Leak-free splits: by group where groups are known, else by blocks of time (design.md section 2, "Small data").

Windows that overlap share samples, so a row that overlaps a held-out one is no training row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.errors import TooLittleDataError

Rows = NDArray[np.int64]
Times = NDArray[np.float64]

GUARD_WINDOWS = 1
"""Where starts of windows are unknown, so many rows next to a held-out block are taken to overlap it."""

_TOUCHING = 1e-6
"""Windows that share less than this part of their length only touch."""


def folds(
    n: int, groups: NDArray[np.int64] | None, count: int, *, time: Times | None = None, window_s: float | None = None
) -> list[tuple[Rows, Rows]]:
    """Split `n` rows, in order of time, into (training rows, held-out rows) per fold; every row is held out once.

    Whole groups are held out where there are at least two; otherwise the rows are cut into `count` blocks of time. See
    `hold_out` for what training leaves out beside them.

    Args:
        n: number of rows, at least 2.
        groups: (n,) subject, run or session of each row, or None.
        count: folds wanted; fewer come back where there are fewer groups or rows.
        time: (n,) start of each window in s, as in `Pairs`; None where unknown.
        window_s: length of a window in s; None where unknown.

    Raises:
        TooLittleDataError: every row overlaps a held-out one.
    """
    if groups is not None and len(np.unique(groups)) >= 2:
        return hold_out(_group_parts(groups, count), time=time, window_s=window_s, guard=0)
    sizes = [len(block) for block in np.array_split(np.arange(n), min(count, n))]
    return hold_out(np.repeat(np.arange(len(sizes)), sizes), time=time, window_s=window_s)


def hold_out(
    parts: NDArray[np.int64], *, time: Times | None = None, window_s: float | None = None, guard: int = GUARD_WINDOWS
) -> list[tuple[Rows, Rows]]:
    """Return for each part 0, 1, ... (training rows, rows of that part); see `training_rows`.

    Args:
        parts: (n,) the part that each row belongs to; rows stand in order of time.
        time: as in `folds`.
        window_s: as in `folds`.
        guard: as in `training_rows`.

    Raises:
        TooLittleDataError: every row overlaps a held-out one.
    """
    result = []
    for part in range(int(parts.max()) + 1):
        held_out = parts == part
        training = training_rows(held_out, time=time, window_s=window_s, guard=guard)
        result.append((training, np.flatnonzero(held_out)))
    return result


def evenly(n: int, most: int) -> Rows:
    """Return at most `most` of n rows, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))


def training_rows(
    held_out: NDArray[np.bool_],
    *,
    time: Times | None = None,
    window_s: float | None = None,
    guard: int = GUARD_WINDOWS,
) -> Rows:
    """Return the rows that are neither in `held_out` (n,) nor overlap a row that is.

    Two rows overlap where they are of one recording and start less than a window apart. Without times, the `guard` rows
    before and after a held-out one do, unless that leaves none to train on.

    Args:
        held_out: True for rows held out; rows stand in order of time.
        time: as in `folds`.
        window_s: as in `folds`.
        guard: rows, for where `time` or `window_s` are unknown.

    Raises:
        TooLittleDataError: every row overlaps a held-out one.
    """
    if time is None or window_s is None:
        near = _overlapping(held_out, np.arange(float(len(held_out))), guard + 1.0)
        training = np.flatnonzero(~held_out & ~near)
        return training if len(training) else np.flatnonzero(~held_out)
    training = np.flatnonzero(~held_out & ~_overlapping(held_out, time, window_s * (1.0 - _TOUCHING)))
    if not len(training) and not held_out.all():
        raise TooLittleDataError(
            "every window overlaps one that is held out to judge what is learned",
            expected="a recording many times as long as a window",
            got=f"{len(held_out)} windows of {window_s:g} s that start within {np.ptp(time):g} s",
            hint="record longer, or make windows that overlap less",
        )
    return training


def _overlapping(held_out: NDArray[np.bool_], clock: Times, reach: float) -> NDArray[np.bool_]:
    """Return the rows (n,) less than `reach` from the next held-out row before or after them in the same recording."""
    found = np.zeros_like(held_out)
    recording = np.concatenate([[0], np.cumsum(np.diff(clock) <= 0)])
    rows = np.arange(len(clock))
    for forward in (True, False):
        step = slice(None, None, 1 if forward else -1)
        nearest = np.maximum.accumulate(np.where(held_out[step], rows, -1))
        known = nearest >= 0
        apart = np.abs(clock[step] - clock[step][nearest])
        found[step] |= known & (apart < reach) & (recording[step] == recording[step][nearest])
    return found


def _group_parts(groups: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    names, sizes = np.unique(groups, return_counts=True)
    loads = np.zeros(min(count, len(names)), dtype=np.int64)
    part_of = {}
    for index in np.argsort(-sizes, kind="stable"):
        lightest = int(loads.argmin())
        part_of[int(names[index])] = lightest
        loads[lightest] += sizes[index]
    return np.array([part_of[int(group)] for group in groups])
