from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_stream import toy_step

from edge_cmcl.host.strategies.replay import Reservoir


def test_the_buffer_never_exceeds_its_capacity_and_is_full_once_enough_pairs_came() -> None:
    buffer = Reservoir(seed=0, capacity=100)
    sizes = []
    for place in range(4):
        buffer.offer(toy_step(place))
        sizes.append(len(buffer))
        assert sum(len(step) for step in buffer.steps.values()) == len(buffer)
    assert sizes == [70, 100, 100, 100]
    assert buffer.seen == 280


def test_every_pair_offered_is_kept_equally_often() -> None:
    kept = np.zeros((3, 70))
    runs = 300
    for seed in range(runs):
        buffer = Reservoir(seed, capacity=42)
        steps = [toy_step(place) for place in range(3)]
        for step in steps:
            buffer.offer(step)
        for place, part in buffer.steps.items():
            kept[place, part.ids.numpy()] += 1
    share = kept / runs
    assert share.sum() == pytest.approx(42.0)
    assert share.mean(1) == pytest.approx(np.full(3, 0.2), abs=0.012)
    # A pair is kept with probability 0.2: 300 runs have a standard deviation of 0.023.
    assert np.abs(share - 0.2).max() < 5 * 0.0231


def test_a_kept_pair_keeps_its_features_id_and_outputs_together() -> None:
    buffer = Reservoir(seed=1, capacity=30)
    steps = [toy_step(place) for place in range(3)]
    outputs = [torch.randn(70, 5) for _ in steps]
    for step, output in zip(steps, outputs, strict=True):
        buffer.offer(step, (output,))
    for place, part in buffer.steps.items():
        rows = part.ids
        assert torch.equal(part.features[0], steps[place].features[0][rows])
        assert torch.equal(part.features[1], steps[place].features[1][rows])
        assert torch.equal(buffer.outputs[place][0], outputs[place][rows])


def test_the_same_seed_keeps_and_draws_the_same_pairs() -> None:
    drawn = []
    for _ in range(2):
        buffer = Reservoir(seed=3, capacity=30)
        for place in range(2):
            buffer.offer(toy_step(place))
        batches = [buffer.draw() for _ in range(5)]
        drawn.append([(batch.step.place, batch.ids.tolist()) for batch in batches if batch is not None])
    assert drawn[0] == drawn[1]


def test_a_draw_has_distinct_pairs_of_one_step_in_proportion_to_what_is_kept() -> None:
    buffer = Reservoir(seed=0, capacity=200)
    buffer.offer(toy_step(0, n=150))
    buffer.offer(toy_step(1, n=50))
    places = []
    for _ in range(400):
        batch = buffer.draw()
        assert batch is not None
        assert len(set(batch.ids.tolist())) == len(batch.ids) == (64 if batch.step.place == 0 else 50)
        places.append(batch.step.place)
    assert np.mean(places) == pytest.approx(0.25, abs=0.09)


def test_an_empty_buffer_draws_nothing_and_stores_nothing() -> None:
    buffer = Reservoir(seed=0)
    assert buffer.draw() is None
    assert buffer.stored().bytes == 0


def test_stored_bytes_are_those_of_the_kept_rows_alone() -> None:
    buffer = Reservoir(seed=0, capacity=10)
    buffer.offer(toy_step(0), (torch.zeros(70, 8), torch.zeros(70, 8)))
    assert buffer.stored().raw_samples == 10
    assert buffer.stored().bytes == 10 * ((24 + 20) * 4 + 8 + 2 * 8 * 4)
    features = buffer.steps[0].features[0]
    assert features.untyped_storage().nbytes() == features.numel() * 4
