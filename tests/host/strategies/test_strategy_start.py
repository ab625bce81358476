from __future__ import annotations

import torch
from toy_stream import toy_step

from edge_cmcl.host.step import info_nce
from edge_cmcl.host.strategies import Settings, Step
from edge_cmcl.host.strategies.start import start


def started(kind: str, step: Step, known: dict[str, torch.Tensor], dimensions: int = 8) -> dict[str, torch.Tensor]:
    settings = Settings(dimensions=dimensions).with_(start=kind)
    return start(step, known, settings)


def loss(step: Step, adapters: dict[str, torch.Tensor]) -> float:
    a, b = (x @ adapters[name].T for x, name in zip(step.features, step.modalities, strict=True))
    return float(info_nce(a, b[None], step.ids[None]))


def test_a_random_start_gives_embeddings_of_about_unit_norm() -> None:
    step = toy_step(0)
    adapters = started("random", step, {}, dimensions=512)
    for name, features in zip(step.modalities, step.features, strict=True):
        norms = (features @ adapters[name].T).norm(dim=1)
        assert torch.allclose(norms, torch.ones(len(step)), atol=0.2)


def test_a_closed_form_start_of_two_new_modalities_beats_a_random_one() -> None:
    step = toy_step(0)
    assert loss(step, started("closed_form", step, {})) < 0.7 * loss(step, started("random", step, {}))


def test_a_closed_form_start_onto_a_known_partner_beats_a_random_one() -> None:
    first, second = toy_step(0), toy_step(1, "acc", "emg")
    known = {"acc": started("closed_form", first, {})["acc"]}
    made = {kind: started(kind, second, known) for kind in ("closed_form", "random")}
    assert all(adapters.keys() == {"emg"} for adapters in made.values())
    assert loss(second, known | made["closed_form"]) < 0.7 * loss(second, known | made["random"])


def test_a_closed_form_start_serves_labels() -> None:
    step = toy_step(2, "gyro", "text")
    assert loss(step, started("closed_form", step, {})) < loss(step, started("random", step, {}))


def test_known_modalities_get_no_new_adapter() -> None:
    step = toy_step(0)
    known = started("random", step, {})
    assert started("closed_form", step, known) == {}
    assert started("random", step, known) == {}
