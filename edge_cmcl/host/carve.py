"""Which rows of the training files are held out for validation, decided once for all pairs of a project.

All pairs train the same adapters, so a moment that one pair holds out must not train another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data import Pairs
from edge_cmcl.data.splits import folds, hold_out, training_rows

VALIDATION_FOLDS = 5

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Sides:
    """The rows of one file that train and those that validate; rows that overlap a held-out one do neither."""

    training: Rows
    validation: Rows


def carve(files: Sequence[Pairs], fold: int) -> Mapping[Path, Sides]:
    """Hold out one of five folds of `files`: whole groups where there are groups, else a block of time of each file.

    The same number is the same group in every file.

    Args:
        files: the training files, in the order of the project, each once.
        fold: which fold; counted modulo the folds that there are.

    Raises:
        DataError: every window of a file overlaps a held-out one.
    """
    known = [pairs.groups for pairs in files if pairs.groups is not None]
    groups = np.concatenate([np.zeros(0, np.int64), *known])
    chosen: NDArray[np.int64] | None = None
    if len(np.unique(groups)) >= 2:
        splits = folds(len(groups), groups, VALIDATION_FOLDS)
        chosen = np.unique(groups[splits[fold % len(splits)][1]])
    return {pairs.path: _sides(pairs, fold, chosen) for pairs in files}


def carve_each(pairs: Pairs, present: NDArray[np.bool_], fold: int) -> Sides:
    """Hold out a block of time of the moments of each kind: for pairs that occur in another part of a file each.

    Args:
        pairs: one training file.
        present: (pairs of the project, rows), the rows that each pair uses.
        fold: which of five blocks; counted modulo five.

    Raises:
        DataError: every window overlaps a held-out one.
    """
    kinds = np.unique(present, axis=1, return_inverse=True)[1].ravel()
    parts = np.zeros(pairs.n, np.int64)
    for kind in range(int(kinds.max()) + 1):
        rows = np.flatnonzero(kinds == kind)
        parts[rows] = np.arange(len(rows)) * VALIDATION_FOLDS // len(rows)
    splits = hold_out(parts, time=pairs.time, window_s=pairs.longest_window_s(pairs.modalities))
    return Sides(*splits[fold % len(splits)])


def _sides(pairs: Pairs, fold: int, chosen: NDArray[np.int64] | None) -> Sides:
    window_s = pairs.longest_window_s(pairs.modalities)
    if pairs.groups is None or chosen is None:
        splits = folds(pairs.n, None, VALIDATION_FOLDS, time=pairs.time, window_s=window_s)
        return Sides(*splits[fold % len(splits)])
    held_out = np.isin(pairs.groups, chosen)
    training = training_rows(held_out, time=pairs.time, window_s=window_s, guard=0)
    return Sides(training, np.flatnonzero(held_out))
