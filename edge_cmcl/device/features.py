"""From an encoder's raw outputs to features: standardised, clipped and scaled to unit norm (design.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLIP = 8.0
_RELATIVE_EPSILON = 1e-3


@dataclass(frozen=True)
class Statistics:
    """Per-modality statistics of raw encoder outputs, frozen when the modality was learned.

    Attributes:
        mean: (width,) float32.
        std: (width,) float32, all positive.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


class RunningStatistics:
    """Mean and standard deviation of rows that stream by (T. Chan, G. Golub and R. LeVeque, 1979)."""

    def __init__(self, width: int) -> None:
        self.n = 0
        self._mean = np.zeros(width)
        self._squares = np.zeros(width)

    def update(self, raw: NDArray[np.float32]) -> None:
        """Add `raw` (n, width)."""
        if not len(raw):
            return
        mean = raw.mean(axis=0, dtype=np.float64)
        shift = mean - self._mean
        total = self.n + len(raw)
        self._squares += np.square(raw - mean).sum(axis=0) + shift**2 * (self.n * len(raw) / total)
        self._mean += shift * (len(raw) / total)
        self.n = total

    def statistics(self) -> Statistics:
        """Return the statistics so far, each std at least a thousandth of its mean or of the median std.

        The floor is relative: an output that hardly varies must not be blown up, whatever the sensor's unit.
        """
        std = np.sqrt(self._squares / max(self.n, 1))
        positive = std[std > 0]
        typical = float(np.median(positive)) if len(positive) else 1.0
        floor = _RELATIVE_EPSILON * np.maximum(np.abs(self._mean), typical)
        return Statistics(self._mean.astype(np.float32), np.maximum(std, floor).astype(np.float32))


def standardise(raw: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """Return unit-norm features (n, width) of raw encoder outputs `raw` (n, width)."""
    return unit(standard_scores(raw, statistics))


def standard_scores(raw: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """Return features (n, width) of raw encoder outputs before they are scaled to unit norm, within +-`CLIP`."""
    scores = np.subtract(raw, statistics.mean)
    scores /= statistics.std
    return np.clip(scores, -CLIP, CLIP, out=scores)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `rows` (n, d) scaled to unit norm; a zero row stays zero."""
    # In double: the squares of very small or large numbers leave the range of single precision.
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    return np.asarray(rows / np.where(norms > 0, norms, 1.0).astype(np.float32), dtype=np.float32)
