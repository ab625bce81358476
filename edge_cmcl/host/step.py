"""The training step, written once in torch, and exported as the plain ONNX graph that devices run.

One step aligns an anchor modality (index 0, the new sensor) with S partners (1 to S) at once. Every modality's
embedding is e = e0 + M y, with e0 = W x and y = N^T x computed before training, so a step costs B * d * k
(design.md section 2, step 3). The loss is the sum over partners of symmetric InfoNCE on cosine similarity.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad_and_value

TEMPERATURE_SCALE = 20.0
BETA1, BETA2 = 0.9, 0.999
EPSILON = 1e-7
"""Not AdamW's usual 1e-8: onnxscript's optimiser takes constants up to 1e-8 for zero and drops the addition."""
WEIGHT_DECAY = 0.2
"""Pulls M back to zero, and so the adapter back to what it was. Measured on validation parts: halves forgetting."""

Step = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


def info_nce(a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    """Return symmetric InfoNCE of the CMCL paper (equation 1) with several positives per row.

    Args:
        a: (B, d) embeddings of the anchor, of any norm.
        b: (S, B, d) embeddings of the partners, of any norm.
        ids: (S, B) int64; rows with equal ids are positives of each other, -1 marks a row without that partner.

    Returns:
        The sum over partners of the mean over present rows and both directions, a scalar.
    """
    logits = TEMPERATURE_SCALE * torch.matmul(_unit(a), _unit(b).transpose(1, 2))
    present = (ids >= 0).to(logits.dtype)
    both = present[:, :, None] * present[:, None, :]
    positives = (ids[:, :, None] == ids[:, None, :]).to(logits.dtype) * both
    share = positives / positives.sum(2, keepdim=True).clamp(min=1.0)
    masked = logits + (both - 1.0) * 1e4
    # Positives are symmetric, so the share of a column is the transposed share of a row.
    likelihood = share * torch.log_softmax(masked, 2) + share.transpose(1, 2) * torch.log_softmax(masked, 1)
    return (-likelihood.sum((1, 2)) / (2.0 * present.sum(1).clamp(min=1.0))).sum()


def training_step(
    changes: Tensor,
    first: Tensor,
    second: Tensor,
    base: Tensor,
    inputs: Tensor,
    ids: Tensor,
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Do one step of AdamW with one second moment per row of M, on the changes M of all 1 + S modalities.

    AdamW (I. Loshchilov and F. Hutter, ICLR 2019) divides each number of the gradient by its own size. That would undo
    the update space: columns of N^T x that are small because they are protected, or mere noise, would move M as much as
    all others. One divisor per output, as in Adam-mini (Y. Zhang et al., ICLR 2025), leaves the gradient's direction
    within a row alone; the divisor is its norm, so that unused columns do not matter.

    Weight decay keeps what was learned where the sketches do not see it. With N = P V, V orthonormal and
    P = (I + Z / alpha)^(-1/2), the adapter changes by D = M N^T, and |M|_F^2 = tr(D Z D^T) / alpha + |D|_F^2: how far
    the learned features move, and features of which nothing is known, such as those of another wearer.

    Args:
        changes: (1 + S, d, k) float32, M of the anchor and of each partner.
        first: (1 + S, d, k) float32, first moment of the gradient, zero before the first step.
        second: (1 + S, d) float32, running mean of the squared norm of each row of the gradient.
        base: (1 + S, B, d) float32, embeddings e0 = W x before the update.
        inputs: (1 + S, B, k) float32, y = N^T x.
        ids: (S, B) int64, as in `info_nce`.
        rate: () float32, the learning rate of this step.
        count: () float32, the number of this step, from 1.

    Returns:
        changes, first and second after the step, and the loss () before it.
    """

    def loss_of(m: Tensor) -> Tensor:
        embeddings = base + torch.bmm(inputs, m.transpose(1, 2))
        return info_nce(embeddings[0], embeddings[1:], ids)

    gradient, loss = grad_and_value(loss_of)(changes)
    first = BETA1 * first + (1.0 - BETA1) * gradient
    second = BETA2 * second + (1.0 - BETA2) * (gradient * gradient).sum(2)
    size = rate / (1.0 - BETA1**count)
    denominator = second.sqrt() / (1.0 - BETA2**count).sqrt() + EPSILON
    changes = changes * (1.0 - rate * WEIGHT_DECAY) - size * (first / denominator[:, :, None])
    return changes, first, second, loss


def _unit(embeddings: Tensor) -> Tensor:
    norms: Tensor = embeddings.norm(dim=-1, keepdim=True)
    return embeddings / (norms + EPSILON)
