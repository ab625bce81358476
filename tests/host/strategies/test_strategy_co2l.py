"""Co2L and CILA."""

from __future__ import annotations

import math

import pytest
import torch
from toy_stream import SMALL, three_steps, toy_step

from edge_cmcl.host.step import TEMPERATURE_SCALE, info_nce
from edge_cmcl.host.strategies.base import Step
from edge_cmcl.host.strategies.cila import Cila
from edge_cmcl.host.strategies.co2l import Co2L, Distillation, asymmetric_info_nce, relation_distillation


def rows(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def test_the_distillation_of_an_unchanged_model_is_zero_and_so_is_its_gradient() -> None:
    now = rows(10).requires_grad_()
    distilled = relation_distillation(now, rows(10))
    assert float(distilled.divergence.detach()) == pytest.approx(0.0, abs=1e-6)
    distilled.divergence.backward()  # type: ignore[no-untyped-call]
    assert now.grad is not None
    assert float(now.grad.abs().max()) < 1e-6


def test_relations_do_not_change_when_all_embeddings_turn_together() -> None:
    rotation = torch.linalg.qr(rows(6, seed=3)).Q
    assert float(relation_distillation(rows(10) @ rotation, rows(10)).divergence) == pytest.approx(0.0, abs=1e-5)


def divergence(past: list[float], now: list[float]) -> float:
    p, q = (torch.softmax(torch.tensor(one), 0) for one in (past, now))
    return float((p * (p / q).log()).sum())


def test_the_distillation_is_the_divergence_of_similarities_to_the_others() -> None:
    past = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    now = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    s = TEMPERATURE_SCALE
    expected = divergence([s, 0.0], [0.0, s]) + divergence([s, 0.0], [0.0, 0.0]) + divergence([0.0, 0.0], [s, 0.0])
    assert float(relation_distillation(now, past).divergence) == pytest.approx(expected / 3.0, rel=1e-4)


def test_without_negatives_the_contrast_is_that_of_every_strategy() -> None:
    a, b, ids = rows(8), rows(8, seed=1), torch.tensor([0, 1, 2, 0, 4, 5, 1, 7])
    assert float(asymmetric_info_nce(a, b, ids, a[:0])) == pytest.approx(
        float(info_nce(a, b[None], ids[None])), rel=1e-5
    )


def test_buffered_embeddings_are_negatives_and_never_anchors() -> None:
    a, b, ids = torch.eye(2), torch.eye(2), torch.arange(2)
    s = TEMPERATURE_SCALE
    negative = torch.tensor([[1.0, 0.0]])
    # Row 0 of each side meets its positive, one orthogonal row and one identical negative; row 1 two orthogonal ones.
    expected = 0.5 * (math.log(2.0 + math.exp(-s)) + math.log(1.0 + 2.0 * math.exp(-s)))
    assert float(asymmetric_info_nce(a, b, ids, negative)) == pytest.approx(expected, rel=1e-5)


class Watched(Co2L):
    """Keeps the distillation of every batch."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.divergences: list[float] = []

    def weighted(self, contrast: torch.Tensor, distillation: Distillation) -> torch.Tensor:
        self.divergences.append(float(distillation.divergence.detach()))
        return super().weighted(contrast, distillation)


def test_the_past_model_is_that_at_the_start_of_the_step() -> None:
    strategy = Watched()
    strategy.learn(toy_step(0))
    assert strategy.divergences == []
    strategy.learn(toy_step(1, "acc", "emg"))
    assert strategy.divergences[0] == pytest.approx(0.0, abs=1e-6)
    assert all(later > 1e-6 for later in strategy.divergences[1:])


class Scripted(Cila):
    """Has given losses instead of its own."""

    def run(self, step: Step, contrast: list[float], cross_entropy: list[float]) -> float:
        self.before_step(step)
        for one, two in zip(contrast, cross_entropy, strict=True):
            self.weighted(torch.tensor(one), Distillation(torch.tensor(0.0), two))
        self.after_step(step)
        return self.coefficient


def test_the_coefficient_is_kappa_times_the_ratio_of_mean_losses_of_earlier_steps_and_at_least_one() -> None:
    strategy = Scripted(SMALL.with_(kappa=2.0))
    steps = [toy_step(place) for place in range(5)]
    strategy.add_adapters(steps[0])
    assert strategy.run(steps[0], [], []) == 1.0
    assert strategy.run(steps[1], [1.0, 3.0], [5.0, 3.0]) == 1.0
    assert strategy.run(steps[2], [1.0], [2.0]) == pytest.approx(2.0 * 4.0 / 2.0)
    assert strategy.run(steps[3], [20.0], [0.0]) == pytest.approx(2.0 * (4.0 + 2.0) / (2.0 + 1.0))
    assert strategy.run(steps[4], [1.0], [1.0]) == 1.0


def test_cila_weighs_the_divergence_with_the_coefficient() -> None:
    strategy = Cila(SMALL)
    strategy.coefficient = 3.0
    assert float(strategy.weighted(torch.tensor(2.0), Distillation(torch.tensor(0.5), 1.0))) == pytest.approx(3.5)


def test_cila_finds_coefficients_on_a_stream() -> None:
    strategy = Cila(SMALL.with_(kappa=100.0))
    seen = []
    for step in three_steps():
        strategy.learn(step)
        seen.append(strategy.coefficient)
    assert seen[:2] == [1.0, 1.0]
    assert seen[2] > 1.0
