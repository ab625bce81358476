"""Dark experience replay: buffered pairs keep the embeddings that they had."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from edge_cmcl.host.strategies.base import Batch, Settings, Step, Stored, Strategy
from edge_cmcl.host.strategies.replay import Reservoir


class Der(Strategy):
    """Add alpha times the squared distance of buffered pairs' outputs from their stored outputs.

    P. Buzzega et al., "Dark Experience for General Continual Learning: a Strong, Simple Baseline", NeurIPS 2020, arXiv
    2004.07211, section 3: the loss of the current batch plus alpha E |z - h(x)|^2 over the buffer. Where a classifier
    has logits z, an adapter has embeddings: the stored output of a pair is both its unit embeddings, from which every
    similarity follows; a row of similarities would need the features of all the pairs that it compares with. A pair is
    stored when its step is learned, with the outputs that it has then: the paper stores them along the trajectory of
    a stream that passes once, but early outputs of a stream with epochs are those of an adapter that knows little.
    """

    name = "der"
    title = "DER"
    source = "P. Buzzega et al., NeurIPS 2020, section 3 (DER)"
    grid = {"alpha": (3.0, 1.0, 10.0)}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.buffer = Reservoir(settings.seed)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the batch and of a batch out of the buffer."""
        loss = self.contrastive(batch)
        memory = self.buffer.draw()
        if memory is None:
            return loss
        return loss + self.replay(memory, *self.embed(memory))

    def replay(self, memory: Batch, a: Tensor, b: Tensor) -> Tensor:
        """Return the loss of buffered pairs from their embeddings `a` and `b` (B, d) as they are now."""
        stored = self.buffer.outputs[memory.step.place]
        return self.own("alpha") * output_distance((a, b), (stored[0][memory.rows], stored[1][memory.rows]))

    def after_step(self, step: Step) -> None:
        """Offer the pairs of `step` to the buffer, with their outputs."""
        with torch.no_grad():
            weights = [self.adapters[name] for name in step.modalities]
            outputs = [normalize(x @ w.T, dim=1) for x, w in zip(step.features, weights, strict=True)]
        self.buffer.offer(step, outputs)

    def stored(self) -> Stored:
        """The buffer."""
        return self.buffer.stored()


def output_distance(embeddings: tuple[Tensor, Tensor], outputs: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean over pairs of the squared distance of their unit embeddings from stored ones.

    Args:
        embeddings: (B, d) of both modalities, of any norm.
        outputs: (B, d) of both modalities, of unit norm.
    """
    both = zip(embeddings, outputs, strict=True)
    return torch.stack([(normalize(now, dim=1) - then).square().sum(1).mean() for now, then in both]).sum()
