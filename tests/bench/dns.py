"""The paper's continual step in torch: dual-sided null space (DNS) projection of gradients.

Source: X. Liu et al., "Continual Multimodal Contrastive Learning", NeurIPS 2025, arXiv 2503.14963. Written after the
released code, github.com/Xiaohao-Liu/CMCL at d6c9e52: `DNS.update_gradients`, `DNS.update_covariance` and
`DNS.pre_step` in cmcl/dns.py, `get_projector` in cmcl/base.py; batch size, AdamW and its weight decay in training.py.

Where the paper and that code leave a choice, or differ, the faster way is taken here, in favour of DNS: projectors from
a symmetric eigendecomposition instead of an SVD, AdamW in torch's fused form, no biases, no gradient clipping, no
Trainer around the loop. The loss is symmetric, as in the paper; the code has one direction only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

BATCH_SIZE = 64
WEIGHT_DECAY = 1e-3
LAMBDA_MIN = 1e-2
"""Directions of a modality's past features with a larger eigenvalue are protected (the code's default is 0.1)."""

LOGIT_SCALE = 20.0
"""Inverse temperature of cosine similarities, as in the product, so that both sides optimise the same loss."""


@dataclass(frozen=True)
class Projectors:
    """Projectors of one modality's gradient (d, width), dense as in the released code.

    Attributes:
        left: P' (d, d) onto the range of its partners' past embeddings.
        right: P (width, width) onto the range of its own past features.
    """

    left: Tensor
    right: Tensor


def range_projector(moment: Tensor, lambda_min: float) -> Tensor:
    """Return the projector onto the eigenvectors of `moment` (m, m) with an eigenvalue above `lambda_min`."""
    energies, directions = torch.linalg.eigh(moment)
    kept = directions[:, energies > lambda_min]
    return kept @ kept.T


def projectors(features: Tensor, partner_features: Tensor, partner_weight: Tensor) -> Projectors:
    """Return the projectors of a modality from what it and its partner have seen before.

    Args:
        features: (n, width) past features of the modality.
        partner_features: (m, width') past features of its partner.
        partner_weight: (d, width') adapter of the partner.
    """
    embeddings = partner_features @ partner_weight.T
    return Projectors(
        range_projector(embeddings.T @ embeddings / len(embeddings), 0.0),
        range_projector(features.T @ features / len(features), LAMBDA_MIN),
    )


class Dns:
    """Trains the adapters of two modalities on one step of the stream.

    Args:
        weights: (d, width) float32 per modality, trained in place.
        guards: projectors per modality; None for one that has learned nothing before, whose gradient is free.
        learning_rate: of AdamW.
    """

    def __init__(self, weights: Sequence[Tensor], guards: Sequence[Projectors | None], *, learning_rate: float) -> None:
        self.weights = [weight.requires_grad_() for weight in weights]
        self._guards = guards
        self._optimizer = torch.optim.AdamW(self.weights, lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)

    def step(self, a: Tensor, b: Tensor) -> None:
        """Do one step on a batch: row i of `a` (B, width) and `b` (B, width') are the same moment."""
        left, right = (normalize(x @ w.T, dim=1) for x, w in zip((a, b), self.weights, strict=True))
        logits = LOGIT_SCALE * left @ right.T
        target = torch.arange(len(a))
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        self._optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight, guard in zip(self.weights, self._guards, strict=True):
                if guard is not None and weight.grad is not None:
                    weight.grad -= guard.left @ weight.grad @ guard.right
        self._optimizer.step()

    def set_learning_rate(self, rate: float) -> None:
        """Change the learning rate for the steps to come."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
