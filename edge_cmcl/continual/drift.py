"""Drift watch: how much of recent feature energy lies outside everything learned, and how much would be too much.

What a sketch holds are directions of unit features. Here features keep their length (standardised, not scaled to unit
norm), because noise and a remounted sensor add energy before they change directions: as shares of a unit feature the
same residuals tell damaged windows from normal ones hardly better than chance (tests/bench/drift_rates.py).

The figure of n windows is the energy of their **mean** feature outside, not the mean of their energies: what differs
from window to window averages out, what moved all of them stays. For one window both are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.update_space import Preconditioner

FALSE_ALARMS = 0.05
"""Share of normal windows, and of normal batches of any size, that may be called drifted. At 0.01 a few subjects allow
so wide a limit that little is detected."""

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Sizes of batches with a threshold of their own; any other size takes the next smaller one's, which is higher."""

_TINY = 1e-12

Floats = NDArray[np.floating]


def residuals(scores: Floats, guard: Preconditioner) -> NDArray[np.float32]:
    """Return what of `scores` (n, width), standardised features of any length, lies outside what `guard` holds back."""
    return guard(scores).astype(np.float32)


def outside(mean_residual: Floats) -> float:
    """Return the energy outside of a mean residual (width,), as a share of a normal window's energy (its width).

    Of normal windows it is below 1; of windows with more energy than normal ones it may be above.
    """
    return float(np.square(mean_residual, dtype=np.float64).mean())


def batch_figures(parts: Floats, size: int) -> NDArray[np.float64]:
    """Return `outside` of every `size` consecutive rows of residuals (n, width), (n - size + 1,)."""
    sums = np.concatenate([np.zeros((1, parts.shape[1])), np.cumsum(parts, axis=0, dtype=np.float64)])
    return np.asarray(np.square((sums[size:] - sums[:-size]) / size).mean(axis=1))


def thresholds(parts: Sequence[Floats], false_alarms: float = FALSE_ALARMS) -> dict[int, float]:
    """Return the largest normal `outside` of batches by their size, as held-out windows tell it.

    Parts (subjects, runs, blocks of time) differ from each other by more than their windows do, and a device meets a
    new part. So the threshold is the upper prediction limit of a batch of a part not seen yet: of log(outside), normal
    between and within parts, with Satterthwaite's degrees of freedom (F. Satterthwaite, Biometrics Bulletin 2, 1946).

    Args:
        parts: residuals (n, width) of each part, held out from what guarded them, in order of time.
        false_alarms: share of normal batches that may exceed it.

    Returns:
        The thresholds of those `SIZES` that every part has; none for fewer than two parts, or a part of one window.
    """
    found: dict[int, float] = {}
    for size in SIZES:
        if len(parts) < 2 or min(map(len, parts)) < max(size, 2):
            break
        logs = [np.log(batch_figures(part, size) + _TINY) for part in parts]
        batches = sum(len(part) // size for part in parts)
        limit = math.exp(_prediction_limit(logs, batches, false_alarms))
        if size == 1:  # of single windows there are enough to see the tail itself
            limit = max(limit, math.exp(float(np.quantile(np.concatenate(logs), 1.0 - false_alarms))))
        # A larger batch is never allowed more: where few parts make it look so, that is chance.
        found[size] = min(limit, *found.values()) if found else limit
    return found


def threshold_for(thresholds_by_size: Mapping[int, float], n: int) -> float | None:
    """Return the threshold of a batch of `n` windows: that of the largest size up to `n`, None where there is none."""
    sizes = [size for size in thresholds_by_size if size <= n]
    return thresholds_by_size[max(sizes)] if sizes else None


def range_of(figures: Sequence[float], false_alarms: float = FALSE_ALARMS) -> tuple[float, float]:
    """Return the prediction interval of a positive figure of a part not seen yet, from those of two parts or more.

    Logarithms are taken as normal; `false_alarms` of all normal parts lie below it, and as many above.
    """
    logs = np.log(np.asarray(figures, dtype=np.float64) + _TINY)
    reach = student(1.0 - false_alarms, len(logs) - 1) * float(logs.std(ddof=1)) * math.sqrt(1.0 + 1.0 / len(logs))
    return math.exp(float(logs.mean()) - reach), math.exp(float(logs.mean()) + reach)


def student(p: float, df: float) -> float:
    """Return the quantile `p` > 0.5 of Student's t with `df` >= 1 degrees of freedom, within 3 % for p <= 0.995.

    Exact for 1 and 2; above by the expansion in 1 / df (M. Abramowitz and I. Stegun, 26.7.5), which is low by that much
    at 3. Between 1, 2 and 3 the lower number's, which is larger.
    """
    if df < 2.0:
        return math.tan(math.pi * (p - 0.5))
    if df < 3.0:
        return (2.0 * p - 1.0) * math.sqrt(2.0 / (4.0 * p * (1.0 - p)))
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4.0,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96.0,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384.0,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160.0,
    )
    return z + sum(term / df**power for power, term in enumerate(terms, start=1))


def _prediction_limit(logs: Sequence[NDArray[np.float64]], batches: int, false_alarms: float) -> float:
    means = np.array([values.mean() for values in logs])
    between = float(means.var(ddof=1)) * (1.0 + 1.0 / len(means))
    within = float(np.mean([values.var() for values in logs]))
    total = between + within
    if total == 0.0:
        return float(means.mean())
    free = total**2 / (between**2 / (len(means) - 1) + within**2 / max(1, batches - len(means)))
    return float(means.mean()) + student(1.0 - false_alarms, free) * math.sqrt(total)
