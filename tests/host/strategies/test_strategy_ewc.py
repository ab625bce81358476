from __future__ import annotations

import pytest
import torch
from toy_stream import SMALL, toy_step

from edge_cmcl.host.strategies.base import batch_of
from edge_cmcl.host.strategies.ewc import Ewc, Importance


def value(scalar: torch.Tensor) -> float:
    return float(scalar.detach())


def test_the_penalty_of_two_steps_is_the_sum_computed_by_hand() -> None:
    zero = torch.zeros(1, 3)
    importance = Importance(zero, torch.tensor([[9.0, 9.0, 9.0]]))
    importance.add(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0, 0.0, 5.0]]))
    importance.add(torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[-1.0, 4.0, 7.0]]))
    weight = torch.tensor([[2.0, 3.0, 100.0]], requires_grad=True)
    # Step 1: (1 * 1^2 + 2 * 3^2) / 2 = 9.5; step 2: 3 * 3^2 / 2 = 13.5; the third weight matters to neither.
    penalty = importance.penalty(weight)
    assert float(penalty.detach()) == pytest.approx(23.0)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0 * 1.0 + 3.0 * 3.0, 2.0 * 3.0, 0.0]]


def test_the_fisher_information_of_one_batch_is_its_squared_gradient() -> None:
    step = toy_step(0, n=50)
    strategy = Ewc(SMALL)
    strategy.add_adapters(step)
    strategy.contrastive(batch_of(step, torch.arange(50))).backward()  # type: ignore[no-untyped-call]
    for name, fisher in zip(step.modalities, strategy.fisher(step), strict=True):
        gradient = strategy.adapters[name].grad
        assert gradient is not None
        assert torch.allclose(fisher, gradient.square(), rtol=1e-3, atol=1e-9)


def test_the_loss_right_after_a_step_has_no_penalty_and_later_lambda_times_it() -> None:
    step = toy_step(0, n=50)
    strategy = Ewc(SMALL.with_(**{"lambda": 1e4}))
    strategy.learn(step)
    batch = batch_of(step, torch.arange(50))
    assert value(strategy.loss(batch)) == pytest.approx(value(strategy.contrastive(batch)))
    with torch.no_grad():
        strategy.adapters["acc"] += 0.01
    fisher = strategy.importances["acc"].fisher
    expected = value(strategy.contrastive(batch)) + 1e4 * 0.5 * 0.01**2 * float(fisher.sum())
    assert value(strategy.loss(batch)) == pytest.approx(expected, rel=1e-4)


def test_a_large_lambda_holds_the_adapters() -> None:
    moved = []
    for weight in (0.0, 1e9):
        strategy = Ewc(SMALL.with_(**{"lambda": weight}, epochs=10))
        strategy.learn(toy_step(0))
        before = strategy.adapters["acc"].detach().clone()
        strategy.learn(toy_step(1))
        importance = strategy.importances["acc"].fisher
        moved.append(value((importance * (strategy.adapters["acc"] - before).square()).sum()))
    assert moved[1] < 0.5 * moved[0]


def test_importances_take_two_matrices_per_modality_however_many_steps() -> None:
    strategy = Ewc(SMALL)
    sizes = []
    for place in range(3):
        strategy.learn(toy_step(place))
        sizes.append(strategy.stored().bytes)
    assert sizes == [2 * 8 * (24 + 20) * 4] * 3
