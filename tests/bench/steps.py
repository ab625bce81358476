"""Milliseconds per training step: the paper's on dense adapters, the product's through its ONNX step graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from dns import BATCH_SIZE, Dns, Projectors
from numpy.typing import NDArray
from scenario import fresh_store

from edge_cmcl.continual.update_space import MAX_DIRECTIONS
from edge_cmcl.device.opening import open_model
from edge_cmcl.device.training import Problem, train

DIMENSIONS = 256
SHAPES = {"own_shapes": (1024, 1024, 20.0), "equal_shapes": (DIMENSIONS, 1800, 10.0)}
"""Rows and columns of the paper's adapters, and how many times faster the product's step must be.

The product's own step is the same in both: it trains M of d x k, whatever the width of the features (design.md).
"""

ROUNDS, STEPS_OURS, STEPS_DNS = 12, 40, 5
QUICK_STEPS = 2


def measure(scenario: Path, quick: bool) -> dict[str, Any]:
    """Measure the steps in turns, in short rounds, so that whatever else the machine does falls on all of them."""
    sides = {"ours": _ours(scenario, QUICK_STEPS if quick else STEPS_OURS)}
    for name, (dimensions, width, _) in SHAPES.items():
        sides[name] = _dns(dimensions, width, QUICK_STEPS if quick else STEPS_DNS)
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(1 if quick else ROUNDS):
        for name, run in sides.items():
            samples[name].append(run())
    return {name: _compare(name, samples) for name in SHAPES}


def _compare(name: str, samples: dict[str, list[float]]) -> dict[str, Any]:
    dimensions, width, target = SHAPES[name]
    # Other work on the machine slows the two-threaded torch more: the smaller of the two ratios is the honest one.
    ratio = min(statistic(samples[name]) / statistic(samples["ours"]) for statistic in (median, min))
    return {
        "ours_ms": _summary(samples["ours"]),
        "dns_ms": _summary(samples[name]),
        "ours_shape": f"two M of {DIMENSIONS} x {MAX_DIRECTIONS}, batch {BATCH_SIZE}, ONNX step graph",
        "dns_shape": f"two adapters of {dimensions} x {width}, batch {BATCH_SIZE}, torch float32",
        "ratio": round(ratio, 1),
        "target": target,
        "met": ratio >= target,
    }


def _ours(scenario: Path, steps: int) -> Callable[[], float]:
    """Return a function that trains for `steps` steps, exactly as an update does, and returns ms per step."""
    random = np.random.default_rng(0)
    rows = np.arange(steps * BATCH_SIZE)

    def normal(columns: int) -> NDArray[np.float32]:
        return random.standard_normal((len(rows), columns), dtype=np.float32)

    problem = Problem([normal(DIMENSIONS) for _ in "ab"], [normal(MAX_DIRECTIONS) for _ in "ab"], rows[None])
    with fresh_store(scenario) as store:
        session = open_model(store).step_session

    def run() -> float:
        began = time.perf_counter()
        _, done = train(session, problem, rows, lambda epoch, changes: True, epochs=1)
        return 1e3 * (time.perf_counter() - began) / done

    return run


def _dns(dimensions: int, width: int, steps: int) -> Callable[[], float]:
    """Return a function that does `steps` steps on two modalities that have a past, and returns ms per step."""
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(dimensions, width, generator=random) / width**0.5 for _ in "ab"]
    guards = [Projectors(_projector(dimensions, random), _projector(width, random)) for _ in "ab"]
    dns = Dns(weights, guards, learning_rate=1e-4)
    a, b = (torch.nn.functional.normalize(torch.randn(BATCH_SIZE, width, generator=random), dim=1) for _ in "ab")

    def run() -> float:
        began = time.perf_counter()
        for _ in range(steps):
            dns.step(a, b)
        return 1e3 * (time.perf_counter() - began) / steps

    return run


def _projector(size: int, random: torch.Generator) -> torch.Tensor:
    """Return a projector of `size` onto a random half of the space; dense, so its rank does not change the time."""
    directions = torch.linalg.qr(torch.randn(size, size // 2, generator=random)).Q
    return directions @ directions.T


def _summary(samples: list[float]) -> dict[str, float]:
    return {
        "median": round(median(samples), 3),
        "min": round(min(samples), 3),
        "max": round(max(samples), 3),
        "rounds": len(samples),
    }
