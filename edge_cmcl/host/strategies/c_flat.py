"""C-Flat: descend towards weights around which loss and gradient stay low."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edge_cmcl.host.strategies.base import Batch, Strategy
from edge_cmcl.host.strategies.gradients import embedding_gradients, norm

TINY = 1e-12


class CFlat(Strategy):
    """Use the gradient of zeroth-order plus lambda times first-order sharpness instead of that of the loss.

    A. Bian et al., "Make Continual Learning Stronger via C-Flat", NeurIPS 2024, algorithm 1, and its released code
    (github.com/WanNaa/C-Flat, `C_Flat.step`). With gradients g0 at w, g1 at w + rho g0 / |g0| and h = g1 - g0:

        g2 at v = w + rho h / |h|,   g3 at v + rho g2 / |g2|,   the gradient used is g1 + lambda (g3 - g2)

    g1 belongs to the worst loss within rho of w, g3 - g2 to the worst gradient norm times rho. lambda is the released
    code's 0.2. It is applied to plain fine-tuning. All of these perturbations lie in the span of the batch, so that
    the four gradients are taken in embedding space (see `gradients`): mathematically the same, and hardly dearer than
    one.
    """

    name = "c_flat"
    title = "C-Flat"
    source = "A. Bian et al., NeurIPS 2024, algorithm 1"
    grid = {"rho": (0.2, 0.05, 1.0), "lambda": (0.2,)}  # noqa: RUF012

    def backward(self, batch: Batch) -> None:
        """Leave the gradient of the flatness objective in the adapters' `grad`."""
        with torch.no_grad():
            grams = [features @ features.T for features in batch.features]
            base = self.embed(batch)
        rho = self.own("rho")
        g0 = embedding_gradients(*base, batch.ids)
        g1 = embedding_gradients(*_moved(base, grams, rho, g0), batch.ids)
        aside = _moved(base, grams, rho, [one - zero for one, zero in zip(g1, g0, strict=True)])
        g2 = embedding_gradients(*aside, batch.ids)
        g3 = embedding_gradients(*_moved(aside, grams, rho, g2), batch.ids)
        for name, features, one, two, three in zip(batch.modalities, batch.features, g1, g2, g3, strict=True):
            self.adapters[name].grad = (one + self.own("lambda") * (three - two)).T @ features


def _moved(
    embeddings: Sequence[Tensor], grams: Sequence[Tensor], rho: float, factors: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the embeddings (B, d) after all adapters together moved by `rho` along the gradient with `factors`."""
    step = rho / (norm(grams, factors) + TINY)
    a, b = (x + step * (gram @ factor) for x, gram, factor in zip(embeddings, grams, factors, strict=True))
    return a, b
