from __future__ import annotations

import pytest
import torch
from toy_stream import SMALL, toy_step

from edge_cmcl.host.strategies.base import Batch, batch_of
from edge_cmcl.host.strategies.c_flat import CFlat


def ready(rho: float, weight: float = 0.2) -> tuple[CFlat, Batch]:
    strategy = CFlat(SMALL.with_(rho=rho, **{"lambda": weight}))
    step = toy_step(0)
    strategy.add_adapters(step)
    return strategy, batch_of(step, torch.arange(64))


def at(strategy: CFlat, batch: Batch, moves: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the gradients at the weights plus `moves`, by plain autograd in weight space."""
    weights = [strategy.adapters[name].detach() + move for name, move in zip(batch.modalities, moves, strict=True)]
    leaves = {name: weight.requires_grad_() for name, weight in zip(batch.modalities, weights, strict=True)}
    return list(torch.autograd.grad(strategy.contrastive(batch, leaves), list(leaves.values())))


def along(gradients: list[torch.Tensor], rho: float) -> list[torch.Tensor]:
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    return [rho * gradient / norm for gradient in gradients]


def used(strategy: CFlat, batch: Batch) -> list[torch.Tensor]:
    strategy.backward(batch)
    gradients = [strategy.adapters[name].grad for name in batch.modalities]
    return [gradient for gradient in gradients if gradient is not None]


def test_at_rho_zero_the_gradient_is_that_of_vanilla() -> None:
    strategy, batch = ready(rho=0.0)
    zero = [torch.zeros_like(strategy.adapters[name]) for name in batch.modalities]
    for one, two in zip(used(strategy, batch), at(strategy, batch, zero), strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("rho", [0.05, 1.0])
def test_the_gradient_is_that_of_the_four_perturbations_in_weight_space(rho: float) -> None:
    strategy, batch = ready(rho, weight=0.7)
    g0 = at(strategy, batch, [torch.zeros_like(strategy.adapters[name]) for name in batch.modalities])
    g1 = at(strategy, batch, along(g0, rho))
    aside = along([one - zero for one, zero in zip(g1, g0, strict=True)], rho)
    g2 = at(strategy, batch, aside)
    g3 = at(strategy, batch, [one + two for one, two in zip(aside, along(g2, rho), strict=True)])
    expected = [one + 0.7 * (three - two) for one, two, three in zip(g1, g2, g3, strict=True)]
    for found, wanted in zip(used(strategy, batch), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()) + 1e-6)


def test_the_first_perturbation_raises_the_loss() -> None:
    strategy, batch = ready(rho=0.5)
    zero = [torch.zeros_like(strategy.adapters[name]) for name in batch.modalities]
    moves = along(at(strategy, batch, zero), 0.5)
    with torch.no_grad():
        moved = {n: strategy.adapters[n] + m for n, m in zip(batch.modalities, moves, strict=True)}
        assert float(strategy.contrastive(batch, moved)) > float(strategy.contrastive(batch))
