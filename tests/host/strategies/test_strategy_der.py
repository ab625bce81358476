from __future__ import annotations

import pytest
import torch
from toy_stream import SMALL, toy_step

from edge_cmcl.host.strategies.base import batch_of
from edge_cmcl.host.strategies.der import Der, output_distance
from edge_cmcl.host.strategies.derpp import DerPlusPlus


def test_the_output_term_is_the_mean_squared_distance_of_both_unit_embeddings() -> None:
    a, b = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 5.0], [4.0, 0.0]])
    stored = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    # a: squared distances 2 and 0; b: 0 and 2.
    assert float(output_distance((a, b), (stored, stored))) == pytest.approx(2.0)


def replayed(strategy: Der) -> tuple[float, float]:
    """Return the loss of a batch that is all of the buffer, and its contrastive part."""
    step = strategy.buffer.steps[0]
    memory = batch_of(step, torch.arange(len(step)))
    with torch.no_grad():
        return float(strategy.replay(memory, *strategy.embed(memory))), float(strategy.contrastive(memory))


def test_buffered_pairs_whose_outputs_did_not_change_cost_nothing() -> None:
    strategy = Der(SMALL)
    strategy.learn(toy_step(0))
    assert replayed(strategy)[0] == pytest.approx(0.0, abs=1e-9)


def test_opposite_outputs_cost_alpha_times_eight() -> None:
    strategy = Der(SMALL.with_(alpha=3.0))
    strategy.learn(toy_step(0))
    with torch.no_grad():
        for weight in strategy.adapters.values():
            weight.neg_()
    # Unit vectors and their opposites are 2 apart, on both sides.
    assert replayed(strategy)[0] == pytest.approx(3.0 * 8.0, rel=1e-5)


def test_outputs_are_those_of_when_the_step_was_learned() -> None:
    strategy = Der(SMALL.with_(epochs=10, learning_rate=1e-2))
    step = toy_step(0)
    strategy.learn(step)
    then = {name: weight.detach().clone() for name, weight in strategy.adapters.items()}
    strategy.learn(toy_step(1))
    kept, outputs = strategy.buffer.steps[0], strategy.buffer.outputs[0]
    for name, features, output in zip(kept.modalities, kept.features, outputs, strict=True):
        assert not torch.equal(then[name], strategy.adapters[name])
        assert torch.allclose(output, torch.nn.functional.normalize(features @ then[name].T, dim=1), atol=1e-6)


def test_a_step_with_a_large_alpha_moves_old_embeddings_less() -> None:
    costs = []
    for alpha in (0.01, 100.0):
        strategy = Der(SMALL.with_(alpha=alpha, epochs=10, learning_rate=1e-2))
        strategy.learn(toy_step(0))
        strategy.learn(toy_step(1))
        costs.append(replayed(strategy)[0] / alpha)
    assert costs[1] < 0.3 * costs[0]


def test_der_plus_plus_adds_beta_times_the_loss_of_the_buffered_pairs() -> None:
    strategy = DerPlusPlus(SMALL.with_(beta=0.5))
    strategy.learn(toy_step(0))
    cost, contrastive = replayed(strategy)
    assert contrastive > 0.0
    assert cost == pytest.approx(0.5 * contrastive, rel=1e-5)
