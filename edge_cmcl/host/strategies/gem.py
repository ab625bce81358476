"""Gradient episodic memory: a step may not, to first order, raise the loss of any step before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_cmcl.host.strategies.base import Batch, Settings, Step, Stored, Strategy
from edge_cmcl.host.strategies.gradients import embedding_gradients, inner_product
from edge_cmcl.host.strategies.replay import Reservoir

REHEARSED_PAIRS = 32
"""Pairs of each past step, drawn anew for every batch, that its gradient is taken of."""


@dataclass(frozen=True)
class Gradient:
    """The gradient E^T X of a batch with respect to both its adapters, by factors (see `gradients`)."""

    batch: Batch
    factors: tuple[Tensor, Tensor]

    def __matmul__(self, other: Gradient) -> float:
        """Return the inner product with another gradient over all adapters."""
        total = 0.0
        for name, x, e in zip(self.batch.modalities, self.batch.features, self.factors, strict=True):
            for place, same in enumerate(other.batch.modalities):
                if same == name:
                    total += float(inner_product(x @ other.batch.features[place].T, e, other.factors[place]))
        return total


class Gem(Strategy):
    """Use the gradient closest to the batch's that has no negative inner product with any past step's.

    D. Lopez-Paz and M. Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, equation 11 (the dual
    of the projection, a small quadratic program) and algorithm 1, with the margin gamma added to the dual's solution,
    which favours past steps. With the past gradients in the rows of G, g + G^T (v + gamma) is used where a
    constraint is violated, and g where none is. The paper takes past gradients over the whole memory; a random part of
    it, new for every batch, stands for it here. A past step that shares no modality with the batch cannot be violated
    by it; its gradient is computed only when another step's constraint is, because the repair might violate it.
    """

    name = "gem"
    title = "GEM"
    source = "D. Lopez-Paz and M. Ranzato, NeurIPS 2017, equation 11"
    grid = {"margin": (0.5, 0.0, 1.0)}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.buffer = Reservoir(settings.seed)

    def backward(self, batch: Batch) -> None:
        """Leave the repaired gradient in the adapters' `grad`."""
        gradient = self._gradient(batch)
        self._add(gradient, 1.0)
        related = {p for p, step in self.buffer.steps.items() if set(step.modalities) & set(batch.modalities)}
        past = self._past(related)
        if all(one @ gradient >= 0.0 for one in past.values()):
            return
        past |= self._past(set(self.buffer.steps) - related)
        gradients = list(past.values())
        products = np.array([one @ gradient for one in gradients])
        multipliers = dual(np.array([[one @ two for two in gradients] for one in gradients]), products)
        for one, multiplier in zip(gradients, multipliers + self.own("margin"), strict=True):
            self._add(one, float(multiplier))

    def after_step(self, step: Step) -> None:
        """Offer the pairs of `step` to the buffer."""
        self.buffer.offer(step)

    def stored(self) -> Stored:
        """The buffer."""
        return self.buffer.stored()

    def _past(self, places: set[int]) -> dict[int, Gradient]:
        drawn = {place: self.buffer.draw(place, REHEARSED_PAIRS) for place in sorted(places)}
        return {place: self._gradient(batch) for place, batch in drawn.items() if batch is not None}

    def _gradient(self, batch: Batch) -> Gradient:
        with torch.no_grad():
            embeddings = self.embed(batch)
        return Gradient(batch, embedding_gradients(*embeddings, batch.ids))

    def _add(self, gradient: Gradient, multiplier: float) -> None:
        batch = gradient.batch
        for name, features, factors in zip(batch.modalities, batch.features, gradient.factors, strict=True):
            weight, part = self.adapters[name], (multiplier * factors).T @ features
            weight.grad = part if weight.grad is None else weight.grad + part


def dual(gram: NDArray[np.float64], products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the v >= 0 that minimises v^T G G^T v / 2 + (G g)^T v (equation 11).

    With G G^T = R^T R it is the non-negative least squares problem of R v = -R^-T G g.

    Args:
        gram: G G^T, (k, k), inner products of past gradients.
        products: G g, (k,), their inner products with the present gradient.
    """
    from scipy.optimize import nnls

    energies, directions = np.linalg.eigh(gram)
    # Inner products are float32: what is smaller is rounding.
    roots = np.sqrt(np.maximum(energies, max(energies[-1], np.finfo(float).tiny) * 1e-6))
    solution, _ = nnls(roots[:, None] * directions.T, -(directions.T @ products) / roots)
    return np.asarray(solution, np.float64)
