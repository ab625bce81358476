"""Closed-form starts of adapters: ridge onto a known embedding, canonical correlation where nothing is known yet.

On the few hundred pairs that a device records, a regularised closed form is a better start than training from random
weights, and often better than its end (figures in README.md). Everything here works in reduced coordinates: features
projected onto their leading principal directions, at most a few hundred numbers each.

Source: H. Vinod, "Canonical ridge and econometrics of joint production", J. Econometrics 4 (1976).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.sketch import principal_rows

Floats = NDArray[np.floating]

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Ridge penalties worth trying, in units of the mean eigenvalue n / d of the features' second moment times n."""


def ridge(features: Floats, targets: Floats, penalty: float) -> NDArray[np.float64]:
    """Return A (d, r) that minimises |features A^T - targets|^2 + penalty * |A|^2.

    Args:
        features: (n, r).
        targets: (n, d).
        penalty: positive.
    """
    solved = np.linalg.solve(*_normal_equations(features, targets, penalty))
    return np.asarray(solved.T)


def canonical(a: Floats, b: Floats, penalty: float, dimensions: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the canonical maps of two modalities, each direction weighted by its regularised correlation.

    Weighting by the correlation lets the directions that the two sensors really share decide the cosine.

    Args:
        a: (n, r) features of one modality.
        b: (n, s) features of the other, row by row the same moments.
        penalty: ridge on both second moments.
        dimensions: d, rows wanted; where the correlations are fewer, the rest are zero.

    Returns:
        Maps (d, r) and (d, s).
    """
    white_a, white_b = _whitener(a, penalty), _whitener(b, penalty)
    left, correlations, right = np.linalg.svd((a @ white_a).T @ (b @ white_b), full_matrices=False)
    count = min(dimensions, len(correlations))
    maps = []
    for white, sides in ((white_a, left[:, :count]), (white_b, right[:count].T)):
        map_ = np.zeros((dimensions, len(white)))
        map_[:count] = ((white @ sides) * correlations[:count]).T
        maps.append(map_)
    return maps[0], maps[1]


def unit_scale(map_: Floats, features: Floats) -> NDArray[np.float64]:
    """Return `map_` (d, r) scaled so that embeddings of `features` (n, r) have a mean norm of 1.

    The step's learning rate is absolute, so every adapter starts at the same scale.
    """
    norms = np.linalg.norm(features @ map_.T, axis=1)
    return np.asarray(map_ / max(float(norms.mean()), np.finfo(np.float32).tiny))


def _whitener(features: Floats, penalty: float) -> NDArray[np.float64]:
    energies, directions = principal_rows(features)
    return np.asarray((directions.T / np.sqrt(energies + penalty)) @ directions)


def _normal_equations(
    features: Floats, targets: Floats, penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    exact = features.astype(np.float64)
    gram = exact.T @ exact
    gram[np.diag_indices_from(gram)] += penalty
    return gram, exact.T @ targets
