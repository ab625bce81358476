"""Projectors, the displacement projection, and both forms of DNS."""

from __future__ import annotations

import pytest
import torch
from toy_stream import SMALL, three_steps, toy_step

from edge_cmcl.host.strategies.base import Strategy, batch_of
from edge_cmcl.host.strategies.displacement import Displacement
from edge_cmcl.host.strategies.dns import Dns
from edge_cmcl.host.strategies.dns_released import DnsReleased
from edge_cmcl.host.strategies.projector import Moment, range_projector

EXACT = SMALL.with_(lambda_min=1e-6, epochs=5, learning_rate=1e-2)
WIDE = EXACT.with_(dimensions=16)
"""Partners' past embeddings, of rank 4 a step, leave some of the embedding space free."""


def embeddings(strategy: Strategy) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in strategy.adapters.items()}


@pytest.mark.parametrize("rank", [0, 2, 5, 9, 10])
def test_a_range_projector_of_any_rank_is_the_dense_one(rank: int) -> None:
    basis = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(rank))).Q[:, :rank]
    moment = basis @ basis.T
    made = range_projector(moment, 0.5)
    assert torch.allclose(made(torch.eye(10)), moment, atol=1e-5)
    assert made.columns.shape[1] <= 5


def test_where_single_precision_does_not_converge_double_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    decompose = torch.linalg.eigh

    def fails_in_single(moment: torch.Tensor) -> object:
        if moment.dtype == torch.float32:
            raise torch.linalg.LinAlgError("did not converge")
        return decompose(moment)

    monkeypatch.setattr(torch.linalg, "eigh", fails_in_single)
    made = range_projector(torch.diag(torch.tensor([1.0, 0.0, 0.0])), 0.5)
    assert made.columns.dtype == torch.float32
    assert torch.allclose(made(torch.eye(3)), torch.diag(torch.tensor([1.0, 0.0, 0.0])))


def test_a_threshold_leaves_weak_directions_free() -> None:
    made = range_projector(torch.diag(torch.tensor([0.6, 0.39, 0.01])), 0.1)
    assert torch.allclose(made(torch.eye(3)), torch.diag(torch.tensor([1.0, 1.0, 0.0])), atol=1e-6)


def test_a_moment_weighs_every_sample_the_same() -> None:
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    moment = Moment(4)
    moment.add(rows[:7])
    moment.add(rows[7:])
    assert torch.allclose(moment.mean(), rows.T @ rows / 30, atol=1e-5)


def test_displacement_leaves_old_embeddings_exactly_where_they_were() -> None:
    steps = three_steps()
    strategy = Displacement(EXACT)
    strategy.learn(steps[0])
    before = embeddings(strategy)
    strategy.learn(steps[1])
    strategy.learn(steps[2])
    for name, features in zip(steps[0].modalities, steps[0].features, strict=True):
        moved = strategy.adapters[name] - before[name]
        assert float(moved.detach().norm()) > 0.1
        assert float((features @ moved.T).detach().abs().max()) < 2e-5


def test_displacement_lets_directions_below_the_threshold_go() -> None:
    strategy = Displacement(EXACT.with_(lambda_min=0.5))
    strategy.learn(toy_step(0))
    before = embeddings(strategy)
    strategy.learn(toy_step(1))
    moved = (toy_step(0).features[0] @ (strategy.adapters["acc"] - before["acc"]).T).detach()
    assert float(moved.abs().max()) > 1e-2


def first_order(strategy: Dns, before: dict[str, torch.Tensor], place: int) -> tuple[float, float]:
    """Return the largest first-order change of the similarities of past pairs, and that without one partner's share."""
    step = [toy_step(0), toy_step(1, "acc", "emg")][place]
    (a, b), (x, y) = step.modalities, step.features
    changes = [(strategy.adapters[name] - before[name]).detach() for name in (a, b)]
    left = (x @ changes[0].T) @ (y @ before[b].T).T
    right = (x @ before[a].T) @ (y @ changes[1].T).T
    return float((left + right).abs().max()), max(float(left.abs().max()), float(right.abs().max()))


def test_dns_keeps_the_similarities_of_all_past_pairs_to_first_order() -> None:
    strategy = Dns(WIDE)
    strategy.learn(toy_step(0))
    strategy.learn(toy_step(1, "acc", "emg"))
    before = embeddings(strategy)
    strategy.learn(toy_step(2, "acc", "gyro"))
    moved = (toy_step(0).features[0] @ (strategy.adapters["acc"] - before["acc"]).T).detach()
    assert float(moved.abs().max()) > 1e-2
    for place in range(2):
        assert max(first_order(strategy, before, place)) < 1e-4


def test_vanilla_would_change_them() -> None:
    strategy = Dns(WIDE.with_(lambda_min=1.0))
    strategy.learn(toy_step(0))
    strategy.learn(toy_step(1, "acc", "emg"))
    before = embeddings(strategy)
    strategy.learn(toy_step(2, "acc", "gyro"))
    assert first_order(strategy, before, 0)[0] > 0.1


def test_dns_frees_what_is_new_on_either_side() -> None:
    strategy = Dns(EXACT)
    strategy.learn(toy_step(0))
    strategy.before_step(toy_step(1))
    change = torch.randn(8, 24, generator=torch.Generator().manual_seed(0))
    kept = strategy.free("acc", change)
    own, partner = strategy.own_side["acc"], strategy.partner_side["acc"]
    assert torch.allclose(kept, change - partner(torch.eye(8)) @ change @ own(torch.eye(24)), atol=1e-5)
    # The partner's four hidden dimensions span half of the embedding space.
    assert float(partner(torch.eye(8)).trace()) == pytest.approx(4.0, abs=1e-4)
    assert float(own(torch.eye(24)).trace()) == pytest.approx(4.0, abs=1e-4)


def after_one_step(lambda_min: float) -> DnsReleased:
    strategy = DnsReleased(SMALL.with_(lambda_min=lambda_min))
    strategy.learn(toy_step(0))
    step = toy_step(1)
    strategy.before_step(step)
    for weight in strategy.adapters.values():
        weight.grad = None
    strategy.backward(batch_of(step, torch.arange(64)))
    return strategy


def test_dns_released_projects_the_gradient_off_strong_own_directions_whatever_the_partner_side() -> None:
    strategy = after_one_step(lambda_min=1e-6)
    gradient = strategy.adapters["acc"].grad
    assert gradient is not None
    before = gradient.clone()
    strategy.before_optimizer(batch_of(toy_step(1), torch.arange(64)))
    own = strategy.sides["acc"][1](torch.eye(24))
    # Embeddings of rank four fill a range of eight: with threshold 0 rounding decides, and the identity comes out.
    partner = strategy.sides["acc"][0](torch.eye(8))
    assert torch.allclose(partner, torch.eye(8), atol=1e-4)
    assert torch.allclose(gradient, before - before @ own, atol=1e-6)
    assert float((toy_step(0).features[0] @ gradient.T).abs().max()) < 1e-5 * float(before.norm()) + 1e-6


def test_dns_released_moves_old_embeddings_all_the_same_because_of_adamw() -> None:
    strategy = DnsReleased(EXACT)
    strategy.learn(toy_step(0))
    before = embeddings(strategy)
    strategy.learn(toy_step(1))
    moved = (toy_step(0).features[0] @ (strategy.adapters["acc"] - before["acc"]).T).detach()
    assert float(moved.abs().max()) > 1e-2


def test_dns_released_averages_with_one_count_of_the_whole_stream() -> None:
    strategy = DnsReleased(SMALL)
    steps = [toy_step(0, n=40), toy_step(1, "acc", "emg", n=60), toy_step(2, "gyro", "emg", n=100)]
    for step in steps:
        strategy.learn(step)
    (acc0, gyro0), (acc1, _), (gyro2, _) = (step.features for step in steps)
    # acc takes part until 100 pairs were seen; gyro in the first 40 and in the last 100 of 200.
    assert torch.allclose(strategy.features["acc"], (acc0.T @ acc0 + acc1.T @ acc1) / 100, atol=1e-6)
    expected = (gyro0.T @ gyro0 / 40) * (100 / 200) + gyro2.T @ gyro2 / 200
    assert torch.allclose(strategy.features["gyro"], expected, atol=1e-6)


@pytest.mark.parametrize(("kind", "matrices"), [(Displacement, 1), (Dns, 1)])
def test_a_second_moment_per_modality_is_stored(kind: type[Displacement], matrices: int) -> None:
    strategy = kind(SMALL)
    for place in range(2):
        strategy.learn(toy_step(place))
    assert strategy.stored().bytes == matrices * (24**2 + 20**2) * 4
    assert strategy.stored().raw_samples == 0
