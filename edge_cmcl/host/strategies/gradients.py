"""Gradients of an adapter by their factors.

The loss of a batch sees an adapter W (d, width) through embeddings X W^T only, so its gradient is E^T X with E (B, d)
the gradient with respect to the embeddings. Inner products and sums of such gradients cost B^2 instead of d * width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edge_cmcl.host.step import info_nce


def embedding_gradients(a: Tensor, b: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients (B, d) of symmetric InfoNCE with respect to both embeddings `a` and `b` (B, d)."""
    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    first, second = torch.autograd.grad(info_nce(a, b[None], ids[None]), (a, b))
    return first, second


def inner_product(gram: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return <E^T X, F^T Y> from gram = X Y^T (m, n), E = `first` (m, d) and F = `second` (n, d)."""
    return (gram * (first @ second.T)).sum()


def norm(grams: Sequence[Tensor], factors: Sequence[Tensor]) -> Tensor:
    """Return the norm of a gradient over several adapters, from X X^T (B, B) and E (B, d) of each."""
    squares = [inner_product(gram, factor, factor) for gram, factor in zip(grams, factors, strict=True)]
    return torch.stack(squares).sum().clamp(min=0.0).sqrt()
