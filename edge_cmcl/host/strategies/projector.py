"""Orthogonal projectors onto what was seen before, multiplied by low-rank factors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Projector:
    """The orthogonal projector P = V V^T, or I - V V^T where that takes fewer columns.

    Attributes:
        columns: V, (m, r) float32 with orthonormal columns, r <= m / 2.
        complement: whether P = I - V V^T.
    """

    columns: Tensor
    complement: bool

    def __call__(self, rows: Tensor) -> Tensor:
        """Return rows @ P for `rows` (n, m)."""
        along = (rows @ self.columns) @ self.columns.T
        return rows - along if self.complement else along


def projector(directions: Tensor, kept: Tensor) -> Projector:
    """Return the projector onto some of a whole orthonormal basis.

    Args:
        directions: (m, m), a basis in its columns.
        kept: (m,) bool, the columns to project onto.
    """
    complement = 2 * int(kept.sum()) > len(kept)
    return Projector(directions[:, ~kept if complement else kept].contiguous(), complement)


def range_projector(moment: Tensor, threshold: float) -> Projector:
    """Return the projector onto the eigenvectors of `moment` (m, m), symmetric, with an eigenvalue > `threshold`."""
    try:
        energies, directions = torch.linalg.eigh(moment)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        # In single precision LAPACK may not converge where most eigenvalues are equal: the moment of a few labels.
        exact = torch.linalg.eigh(moment.double())
        energies, directions = exact.eigenvalues.to(moment.dtype), exact.eigenvectors.to(moment.dtype)
    return projector(directions, energies > threshold)


class Moment:
    """The uncentred second moment of all features seen so far, every sample with the same weight.

    Attributes:
        total: (m, m) float32, the sum of x x^T.
        count: number of samples.
    """

    def __init__(self, width: int) -> None:
        self.total = torch.zeros(width, width)
        self.count = 0

    def add(self, features: Tensor) -> None:
        """Add `features` (n, m)."""
        self.total += features.T @ features
        self.count += len(features)

    def mean(self) -> Tensor:
        """Return the second moment (m, m)."""
        return self.total / self.count
