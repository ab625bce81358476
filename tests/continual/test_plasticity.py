"""A pair that comes back again and again must not use up the room that a new pair needs (design.md section 2)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_cmcl.continual.origin import Origin, Origins, learn, mean_eigenvalue, moment_rows
from edge_cmcl.continual.sketch import FrequentDirections
from edge_cmcl.continual.update_space import ALPHA, soft, update_space

WIDTH, DIMENSIONS, RETURNS, WINDOWS = 120, 12, 10, 200

Floats = NDArray[np.float64]


class Sensor:
    """One modality. Its pairs share a strong subspace, as recordings of one sensor do, and each has one of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        axes = np.linalg.qr(self.rng.standard_normal((WIDTH, WIDTH)))[0]
        self.shared, self.own = axes[:20], {"base": axes[20:40], "returning": axes[40:60], "new": axes[60:80]}

    def features(self, pair: str) -> Floats:
        strong = self.rng.standard_normal((WINDOWS, 20)) @ self.shared
        rows = strong + 0.7 * self.rng.standard_normal((WINDOWS, 20)) @ self.own[pair]
        rows += 0.1 * self.rng.standard_normal((WINDOWS, WIDTH))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def origin(self, pair: str, name: str) -> Origin:
        directions = FrequentDirections(WIDTH)
        directions.update(self.features(pair))
        return Origin(
            name, 0, "edge-7", "gyro", ("acc",), "2026-01-01T00:00:00Z", directions.sketch(), f"sha256:{name}"
        )


def still(origin: Origin) -> float:
    """Nothing moves here."""
    return 0.0


def trace(origins: Origins) -> float:
    return float(np.square(moment_rows(origins, WIDTH)).sum())


def room(origins: Origins, features: Floats) -> tuple[float, float]:
    """What a new pair can still do: the energy |N|^2 of its update space, and how much of a target it can learn.

    The gain is the share of a target's variance that changes M of bounded size explain: ridge regression on N^T x.
    """
    guard = soft(moment_rows(origins, WIDTH), ALPHA * mean_eigenvalue(origins, WIDTH))
    space = update_space(features, guard)
    inputs = features @ space
    target = features @ np.random.default_rng(1).standard_normal((WIDTH, DIMENSIONS))
    gram = inputs.T @ inputs + 0.1 * len(features) / WIDTH * np.eye(inputs.shape[1])
    left = target - inputs @ np.linalg.solve(gram, inputs.T @ target)
    return float(np.square(space).sum()), float(1.0 - np.square(left).sum() / np.square(target).sum())


def test_a_pair_learned_ten_times_does_not_lose_plasticity() -> None:
    sensor = Sensor()
    base: Origins = (sensor.origin("base", "base"),)
    once = learn(base, sensor.origin("returning", "edge-7:acc+gyro"), still)
    aged, piled = once, once
    for night in range(1, RETURNS):
        again = sensor.origin("returning", "edge-7:acc+gyro")
        aged = learn(aged, again, still)
        # What would happen if every night were an origin of its own.
        piled = learn(piled, sensor.origin("returning", f"edge-7:night-{night}"), still)
    assert len(aged) == 2
    assert trace(aged) == pytest.approx(trace(once), rel=0.02)
    assert trace(piled) > 5 * trace(once)

    new = sensor.features("new")
    (energy_once, gain_once), (energy_aged, gain_aged), (energy_piled, gain_piled) = (
        room(origins, new) for origins in (once, aged, piled)
    )
    assert energy_aged >= 0.95 * energy_once
    assert gain_aged >= 0.95 * gain_once
    assert energy_piled < 0.8 * energy_once
    assert gain_piled < 0.9 * gain_once
