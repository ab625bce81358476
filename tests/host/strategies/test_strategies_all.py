from __future__ import annotations

import pytest
import torch
from toy_stream import SMALL, three_steps, toy_step

from edge_cmcl.host.strategies import STRATEGIES, Step
from edge_cmcl.host.strategies.base import Batch, Settings, Strategy
from edge_cmcl.host.strategies.vanilla import Vanilla

FROM_FEATURES = [name for name, strategy in STRATEGIES.items() if not strategy.reads_files]
ONE_EPOCH = {"epochs_joint": 2.0}


def learned(strategy: Strategy, steps: list[Step]) -> Strategy:
    for _ in strategy.learn_stream(steps):
        pass
    return strategy


def test_strategies_stand_in_the_order_of_tables() -> None:
    assert list(STRATEGIES) == [
        *("joint", "individual", "vanilla", "gem", "der", "derpp", "ewc", "co2l", "c_flat", "cila"),
        *("dns", "dns_released", "displacement", "ours"),
    ]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_says_what_it_is_and_has_few_configurations(name: str) -> None:
    strategy = STRATEGIES[name]
    configurations = 1
    for values in strategy.grid.values():
        configurations *= len(values)
    assert strategy.name == name
    assert strategy.title
    assert strategy.source
    assert configurations <= 4


@pytest.mark.parametrize("name", FROM_FEATURES)
def test_a_stream_that_ends_with_labels_leaves_finite_adapters_of_each_width(name: str) -> None:
    steps = three_steps()
    strategy = learned(STRATEGIES[name](SMALL.with_(**ONE_EPOCH)), steps)
    for step in steps:
        weights = strategy.weights(step)
        assert weights is not None
        for weight, features in zip(weights, step.features, strict=True):
            assert weight.shape == (SMALL.dimensions, features.shape[1])
            assert torch.isfinite(weight).all()


@pytest.mark.parametrize("name", FROM_FEATURES)
def test_the_same_seed_gives_the_same_adapters(name: str) -> None:
    first, second = (learned(STRATEGIES[name](SMALL.with_(**ONE_EPOCH)), three_steps()) for _ in range(2))
    assert first.adapters.keys() == second.adapters.keys()
    assert all(torch.equal(first.adapters[key], second.adapters[key]) for key in first.adapters)


@pytest.mark.parametrize("name", [n for n in FROM_FEATURES if STRATEGIES[n].kind == "continual"])
def test_the_first_step_is_learned_as_by_vanilla(name: str) -> None:
    # Nothing is stored yet that could hold anything back; C-Flat alone changes the loss itself.
    settings = SMALL.with_(rho=0.0) if name == "c_flat" else SMALL
    strategy, vanilla = learned(STRATEGIES[name](settings), [toy_step(0)]), learned(Vanilla(SMALL), [toy_step(0)])
    for key, weight in vanilla.adapters.items():
        assert torch.allclose(strategy.adapters[key], weight, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in FROM_FEATURES if STRATEGIES[n].kind == "continual" and n != "vanilla"])
def test_a_later_step_is_learned_otherwise_than_by_vanilla(name: str) -> None:
    strategy, vanilla = learned(STRATEGIES[name](SMALL), three_steps()), learned(Vanilla(SMALL), three_steps())
    assert any(
        not torch.allclose(strategy.adapters[key], weight, atol=1e-6) for key, weight in vanilla.adapters.items()
    )


@pytest.mark.parametrize("name", [n for n in FROM_FEATURES if STRATEGIES[n].kind == "continual"])
def test_the_same_pair_twice_is_learned(name: str) -> None:
    strategy = learned(STRATEGIES[name](SMALL), [toy_step(0), toy_step(1)])
    assert all(torch.isfinite(weight).all() for weight in strategy.adapters.values())


def test_raw_samples_are_counted_where_pairs_are_kept_and_only_there() -> None:
    steps = three_steps()
    kept = {name: learned(STRATEGIES[name](SMALL), steps).stored().raw_samples for name in FROM_FEATURES}
    replayed = sum(len(step) for step in steps)
    assert kept == {name: replayed if name in REPLAYING else 0 for name in FROM_FEATURES}


REPLAYING = ("joint", "gem", "der", "derpp", "co2l", "cila")


class NoOp(Strategy):
    """Overrides every hook and changes nothing."""

    name = "no_op"
    title = "no-op"
    source = "test"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.called: list[str] = []

    def before_step(self, step: Step) -> None:
        self.called.append("before_step")

    def loss(self, batch: Batch) -> torch.Tensor:
        self.called.append("loss")
        return super().loss(batch)

    def before_optimizer(self, batch: Batch) -> None:
        self.called.append("before_optimizer")

    def after_optimizer(self, batch: Batch) -> None:
        self.called.append("after_optimizer")

    def after_step(self, step: Step) -> None:
        self.called.append("after_step")


def test_hooks_that_do_nothing_leave_vanilla_bit_for_bit_and_are_called_in_order() -> None:
    no_op, vanilla = NoOp(SMALL.with_(epochs=1)), Vanilla(SMALL.with_(epochs=1))
    steps = three_steps()
    learned(no_op, steps)
    learned(vanilla, steps)
    assert all(torch.equal(no_op.adapters[key], weight) for key, weight in vanilla.adapters.items())
    batch = ["loss", "before_optimizer", "after_optimizer"]
    # 70 pairs are a batch of 64 and one of 6.
    assert no_op.called == ["before_step", *batch, *batch, "after_step"] * 3
