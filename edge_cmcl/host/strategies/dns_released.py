"""Dual-sided null space projection (DNS) as the paper's released code has it."""

from __future__ import annotations

import torch
from torch import Tensor

from edge_cmcl.host.strategies.base import Batch, Settings, Step, Stored, Strategy, tensor_bytes
from edge_cmcl.host.strategies.projector import Projector, projector, range_projector


class DnsReleased(Strategy):
    """Replace the gradient G by G - P' G P before AdamW.

    Written after github.com/Xiaohao-Liu/CMCL at d6c9e52: `DNS.pre_step`, `DNS.update_covariance` and
    `DNS.update_gradients` in cmcl/dns.py, `get_projector` in cmcl/base.py. What it does beside or against the paper is
    kept: the projection comes before AdamW, whose scaling of elements and weight decay leave the null space again;
    P takes singular values above the absolute `lambda_min`; P' takes those above 0, all of them up to rounding, and so
    is the identity; second moments are averaged with one count of all samples of the whole stream, but shrunk
    only when their modality takes part; partners' embeddings are those at the time they were learned.

    Not kept: that its second moments are of the first two columns of a data set whichever modalities the step has
    (`post_step` on `FeatureDataset.features`), biases, and that its loss has one direction only.
    """

    name = "dns_released"
    title = "DNS (released code)"
    source = "github.com/Xiaohao-Liu/CMCL at d6c9e52, cmcl/dns.py"
    grid = {"lambda_min": (1e-4, 1e-3, 3e-5)}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.features: dict[str, Tensor] = {}
        self.partner_embeddings: dict[str, Tensor] = {}
        self.sides: dict[str, tuple[Projector, Projector]] = {}
        self._seen = 0

    def before_step(self, step: Step) -> None:
        """Make the projectors of the modalities of `step` that have learned before."""
        self.sides = {}
        for name in step.modalities:
            if name in self.features:
                own = range_projector(self.features[name], self.own("lambda_min"))
                left, energies, _ = torch.linalg.svd(self.partner_embeddings[name])
                self.sides[name] = projector(left, energies > 0.0), own

    def before_optimizer(self, batch: Batch) -> None:
        """Project the gradients."""
        for name, (partner_side, own_side) in self.sides.items():
            gradient = self.adapters[name].grad
            assert gradient is not None
            gradient -= own_side(partner_side(gradient.T).T)

    def after_step(self, step: Step) -> None:
        """Average the step into the second moments of both modalities."""
        before, self._seen = self._seen, self._seen + len(step)
        parts = [features.T @ features / self._seen for features in step.features]
        for name, partner, own, other in zip(step.modalities, step.modalities[::-1], parts, parts[::-1], strict=True):
            weight = self.adapters[partner].detach()
            _average(self.features, name, own, before / self._seen)
            _average(self.partner_embeddings, name, weight @ other @ weight.T, before / self._seen)

    def stored(self) -> Stored:
        """Two dense second moments per modality."""
        return Stored(tensor_bytes([*self.features.values(), *self.partner_embeddings.values()]))


def _average(moments: dict[str, Tensor], name: str, part: Tensor, shrink: float) -> None:
    moments[name] = moments[name] * shrink + part if name in moments else part
