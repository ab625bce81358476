"""Leak-free splits: by group where groups are known, else by blocks of time (design.md section 2, "Small data")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

GUARD_WINDOWS = 1
"""Windows next to a held-out block that training leaves out, because overlapping windows share samples."""


def folds(n: int, groups: NDArray[np.int64] | None, count: int) -> list[tuple[Rows, Rows]]:
    """Split `n` rows, in order of time, into (training rows, held-out rows) per fold; every row is held out once.

    Whole groups are held out where there are at least two; otherwise the rows are cut into `count` blocks of time, and
    the windows next to a held-out block are left out of its training rows.

    Args:
        n: number of rows, at least 2.
        groups: (n,) subject, run or session of each row, or None.
        count: folds wanted; fewer come back where there are fewer groups or rows.
    """
    if groups is not None and len(np.unique(groups)) >= 2:
        return _group_folds(groups, count)
    rows = np.arange(n)
    result = []
    for held_out in np.array_split(rows, min(count, n)):
        near = (rows >= held_out[0] - GUARD_WINDOWS) & (rows <= held_out[-1] + GUARD_WINDOWS)
        training = rows[~near] if (~near).any() else np.setdiff1d(rows, held_out)
        result.append((training, held_out))
    return result


def _group_folds(groups: NDArray[np.int64], count: int) -> list[tuple[Rows, Rows]]:
    names, sizes = np.unique(groups, return_counts=True)
    loads = np.zeros(min(count, len(names)), dtype=np.int64)
    fold_of = {}
    for index in np.argsort(-sizes, kind="stable"):
        lightest = int(loads.argmin())
        fold_of[int(names[index])] = lightest
        loads[lightest] += sizes[index]
    fold = np.array([fold_of[int(group)] for group in groups])
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(len(loads))]
