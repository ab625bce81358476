"""Whether one sensor's data predict another's: held-out retrieval by ridge regression, against shuffled pairings.

Ridge regression in its dual form (C. Saunders et al., ICML 1998) needs of each sensor the Gram matrix of its features
only, and predicts held-out rows by one matrix that does not depend on what is predicted. So hundreds of shuffled
pairings cost hardly more than the true one, and the null distribution is measured instead of assumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.metrics import chance_mrr

Floats = NDArray[np.floating]
Rows = NDArray[np.int64]
Splits = Sequence[tuple[Rows, Rows]]
Scores = NDArray[np.float64]

PENALTIES = (0.3, 3.0, 30.0)
"""Ridge penalties tried, as in `alignment.PENALTIES`; the best counts, for a shuffled pairing as for the true one."""

FEW_GROUPS = 8
"""Up to so many groups, pairs are shuffled within each: which group a row is of must not count as evidence."""

ALIKE = 0.05
"""Rows further apart than this product of two sensors' autocorrelations count as independent of each other."""

ENOUGH_EXCEEDED = 20
"""Shuffled pairings as good as the true one that end a test (J. Besag and P. Clifford, Biometrika 78, 1991)."""


_LOG_MANY = math.log(1e9)


@dataclass(frozen=True)
class Predictor:
    """Ridge regression of anything on one sensor's features, for held-out rows.

    Attributes:
        folds: (training rows, held-out rows, matrices H); H is (penalties, held out, training) float32, and
            H @ t[training] predicts t[held out].
        n: number of rows.
    """

    folds: list[tuple[Rows, Rows, NDArray[np.float32]]]
    n: int

    @staticmethod
    def fit(gram: Floats, splits: Splits, width: int, penalties: Sequence[float] = PENALTIES) -> Predictor:
        """Return the predictor from `gram` (n, n) of features (n, width).

        Args:
            gram: of unit features.
            splits: (training rows, held-out rows).
            width: length of a feature, which penalties refer to.
            penalties: in units of the mean eigenvalue of the features' second moment, as `alignment.ridge` takes them.
        """
        folds = []
        for training, held_out in splits:
            energies, vectors = np.linalg.eigh(gram[np.ix_(training, training)].astype(np.float64))
            seen = gram[np.ix_(held_out, training)] @ vectors
            strengths = [penalty * len(training) / width for penalty in penalties]
            matrices = [(seen / (np.maximum(energies, 0.0) + strength)) @ vectors.T for strength in strengths]
            folds.append((training, held_out, np.array(matrices, dtype=np.float32)))
        return Predictor(folds, len(gram))

    def pair_scores(self, targets: NDArray[np.float32], order: Rows | None = None) -> Scores:
        """Return reciprocal ranks (penalties, n) of each held-out row's own target among those of its fold.

        NaN for rows that are never held out. Ranks are by the inner product with the prediction.

        Args:
            targets: Gram matrix (n, n) of what is predicted, of unit rows.
            order: (n,) row whose target each row is paired with; None for its own.
        """
        result = self._nothing()
        for training, held_out, matrices in self.folds:
            fitted, judged = (training, held_out) if order is None else (order[training], order[held_out])
            similarity = matrices @ targets[np.ix_(fitted, judged)]
            result[:, held_out] = _reciprocal_ranks(similarity, np.arange(len(held_out)))
        return result

    def label_scores(self, targets: NDArray[np.float32], labels: Rows, order: Rows | None = None) -> Scores:
        """Return reciprocal ranks (penalties, n) of each held-out row's label among all labels, as `pair_scores` does.

        Args:
            targets: Gram matrix (c, c) of the labels' unit embeddings.
            labels: (n,) label of each row.
            order: as in `pair_scores`.
        """
        result = self._nothing()
        paired = labels if order is None else labels[order]
        for training, held_out, matrices in self.folds:
            result[:, held_out] = _reciprocal_ranks(matrices @ targets[paired[training]], paired[held_out])
        return result

    def unexplained(self, targets: Floats) -> float:
        """Return the share of the targets' variance that held-out predictions leave, at the best penalty; 0 to 1.

        It is 1 minus the redundancy index of D. Stewart and W. Love (Psychological Bulletin 70, 1968), with held-out
        rows, so that a fit by chance does not count. Noise cannot be predicted: it counts as unexplained, too.

        Args:
            targets: Gram matrix (n, n) of the features to explain; variance is about the mean of the training rows.
        """
        left, total = np.zeros(len(self._nothing())), 0.0
        for training, held_out, matrices in self.folds:
            centre = np.full((len(held_out), len(training)), 1.0 / len(training))
            total += _squared_error(targets, training, held_out, centre)
            for place, matrix in enumerate(matrices):
                # H (t - mean) + mean, in terms of the training rows' targets.
                weights = matrix + centre * (1.0 - matrix.sum(axis=1, keepdims=True))
                left[place] += _squared_error(targets, training, held_out, weights)
        return float(np.clip(left.min() / total, 0.0, 1.0)) if total > 0.0 else 0.0

    @property
    def held_out_counts(self) -> list[int]:
        """Held-out rows of each fold."""
        return [len(held_out) for _, held_out, _ in self.folds]

    def chance(self) -> Scores:
        """Return (n,) the MRR of random ranking in the gallery of each held-out row; NaN for rows never held out."""
        result = np.full(self.n, np.nan)
        for _, held_out, _ in self.folds:
            result[held_out] = chance_mrr(len(held_out))
        return result

    def _nothing(self) -> Scores:
        return np.full((len(self.folds[0][2]), self.n), np.nan)


def _reciprocal_ranks(similarity: Floats, true: Rows) -> Scores:
    """Return 1 / rank (p, m) of column `true` (m,) in each row of `similarity` (p, m, c), as `metrics.ranks` does."""
    own = np.take_along_axis(similarity, true[None, :, None], axis=2)
    behind, level = (similarity < own).sum(axis=2), (similarity == own).sum(axis=2) - 1
    return np.asarray(1.0 / (similarity.shape[2] - behind - level / 2.0))


def _squared_error(targets: Floats, training: Rows, held_out: Rows, weights: Floats) -> float:
    """Return sum |t[held out] - weights t[training]|^2 from the targets' Gram matrix."""
    within, between = targets[np.ix_(training, training)], targets[np.ix_(training, held_out)]
    own = float(np.trace(targets[np.ix_(held_out, held_out)]))
    cross = float(np.einsum("ij,ji->", weights, between))
    return own - 2.0 * cross + float(np.einsum("ij,ij->", weights @ within, weights))


@dataclass(frozen=True)
class Shuffler:
    """How the pairing of two sensors may be changed, if they have nothing to do with each other.

    Attributes:
        strata: per stratum its blocks, each an array of rows in order of time. Blocks change places within their
            stratum; a stratum of one block is rotated: its end is paired with its beginning.
        length: rows that are so far apart are independent of each other.
    """

    strata: list[list[Rows]]
    length: int

    @property
    def stretches(self) -> int:
        """Number of stretches that are independent of each other."""
        return sum(max(1, len(block) // self.length) for blocks in self.strata for block in blocks)

    @property
    def pairings(self) -> float:
        """In how many ways the pairing can be changed, its own included."""
        ways = [math.lgamma(len(of) + 1) if len(of) > 1 else math.log(len(of[0])) for of in self.strata]
        return float(round(math.exp(min(sum(ways), _LOG_MANY))))

    def membership(self, n: int) -> Rows:
        """Return (n,) the number of the stretch that each row is in."""
        found, number = np.zeros(n, np.int64), 0
        for block in (block for blocks in self.strata for block in blocks):
            for start in range(0, len(block), self.length):
                found[block[start : start + self.length]] = number
                number += 1
        return found

    def draw(self, rng: np.random.Generator) -> Rows:
        """Return (n,) for each row the row whose target it is paired with."""
        order = np.empty(sum(len(block) for blocks in self.strata for block in blocks), np.int64)
        for blocks in self.strata:
            rows = np.concatenate(blocks)
            if len(blocks) == 1:
                order[rows] = np.roll(rows, rng.integers(len(rows)))
            else:
                order[rows] = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
        return order


def find_shuffler(a: Floats, b: Floats, groups: Rows | None = None) -> Shuffler:
    """Return how the pairing of two sensors may be shuffled.

    Rows that follow each other resemble each other in most recordings, and shuffling them singly would make any two
    slow sensors look related. What matters is the product of both autocorrelations (M. Bartlett, J. Royal Statistical
    Society 98, 1935). Where neighbours are independent by it, rows are shuffled singly; where they are not, many groups
    change places as wholes, and few are each rotated by a random time, which leaves both sensors' own course as it is.

    Args:
        a: Gram matrix (n, n) of one sensor's features, rows in order of time.
        b: of the other.
        groups: (n,) subject or run of each row.
    """
    groups = np.zeros(len(a), np.int64) if groups is None else groups
    runs = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    few = len(runs) <= FEW_GROUPS
    strata = [[run] for run in runs] if few else [runs]
    together = _autocorrelation(a, strata) * _autocorrelation(b, strata)
    near = np.flatnonzero(together < ALIKE)
    length = int(near[0]) + 1 if len(near) else max(len(run) for run in runs)
    if length > 1:
        return Shuffler(strata, length)
    singly = [np.split(np.concatenate(of), sum(len(run) for run in of)) for of in strata]
    return Shuffler(singly, 1)


def _autocorrelation(gram: Floats, strata: Sequence[Sequence[Rows]]) -> Scores:
    """Return for lags 1, 2, ... how much more alike rows are, 0 to 1, than any two rows of their stratum are."""
    longest = max(len(run) for of in strata for run in of)
    sums, counts, typical, own = np.zeros(longest), np.zeros(longest), 0.0, 0.0
    for of in strata:
        rows = np.concatenate(of)
        if len(rows) < 2:
            continue
        part = gram[np.ix_(rows, rows)].astype(np.float64)
        mean = part.mean(axis=0)
        centred = part - mean[:, None] - mean[None, :] + part.mean()
        own += float(np.trace(centred))
        typical += (float(centred.sum()) - float(np.trace(centred))) / (len(rows) - 1)
        start = 0
        for run in of:
            square = centred[start : start + len(run), start : start + len(run)]
            for lag in range(1, len(run)):
                sums[lag] += float(np.trace(square, lag))
                counts[lag] += len(run) - lag
            start += len(run)
    n = sum(len(run) for of in strata for run in of)
    alike = sums[1:] / np.maximum(counts[1:], 1.0) - typical / n
    scale = (own - typical) / n
    return np.clip(alike / scale, 0.0, 1.0) if scale > 0.0 else np.zeros(max(longest - 1, 0))


@dataclass(frozen=True)
class Comparison:
    """A pairing against shuffled ones.

    Attributes:
        penalty: index of the best penalty.
        scores: (n,) reciprocal ranks of the true pairing at it.
        shuffled: mean MRR of the shuffled pairings, each at its own best penalty.
        p: share of pairings, the true one included, that are at least as good as the true one.
        shuffles: number of shuffled pairings.
    """

    penalty: int
    scores: Scores
    shuffled: float
    p: float
    shuffles: int


def permutation_test(
    score: Callable[[Rows | None], Scores],
    shuffler: Shuffler,
    shuffles: int,
    told: Callable[[int], None] = lambda done: None,
    seed: int = 0,
) -> Comparison:
    """Compare the MRR of the true pairing with that of shuffled ones, each at its best penalty.

    If the sensors have nothing to do with each other, p <= a happens with a probability of at most a, whatever their
    distributions: the best penalty is chosen for every pairing alike (P. Good, "Permutation Tests", 2000).

    Args:
        score: takes an order (None for the true one) and returns reciprocal ranks (penalties, n).
        shuffler: how the pairing may be changed.
        shuffles: the most pairings to try; fewer where p is not small, see `ENOUGH_EXCEEDED`.
        told: called with the number of pairings tried.
        seed: of the shuffles.
    """
    rng = np.random.default_rng(seed)
    true = score(None)
    means = np.nanmean(true, axis=1)
    penalty = int(means.argmax())
    found: list[float] = []
    exceeded = 0
    while len(found) < shuffles and exceeded < ENOUGH_EXCEEDED:
        found.append(float(np.nanmean(score(shuffler.draw(rng)), axis=1).max()))
        exceeded += int(found[-1] >= means[penalty])
        told(len(found))
    stopped = exceeded == ENOUGH_EXCEEDED
    p = exceeded / len(found) if stopped else (exceeded + 1) / (len(found) + 1)
    return Comparison(penalty, true[penalty], float(np.mean(found)), p, len(found))
