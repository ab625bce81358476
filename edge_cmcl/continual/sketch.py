"""Frequent Directions sketches of the second moment of one origin's features.

Source: E. Liberty, "Simple and deterministic matrix sketching", KDD 2013; M. Ghashami et al., "Frequent directions",
SIAM J. Comput. 45 (2016). Features are rows here, as in design.md section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.errors import DataError

MAX_ROWS = 128
"""Most rows that a stored sketch may have."""

WORKING_ROWS = 512
"""Rows kept while features stream by; up to twice as many features are sketched without any loss."""

PRIVACY_DELTA = 1e-5
"""Chance with which the guarantee of `noise_deviation` may fail."""

KEPT_ENERGY = 0.999
"""A stored sketch stops at this share of the trace, where that takes fewer than `MAX_ROWS` rows."""


@dataclass(frozen=True)
class Sketch:
    """Low-rank stand-in for C = X^T X / n, the uncentred second moment of n features.

    Attributes:
        rows: (l, d) float32, each value exactly representable in float16.
        n: number of features behind it.
        trace: trace of C, exact.
        delta: C - rows^T rows <= delta * I in the positive semidefinite order.
    """

    rows: NDArray[np.float32]
    n: int
    trace: float
    delta: float


class FrequentDirections:
    """Sketches a stream of features in one pass and bounded memory.

    Holds at most 2 * `working_rows` rows of float64. After any number of features X, the rows A held satisfy
    0 <= X^T X - A^T A <= `lost` * I.

    Args:
        width: d, the length of one feature.
        working_rows: rows that survive each shrink.
    """

    def __init__(self, width: int, working_rows: int = WORKING_ROWS) -> None:
        self._keep = min(working_rows, width)
        self._buffer = np.zeros((2 * self._keep, width))
        self._filled = 0
        self.n = 0
        self.squared_norm = 0.0
        self.lost = 0.0

    def update(self, features: NDArray[np.floating]) -> None:
        """Add `features` (n, d) of any float dtype.

        Raises:
            DataError: a feature is NaN or infinite.
        """
        if not np.isfinite(features).all():
            raise DataError("features are not finite", expected="finite numbers", got="NaN or infinity")
        self.n += len(features)
        self.squared_norm += float(np.einsum("ij,ij->", features, features, dtype=np.float64))
        while len(features):
            if self._filled == len(self._buffer):
                self._shrink()
            taken = min(len(features), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + taken] = features[:taken]
            self._filled += taken
            features = features[taken:]

    @property
    def rows(self) -> NDArray[np.float64]:
        """The rows A held now, (m, d) with m <= 2 * working_rows."""
        return self._buffer[: self._filled]

    def sketch(self, max_rows: int = MAX_ROWS, kept_energy: float = KEPT_ENERGY) -> Sketch:
        """Return the stored form of what was seen.

        Raises:
            DataError: nothing was seen.
        """
        if self.n == 0:
            raise DataError("cannot sketch without features", expected="at least one feature", got="none")
        scaled = self.rows / np.sqrt(self.n)
        return _compress(scaled, self.n, self.squared_norm / self.n, self.lost / self.n, max_rows, kept_energy)

    def _shrink(self) -> None:
        energies, directions = principal_rows(self.rows)
        delta = energies[self._keep] if len(energies) > self._keep else 0.0
        kept = np.sqrt(np.maximum(energies[: self._keep] - delta, 0.0))
        self._filled = len(kept)
        self._buffer[: self._filled] = kept[:, None] * directions[: self._keep]
        self.lost += float(delta)


def merge(sketches: Sequence[Sketch], weights: Sequence[float], max_rows: int = MAX_ROWS) -> Sketch:
    """Return a sketch of sum(w_i C_i); its `delta` is exact for the merged moment.

    The bounds of the parts add up with their weights, and compressing adds the largest eigenvalue it drops.
    """
    stacked = np.concatenate([np.sqrt(w) * s.rows.astype(np.float64) for s, w in zip(sketches, weights, strict=True)])
    trace = sum(w * s.trace for s, w in zip(sketches, weights, strict=True))
    delta = sum(w * s.delta for s, w in zip(sketches, weights, strict=True))
    return _compress(stacked, sum(s.n for s in sketches), trace, delta, max_rows, kept_energy=1.0)


def rescale(sketch: Sketch, factors: NDArray[np.floating]) -> Sketch:
    """Return a sketch of D C D for the diagonal D = `factors` (d,): the features, each number times its factor.

    What the sketch does not hold of C may lie where D is largest: so much it adds to trace and `delta` at most.
    """
    largest = float(np.square(factors, dtype=np.float64).max())
    rows = np.asarray(sketch.rows * factors.astype(np.float64), dtype=np.float64)
    unseen = max(0.0, sketch.trace - float(np.square(sketch.rows, dtype=np.float64).sum()))
    trace = float(np.square(rows).sum()) + largest * unseen
    return _compress(rows, sketch.n, trace, largest * sketch.delta, MAX_ROWS, kept_energy=1.0)


def noise_deviation(n: int, epsilon: float) -> float:
    """Return the deviation of Gaussian noise for each number of C that makes it (epsilon, 1e-5)-differentially private.

    C. Dwork et al., "Analyze Gauss", STOC 2014: replacing one of n features of unit norm moves C by at most sqrt(2) / n
    in the Frobenius norm. The guarantee is of C alone: adapters and statistics say something of the data, too.

    Args:
        n: number of features.
        epsilon: how much one feature may show, above 0; the smaller, the less.
    """
    return float(np.sqrt(2.0) / n * np.sqrt(2.0 * np.log(1.25 / PRIVACY_DELTA)) / epsilon)


def noisy(moment: NDArray[np.float64], n: int, deviation: float, rng: np.random.Generator) -> Sketch:
    """Return a sketch of C + E, E symmetric Gaussian, without what may be nothing but noise.

    Eigenvalues within the noise's own, 2 * deviation * sqrt(d), are dropped, and the others made smaller by what noise
    adds to them on average (J. Baik and J. Silverstein, 2006: l = t + d s^2 / t); both use nothing but C + E. `delta`
    holds but for a chance that vanishes with d.

    Args:
        moment: (d, d), C of n unit features, exact: what a sketch leaves out of it depends on single features.
        n: number of features.
        deviation: of each number of E (`noise_deviation`).
        rng: must be secret and not be used twice: noise that can be drawn again can be averaged away.
    """
    d = len(moment)
    noise = np.triu(rng.normal(0.0, deviation, (d, d)))
    values, vectors = np.linalg.eigh(moment + noise + np.triu(noise, 1).T)
    edge = 2.0 * deviation * np.sqrt(d)
    kept = np.flatnonzero(values > edge)[::-1]
    true = (values[kept] + np.sqrt(values[kept] ** 2 - edge**2)) / 2.0
    hidden = max(edge, float((values[kept] - true).max(initial=0.0)))
    rows = np.sqrt(true)[:, None] * vectors[:, kept].T
    return _compress(rows, n, 1.0, hidden + edge, MAX_ROWS, kept_energy=1.0)


def principal_rows(rows: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the non-zero eigenvalues of rows^T rows, largest first, and their unit eigenvectors as rows.

    Works through the smaller of the two Gram matrices, so (m, d) costs min(m, d)^2 * max(m, d).
    """
    exact = rows.astype(np.float64, copy=False)
    if exact.shape[0] <= exact.shape[1]:
        energies, left = np.linalg.eigh(exact @ exact.T)
        directions = left.T @ exact
    else:
        energies, right = np.linalg.eigh(exact.T @ exact)
        directions = right.T
    order = np.argsort(energies)[::-1]
    energies, directions = energies[order], directions[order]
    solid = energies > max(energies.max(initial=0.0), 0.0) * 1e-13
    energies, directions = energies[solid], directions[solid]
    return energies, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _compress(
    rows: NDArray[np.float64], n: int, trace: float, delta: float, max_rows: int, kept_energy: float
) -> Sketch:
    energies, directions = principal_rows(rows)
    enough = int(np.searchsorted(np.cumsum(energies), kept_energy * trace)) + 1
    count = min(max_rows, enough, len(energies))
    dropped = float(energies[count]) if count < len(energies) else 0.0
    exact = np.sqrt(energies[:count, None]) * directions[:count]
    stored = exact.astype(np.float16).astype(np.float32)
    return Sketch(stored, n, trace, delta + dropped + _rounding(exact, stored))


def _rounding(exact: NDArray[np.float64], stored: NDArray[np.float32]) -> float:
    """Return the largest eigenvalue of exact^T exact - stored^T stored, the cost of float16, never below 0."""
    if not len(exact):
        return 0.0
    both = np.concatenate([exact, stored.astype(np.float64)])
    triangle = np.asarray(np.linalg.qr(both.T, mode="r"), dtype=np.float64)
    signs = np.repeat([1.0, -1.0], len(exact))
    return max(0.0, float(np.linalg.eigvalsh((triangle * signs) @ triangle.T)[-1]))
