"""Contrastive continual learning (Co2L): what resembles what is distilled from the model before the step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from edge_cmcl.host.step import TEMPERATURE_SCALE
from edge_cmcl.host.strategies.base import Batch, Settings, Step, Stored, Strategy
from edge_cmcl.host.strategies.replay import Reservoir

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Distillation:
    """Instance-wise relation distillation of some samples.

    Attributes:
        divergence: scalar, the mean divergence of each row's similarity distribution from the past one's; 0 for an
            unchanged model.
        cross_entropy: the paper's loss per row: the divergence plus the entropy of the past, which no gradient
            sees.
    """

    divergence: Tensor
    cross_entropy: float


class Co2L(Strategy):
    """Contrast present pairs against each other and the buffer; add lambda times relation distillation over both.

    H. Cha et al., "Co2L: Contrastive Continual Learning", ICCV 2021, arXiv 2106.14413, sections 4.1 (asymmetric
    supervised contrast: buffered samples are negatives, never anchors) and 4.2 (instance-wise relation distillation).
    The two views of an image are here the two modalities of a pair. The past model is the adapters as the step begins;
    as its embeddings do not change within a step they are computed once. Both temperatures of the distillation are
    that of the loss, where the paper sharpens the past's.
    """

    name = "co2l"
    title = "Co2L"
    source = "H. Cha et al., ICCV 2021, sections 4.1 and 4.2"
    grid = {"lambda": (1.0, 0.2, 5.0)}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.buffer = Reservoir(settings.seed)
        self._past: dict[int, Pair] = {}

    def before_step(self, step: Step) -> None:
        """Embed the step and the buffer with the adapters as they are."""
        with torch.no_grad():
            self._past = {other.place: self._outputs(other) for other in (step, *self.buffer.steps.values())}

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of both terms; before anything is buffered, the loss of the batch alone."""
        memory = self.buffer.draw()
        if memory is None:
            return self.contrastive(batch)
        a, b = self.embed(batch)
        negatives = torch.cat(self.embed(memory))
        past = torch.cat([side[one.rows] for one in (batch, memory) for side in self._past[one.step.place]])
        distilled = relation_distillation(torch.cat([a, b, negatives]), past)
        return self.weighted(asymmetric_info_nce(a, b, batch.ids, negatives), distilled)

    def weighted(self, contrast: Tensor, distillation: Distillation) -> Tensor:
        """Return the weighted sum of both terms."""
        return contrast + self.own("lambda") * distillation.divergence

    def after_step(self, step: Step) -> None:
        """Offer the pairs of `step` to the buffer."""
        self._past = {}
        self.buffer.offer(step)

    def stored(self) -> Stored:
        """The buffer; the past model is the adapters themselves."""
        return self.buffer.stored()

    def _outputs(self, step: Step) -> Pair:
        a, b = (x @ self.adapters[name].T for x, name in zip(step.features, step.modalities, strict=True))
        return a, b


def asymmetric_info_nce(a: Tensor, b: Tensor, ids: Tensor, negatives: Tensor) -> Tensor:
    """Return symmetric InfoNCE of a batch whose anchors have `negatives` beside the other pairs.

    Args:
        a: (B, d) embeddings of one modality, of any norm.
        b: (B, d) of the other.
        ids: (B,) int64; rows with equal ids are positives of each other.
        negatives: (M, d) embeddings that are positive for no row.
    """
    a, b, negatives = (normalize(rows, dim=1) for rows in (a, b, negatives))
    positives = (ids[:, None] == ids[None]).to(a.dtype)
    share = positives / positives.sum(1, keepdim=True)
    total = a.new_zeros(())
    for anchors, others in ((a, b), (b, a)):
        logits = TEMPERATURE_SCALE * anchors @ torch.cat([others, negatives]).T
        total = total - (share * torch.log_softmax(logits, 1)[:, : len(ids)]).sum()
    return total / (2 * len(ids))


def relation_distillation(now: Tensor, past: Tensor) -> Distillation:
    """Return how far the similarities of samples to each other are from what they were.

    Args:
        now: (N, d) embeddings, of any norm.
        past: (N, d) embeddings of the same samples by the past model.
    """
    present, before = _relations(now), _relations(past).detach()
    cross_entropy = -(before.exp() * present).sum(1).mean()
    entropy = -(before.exp() * before).sum(1).mean()
    return Distillation(cross_entropy - entropy, float(cross_entropy.detach()))


def _relations(embeddings: Tensor) -> Tensor:
    """Return log probabilities (N, N - 1) of each row's resemblance to every other (section 4.2)."""
    unit = normalize(embeddings, dim=1)
    n = len(unit)
    # Dropping the last element of the flattened matrix and folding it into rows of N + 1 leaves the diagonal in front.
    others = (TEMPERATURE_SCALE * unit @ unit.T).flatten()[:-1].view(n - 1, n + 1)[:, 1:].reshape(n, n - 1)
    return torch.log_softmax(others, 1)
