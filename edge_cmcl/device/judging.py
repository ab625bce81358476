"""Scores of held-out pairs: the reciprocal rank of each, so that small data can be averaged and resampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.metrics import ranks
from edge_cmcl.device.features import unit
from edge_cmcl.device.members import Member
from edge_cmcl.device.text import TEXT
from edge_cmcl.device.training import Array, Problem, changed

MAX_GALLERY = 500
"""Held-out pairs ranked against each other at a time; a larger fold is ranked in parts."""


class Judge:
    """Ranks held-out pairs of every two modalities in an update.

    Attributes:
        pairs: (i, j) indices of members, i < j; a pair that the update learns, or one known before.
        learned: indices into `pairs` of those with the anchor, which training is meant to improve.
    """

    def __init__(self, members: Sequence[Member], ids: NDArray[np.int64]) -> None:
        self.names = tuple(member.name for member in members)
        self._valid = [member.valid for member in members]
        self._ids = np.concatenate([np.arange(ids.shape[1])[None], ids])
        known = [index for index in range(1, len(members)) if not members[index].new]
        older = [(i, j) for place, i in enumerate(known) for j in known[place + 1 :]]
        self.pairs = [(0, j) for j in range(1, len(members))] + older
        self.learned = list(range(len(members) - 1))
        self._labels, self._row_of_label = self._find_labels()

    def scores(self, problem: Problem, changes: Array, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return reciprocal ranks (pairs, rows), mean of both directions; NaN where a row lacks one of the two.

        Against "text" a window's label is ranked among all labels of the recording.
        """
        embeddings = [unit(changed(problem, changes, index, rows)) for index in range(len(self.names))]
        result = np.full((len(self.pairs), len(rows)), np.nan)
        for place, (i, j) in enumerate(self.pairs):
            for part in self._parts(i, j, rows):
                if TEXT in (self.names[i], self.names[j]):
                    window, text = (i, j) if self.names[j] == TEXT else (j, i)
                    texts = unit(changed(problem, changes, text, self._row_of_label))
                    true = np.searchsorted(self._labels, self._ids[text][rows[part]])
                    result[place, part] = label_scores(embeddings[window][part], texts, true)
                else:
                    result[place, part] = pair_scores(embeddings[i][part], embeddings[j][part])
        return result

    def gallery(self, folds: Sequence[NDArray[np.int64]]) -> tuple[float, ...]:
        """Return per pair among how many candidates a row was ranked on average, for the held-out rows of each fold."""
        means = []
        for i, j in self.pairs:
            parts = [rows[part] for rows in folds for part in self._parts(i, j, rows)]
            text = TEXT in (self.names[i], self.names[j])
            sizes = [len(self._labels) if text else len(part) for part in parts]
            means.append(float(np.average(sizes, weights=[len(part) for part in parts])) if parts else 0.0)
        return tuple(means)

    def _find_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the labels of the recording, sorted, and one row of each; none where labels are no partner."""
        if TEXT not in self.names:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        ids = self._ids[self.names.index(TEXT)]
        labels, rows = np.unique(ids, return_index=True)
        return labels[labels >= 0], rows[labels >= 0]

    def _parts(self, i: int, j: int, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return the places in `rows` that have both modalities, in parts that are ranked by themselves."""
        present = np.flatnonzero(self._valid[i][rows] & self._valid[j][rows])
        return np.array_split(present, -(-len(present) // MAX_GALLERY)) if len(present) else []


def pair_scores(a: Array, b: Array) -> NDArray[np.float64]:
    """Return the reciprocal rank (n,) of each pair in both directions, averaged; `a` and `b` (n, d) unit rows."""
    similarity = a @ b.T
    return np.asarray((1.0 / ranks(similarity) + 1.0 / ranks(similarity.T)) / 2.0)


def label_scores(windows: Array, texts: Array, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the reciprocal rank (n,) of each window's true label among all labels.

    Args:
        windows: (n, d) unit rows.
        texts: (c, d) unit rows, one per label.
        labels: (n,) row of `texts` that is true for each window.
    """
    return np.asarray(1.0 / label_ranks(windows @ texts.T, labels))


def label_ranks(similarity: Array, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the rank (n,), from 1, of each window's true label; ties and NaN as in `metrics.ranks`.

    Args:
        similarity: (n, c) of each window to each label.
        labels: (n,) column that is true for each window.
    """
    true = similarity[np.arange(len(labels)), labels][:, None]
    behind = (similarity < true).sum(axis=1)
    level = (similarity == true).sum(axis=1) - 1
    return np.asarray(similarity.shape[1] - behind - level / 2.0)
