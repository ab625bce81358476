"""The space in which an adapter may change without moving what was learned (design.md section 2, step 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.sketch import principal_rows

MAX_DIRECTIONS = 128
"""k, the most columns that an update space may have."""

ALPHA = 0.18
"""Softness of the soft space, in units of the mean eigenvalue of one origin's second moment."""


@dataclass(frozen=True)
class Preconditioner:
    """The symmetric map P = I - V diag(damping) V^T that holds back protected directions.

    Attributes:
        directions: V^T, (r, d) float64 with orthonormal rows.
        damping: (r,) in [0, 1]; 1 forbids a direction, 0 leaves it free.
    """

    directions: NDArray[np.float64]
    damping: NDArray[np.float64]

    def __call__(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return rows @ P for `rows` (n, d)."""
        return np.asarray(rows - (rows @ self.directions.T * self.damping) @ self.directions, dtype=np.float64)


def soft(moment_rows: NDArray[np.floating], alpha: float) -> Preconditioner:
    """Return P = (I + Z / alpha)^(-1/2) for Z = moment_rows^T moment_rows, `moment_rows` (r, d); no rows give P = I."""
    energies, directions = principal_rows(moment_rows)
    return Preconditioner(directions, 1.0 - 1.0 / np.sqrt(1.0 + energies / alpha))


def hard(moment_rows: NDArray[np.floating], kept_energy: float = 1.0) -> Preconditioner:
    """Return the projector onto the complement of the leading directions that hold `kept_energy` of the trace of Z.

    With `kept_energy` 1 all directions are kept and features inside their span do not move at all.
    """
    energies, directions = principal_rows(moment_rows)
    share = np.cumsum(energies) / max(energies.sum(), np.finfo(float).tiny)
    count = len(energies) if kept_energy >= 1.0 else int(np.searchsorted(share, kept_energy)) + 1
    return Preconditioner(directions[:count], np.ones(min(count, len(energies))))


def update_space(
    new_rows: NDArray[np.floating], preconditioner: Preconditioner, size: int = MAX_DIRECTIONS
) -> NDArray[np.float32]:
    """Return N = P V_k, V_k the leading right singular vectors of X P.

    Args:
        new_rows: (r, d), any matrix with the second moment of the new features (their Frequent Directions rows).
        preconditioner: P.
        size: the most columns wanted; fewer come back when the new features do not span as many.

    Returns:
        N (d, k) float32, k <= size.
    """
    _, directions = principal_rows(preconditioner(new_rows))
    return np.ascontiguousarray(preconditioner(directions[:size]).T, dtype=np.float32)
