from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_stream import SMALL, toy_step

from edge_cmcl.host.strategies import gem as gem_module
from edge_cmcl.host.strategies.base import Batch, batch_of
from edge_cmcl.host.strategies.gem import Gem, dual
from edge_cmcl.host.strategies.vanilla import Vanilla


def repaired(past: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    return gradient + past.T @ dual(past @ past.T, past @ gradient)


def test_a_violated_constraint_is_repaired_to_a_zero_inner_product() -> None:
    past, gradient = np.array([[1.0, 0.0, 0.0]]), np.array([-2.0, 1.0, 3.0])
    assert repaired(past, gradient) == pytest.approx([0.0, 1.0, 3.0])


def test_a_satisfied_constraint_is_left_alone() -> None:
    past, gradient = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([2.0, 1.0])
    assert repaired(past, gradient) == pytest.approx(gradient)


def test_of_two_constraints_the_closest_gradient_that_satisfies_both_is_found() -> None:
    # Repairing the second alone gives (-1, 1), which violates the first; the closest point of the cone is the origin.
    past, gradient = np.array([[1.0, 0.0], [-1.0, -1.0]]), np.array([-2.0, 3.0])
    found = repaired(past, gradient)
    assert (past @ found >= -1e-6).all()
    assert found == pytest.approx([0.0, 0.0], abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_dual_solution_meets_the_conditions_of_optimality(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    past, gradient = random.standard_normal((count, 9)), random.standard_normal(9)
    v = dual(past @ past.T, past @ gradient)
    slack = past @ (gradient + past.T @ v)
    assert (v >= 0.0).all()
    assert (slack >= -1e-4).all()
    assert abs(float(v @ slack)) < 1e-4


def test_a_past_step_with_no_gradient_has_no_part() -> None:
    past, gradient = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([-1.0, 1.0])
    assert repaired(past, gradient) == pytest.approx([0.0, 1.0])


def flat(strategy: Gem | Vanilla) -> torch.Tensor:
    grads = [strategy.adapters[name].grad for name in sorted(strategy.adapters)]
    parts = [torch.zeros_like(w) if g is None else g for g, w in zip(grads, _weights(strategy), strict=True)]
    return torch.cat([part.flatten() for part in parts])


def _weights(strategy: Gem | Vanilla) -> list[torch.Tensor]:
    return [strategy.adapters[name] for name in sorted(strategy.adapters)]


def after_two_steps(monkeypatch: pytest.MonkeyPatch, margin: float = 0.0) -> tuple[Gem, list[Batch]]:
    """A learner that rehearses its whole memory, and both its past steps as they are in the memory."""
    monkeypatch.setattr(gem_module, "REHEARSED_PAIRS", 1000)
    strategy = Gem(SMALL.with_(margin=margin, epochs=10, learning_rate=1e-2))
    strategy.learn(toy_step(0))
    strategy.learn(toy_step(1, "acc", "emg"))
    return strategy, [batch_of(step, torch.arange(len(step))) for step in strategy.buffer.steps.values()]


def gradient_of(strategy: Gem, batch: Batch) -> torch.Tensor:
    for weight in strategy.adapters.values():
        weight.grad = None
    strategy.contrastive(batch).backward()  # type: ignore[no-untyped-call]
    return flat(strategy)


def opposite(step_batch: Batch) -> Batch:
    """The same recordings paired wrongly: learning them unlearns the step."""
    a, b = step_batch.features
    return Batch(step_batch.step, (a, b.roll(1, 0)), step_batch.ids, step_batch.rows)


def test_the_gradient_of_a_batch_that_unlearns_a_step_is_repaired_over_all_adapters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strategy, past = after_two_steps(monkeypatch)
    harmful = opposite(past[0])
    plain, steps = gradient_of(strategy, harmful), [gradient_of(strategy, batch) for batch in past]
    assert float(plain @ steps[0]) < 0.0
    for weight in strategy.adapters.values():
        weight.grad = None
    strategy.backward(harmful)
    used = flat(strategy)
    norms = [float(used.norm() * step.norm()) for step in steps]
    assert float(used @ steps[0]) == pytest.approx(0.0, abs=1e-4 * norms[0])
    assert all(float(used @ step) > -1e-4 * norm for step, norm in zip(steps, norms, strict=True))


def test_the_gradient_of_a_harmless_batch_is_that_of_vanilla(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gem_module, "REHEARSED_PAIRS", 1000)
    strategy = Gem(SMALL.with_(margin=0.5))
    strategy.learn(toy_step(0))
    rehearsed = batch_of(strategy.buffer.steps[0], torch.arange(70))
    plain = gradient_of(strategy, rehearsed)
    for weight in strategy.adapters.values():
        weight.grad = None
    strategy.backward(rehearsed)
    assert torch.allclose(flat(strategy), plain, atol=1e-6)


def test_a_margin_pushes_beyond_the_constraint(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, past = after_two_steps(monkeypatch, margin=0.5)
    step = gradient_of(strategy, past[0])
    for weight in strategy.adapters.values():
        weight.grad = None
    strategy.backward(opposite(past[0]))
    assert float(flat(strategy) @ step) > 0.1 * float(step @ step)
