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

    def scores(self, problem: Problem, changes: Array, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return reciprocal ranks (pairs, rows), mean of both directions; NaN where a row lacks one of the two.

        Against "text" a window is ranked among the labels; rows of one label are one gallery entry.
        """
        embeddings = [unit(changed(problem, changes, index, rows)) for index in range(len(self.names))]
        result = np.full((len(self.pairs), len(rows)), np.nan)
        for place, (i, j) in enumerate(self.pairs):
            present = np.flatnonzero(self._valid[i][rows] & self._valid[j][rows])
            for part in np.array_split(present, max(1, -(-len(present) // MAX_GALLERY))):
                if TEXT in (self.names[i], self.names[j]):
                    window, text = (i, j) if self.names[j] == TEXT else (j, i)
                    labels = self._ids[text][rows[part]]
                    result[place, part] = label_scores(embeddings[window][part], embeddings[text][part], labels)
                elif len(part):
                    result[place, part] = pair_scores(embeddings[i][part], embeddings[j][part])
        return result


def pair_scores(a: Array, b: Array) -> NDArray[np.float64]:
    """Return the reciprocal rank (n,) of each pair in both directions, averaged; `a` and `b` (n, d) unit rows."""
    similarity = a @ b.T
    return np.asarray((1.0 / ranks(similarity) + 1.0 / ranks(similarity.T)) / 2.0)


def label_scores(windows: Array, texts: Array, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the reciprocal rank (n,) of each window's true label among the labels that occur; unit rows (n, d)."""
    if not len(labels):
        return np.zeros(0)
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    similarity = windows @ texts[first].T
    true = similarity[np.arange(len(labels)), place.ravel()][:, None]
    level = (similarity == true).sum(axis=1) - 1
    return np.asarray(1.0 / (1.0 + (similarity > true).sum(axis=1) + level / 2.0))
