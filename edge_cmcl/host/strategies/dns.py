"""Dual-sided null space projection (DNS) as the paper's equations have it."""

from __future__ import annotations

import torch
from torch import Tensor

from edge_cmcl.host.strategies.base import Settings, Step
from edge_cmcl.host.strategies.displacement import Displacement
from edge_cmcl.host.strategies.projector import Projector


class Dns(Displacement):
    """Change W by D - P' D P: free where either side, own features (P) or partners' embeddings (P'), is new.

    X. Liu et al., "Continual Multimodal Contrastive Learning", NeurIPS 2025, arXiv 2503.14963, section 4 (theorem 4 and
    its extension to many steps and pairs): with P onto the past features of a modality and P' onto the past embeddings
    of its partners, the change of the similarity of past pairs vanishes to first order.

    How the equations are read: they are about the change of W itself, so D is the displacement since the step began,
    projected after AdamW; one that is projected before AdamW is `dns_released`. P' is built from the embeddings that
    the present adapters give the past features of every modality that was a partner before, so that the first order
    vanishes for all past pairs however their adapters have changed since. Both sides drop directions with eigenvalues
    up to lambda_min (the paper's truncated decomposition), as a share of the trace, which for unit features is the
    paper's absolute threshold; it took 0.01 and 0.0001.
    """

    name = "dns"
    title = "DNS"
    source = "X. Liu et al., NeurIPS 2025, theorem 4"
    grid = {"lambda_min": (1e-4, 1e-3, 1e-5)}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.partner_side: dict[str, Projector] = {}
        self._partners: dict[str, set[str]] = {}

    def before_step(self, step: Step) -> None:
        """Make the projectors of both sides."""
        super().before_step(step)
        embeddings = {name: self._embedding_moment(name) for name in self.own_side}
        self.partner_side = {name: self.protected(moment) for name, moment in embeddings.items()}

    def free(self, name: str, change: Tensor) -> Tensor:
        """Return D - P' D P."""
        # P' is symmetric, so P' D is (D^T P')^T.
        return change - self.own_side[name](self.partner_side[name](change.T).T)

    def after_step(self, step: Step) -> None:
        """Remember who was whose partner, and the second moments."""
        super().after_step(step)
        a, b = step.modalities
        self._partners.setdefault(a, set()).add(b)
        self._partners.setdefault(b, set()).add(a)

    def _embedding_moment(self, name: str) -> Tensor:
        """Return the second moment (d, d) of the past embeddings of a modality's partners."""
        total = torch.zeros(self.settings.dimensions, self.settings.dimensions)
        count = 0
        for partner in sorted(self._partners[name]):
            weight, moment = self.adapters[partner].detach(), self.moments[partner]
            total += weight @ moment.total @ weight.T
            count += moment.count
        return total / count
