"""Elastic weight consolidation: weights that mattered before are held where they were."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edge_cmcl.host.strategies.base import Batch, Settings, Step, Stored, Strategy, batch_of, epoch_rows, tensor_bytes


@dataclass
class Importance:
    """The sum over past steps k of F_k (w - w_k)^2 / 2, which is F (w - centre)^2 / 2 + constant, kept in one.

    Attributes:
        fisher: F, (d, width) float32, the sum of all F_k.
        centre: (d, width) float32, the mean of all w_k weighted with F_k.
        constant: what the sum has at `centre`; it has no gradient.
    """

    fisher: Tensor
    centre: Tensor
    constant: float = 0.0

    def add(self, fisher: Tensor, weight: Tensor) -> None:
        """Add a step: `fisher` and `weight`, both (d, width)."""
        total = self.fisher + fisher
        share = torch.where(total > 0.0, fisher / total, torch.zeros(()))
        change = weight - self.centre
        self.constant += 0.5 * float((self.fisher * share * change.square()).sum())
        self.centre = self.centre + share * change
        self.fisher = total

    def penalty(self, weight: Tensor) -> Tensor:
        """Return the sum at `weight` (d, width), a scalar."""
        return 0.5 * (self.fisher * (weight - self.centre).square()).sum() + self.constant


class Ewc(Strategy):
    """Add lambda times the sum over past steps k and weights i of F_k,i (w_i - w_k,i)^2 / 2 to the loss.

    J. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114(13), 2017, equation 3, with
    a penalty per past step. F is the diagonal of the empirical Fisher information: after a step, the mean over the
    batches of one epoch of the squared gradient of the batch's loss. InfoNCE is a likelihood of a batch, not of a
    sample, so a batch is what the square is taken of. Only adapters of the present step are held, because no gradient
    moves the others.
    """

    name = "ewc"
    title = "EWC"
    source = "J. Kirkpatrick et al., PNAS 2017, equation 3"
    grid = {"lambda": (1e7, 1e6, 1e8)}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.importances: dict[str, Importance] = {}

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the batch and the penalty."""
        loss = self.contrastive(batch)
        for name in batch.modalities:
            if name in self.importances:
                loss = loss + self.own("lambda") * self.importances[name].penalty(self.adapters[name])
        return loss

    def after_step(self, step: Step) -> None:
        """Add the Fisher information of `step`."""
        for name, fisher in zip(step.modalities, self.fisher(step), strict=True):
            weight = self.adapters[name].detach()
            blank = Importance(torch.zeros_like(weight), weight.clone())
            self.importances.setdefault(name, blank).add(fisher, weight)

    def fisher(self, step: Step) -> tuple[Tensor, Tensor]:
        """Return the diagonal Fisher information (d, width) of both adapters on `step`."""
        weights = [self.adapters[name] for name in step.modalities]
        totals = [torch.zeros_like(weight) for weight in weights]
        # A generator of its own leaves the batches of later steps as every other strategy has them.
        batches = epoch_rows(step, torch.Generator().manual_seed(self.settings.seed))
        for rows in batches:
            gradients = torch.autograd.grad(self.contrastive(batch_of(step, rows)), weights)
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient.square() / len(batches)
        return totals[0], totals[1]

    def stored(self) -> Stored:
        """Fisher information and centre per adapter."""
        kept = self.importances.values()
        return Stored(tensor_bytes(tensor for one in kept for tensor in (one.fisher, one.centre)))
