"""How far an update may have moved what was learned before (design.md section 2, "Certificate").

The certificate of an origin bounds the mean squared displacement of its embeddings, before normalisation, since they
were learned. It is an average over the origin's features, not a worst case, and not a recall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.sketch import Sketch

_SLACK = 1e-6
"""Relative allowance for the float32 arithmetic of the bound itself."""


@dataclass(frozen=True)
class Certificate:
    """Bound on the displacement of one origin of one modality.

    Attributes:
        modality: whose embeddings.
        origin: id of the origin.
        bound: mean squared displacement is at most this, in squared embedding units.
        relative: `bound` divided by the mean squared norm of the embeddings when they were learned.
    """

    modality: str
    origin: str
    bound: float
    relative: float


def displacement_bound(change: NDArray[np.floating], sketch: Sketch) -> float:
    """Return a number that tr(D C D^T) cannot exceed, for D = `change` (d, width).

    tr(D C D^T) <= tr(D B^T B D^T) + delta |D|_F^2 with B the sketch's rows, because C - B^T B <= delta I.
    """
    return (_seen(change, sketch) + sketch.delta * float(np.square(change, dtype=np.float64).sum())) * (1.0 + _SLACK)


def embedding_energy(weight: NDArray[np.floating], sketch: Sketch) -> float:
    """Return tr(W B^T B W^T), at most the mean squared norm of the origin's embeddings under `weight` W (d, width)."""
    return _seen(weight, sketch)


def certify(
    modality: str,
    origin: str,
    sketch: Sketch,
    now: NDArray[np.floating],
    learned: NDArray[np.floating],
    carried: float = 0.0,
) -> Certificate:
    """Return the certificate of one origin.

    Args:
        modality: its modality.
        origin: its id.
        sketch: its sketch.
        now: (d, width), the adapter as it is.
        learned: (d, width), the adapter when the origin was learned or archived.
        carried: mean squared displacement already there when the origin was archived; the two add up as
            norms do (triangle inequality of the seminorm sqrt(tr(D C D^T))).
    """
    bound = (np.sqrt(displacement_bound(now - learned, sketch)) + np.sqrt(carried)) ** 2
    energy = embedding_energy(learned, sketch)
    return Certificate(modality, origin, float(bound), float(bound / energy) if energy > 0 else float(bound > 0))


def _seen(matrix: NDArray[np.floating], sketch: Sketch) -> float:
    return float(np.square(matrix.astype(np.float64) @ sketch.rows.T.astype(np.float64)).sum())
