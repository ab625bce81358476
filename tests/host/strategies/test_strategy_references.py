"""Vanilla, joint and individual."""

from __future__ import annotations

import torch
from toy_stream import SMALL, toy_step

from edge_cmcl.continual.metrics import retrieval
from edge_cmcl.host.strategies import Step
from edge_cmcl.host.strategies.base import Strategy
from edge_cmcl.host.strategies.individual import Individual
from edge_cmcl.host.strategies.joint import Joint
from edge_cmcl.host.strategies.vanilla import Vanilla

LONG = SMALL.with_(epochs=40, learning_rate=1e-2, epochs_joint=40.0)


def two_steps() -> list[Step]:
    """Two steps that contradict each other: the same pair of sensors, seen through other mixtures."""
    return [toy_step(0, hidden=6), toy_step(1, hidden=6)]


def recall(strategy: Strategy, step: Step) -> float:
    weights = strategy.weights(step)
    assert weights is not None
    a, b = (
        torch.nn.functional.normalize(x @ w.detach().T, dim=1).numpy()
        for x, w in zip(step.features, weights, strict=True)
    )
    return float(retrieval(a, b)["recall_at_1"])


def test_vanilla_learns_the_last_step_and_forgets_the_first() -> None:
    steps = two_steps()
    strategy = Vanilla(LONG)
    strategy.learn(steps[0])
    before = recall(strategy, steps[0])
    strategy.learn(steps[1])
    assert before > 0.9
    assert recall(strategy, steps[1]) > 0.9
    assert recall(strategy, steps[0]) < before - 0.1


def test_vanilla_stores_nothing() -> None:
    strategy = Vanilla(SMALL)
    strategy.learn(toy_step(0))
    assert (strategy.stored().bytes, strategy.stored().raw_samples) == (0, 0)


def test_joint_learns_all_steps_at_once() -> None:
    steps = two_steps()
    strategy, vanilla = Joint(LONG), Vanilla(LONG)
    assert list(strategy.learn_stream(steps)) == [2]
    assert list(vanilla.learn_stream(steps)) == [1, 2]
    assert all(recall(strategy, step) > 0.8 for step in steps)
    assert recall(strategy, steps[0]) > recall(vanilla, steps[0])


def test_joint_stores_all_features() -> None:
    steps = two_steps()
    strategy = Joint(SMALL.with_(epochs_joint=1.0))
    assert list(strategy.learn_stream(steps)) == [2]
    assert strategy.stored().raw_samples == 140
    assert strategy.stored().bytes == 140 * (24 + 20) * 4


def test_individual_keeps_the_adapters_of_every_step() -> None:
    steps = two_steps()
    strategy = Individual(LONG)
    assert strategy.weights(steps[0]) is None
    strategy.learn(steps[0])
    first = strategy.weights(steps[0])
    assert first is not None
    kept = [weight.clone() for weight in first]
    strategy.learn(steps[1])
    again = strategy.weights(steps[0])
    assert again is not None
    assert all(torch.equal(one, two) for one, two in zip(kept, again, strict=True))
    assert all(recall(strategy, step) > 0.9 for step in steps)
    assert strategy.stored().bytes == 8 * (24 + 20) * 4


def test_individual_learns_each_step_as_if_it_were_alone() -> None:
    steps = two_steps()
    alone, both = Individual(SMALL), Individual(SMALL)
    alone.learn(steps[0])
    both.learn(steps[0])
    one, two = alone.weights(steps[0]), both.weights(steps[0])
    assert one is not None
    assert two is not None
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))
