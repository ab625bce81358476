"""One cell of a comparison: a strategy with one seed learns the whole stream and is judged after every step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.metrics import classification, retrieval
from edge_cmcl.device.features import unit
from edge_cmcl.host.compare.features import StreamData, Test
from edge_cmcl.host.strategies import Step, Strategy
from edge_cmcl.report.results import METRICS

Row = list[float | None]


@dataclass
class Judged:
    """What a strategy did on a stream of T steps.

    Attributes:
        matrices: per metric T rows of T scores; row t is after step t, None where the strategy has no answer yet.
        step_seconds: wall time of learning each step; one number for a strategy that learns them together.
        stored_by_step: bytes kept beside the adapters after each step that it could be judged at.
    """

    matrices: dict[str, list[Row]]
    step_seconds: list[float] = field(default_factory=list)
    stored_by_step: list[int] = field(default_factory=list)


def run(strategy: Strategy, data: StreamData, told: Callable[[int], None] = lambda done: None) -> Judged:
    """Let `strategy` learn `data` and judge it on the test parts whenever it may be judged."""
    steps = len(data.steps)
    judged = Judged({name: [[None] * steps for _ in range(steps)] for name in METRICS})
    began = time.perf_counter()
    for done in strategy.learn_stream(data.steps):
        judged.step_seconds.append(round(time.perf_counter() - began, 3))
        judged.stored_by_step.append(strategy.stored().bytes)
        for column, (step, test) in enumerate(zip(data.steps, data.tests, strict=True)):
            for metric, score in _scores(strategy, step, test).items():
                judged.matrices[metric][done - 1][column] = score
        told(done)
        began = time.perf_counter()
    judged.matrices = {name: rows for name, rows in judged.matrices.items() if _occurs(rows)}
    return judged


def _occurs(rows: list[Row]) -> bool:
    return any(score is not None for row in rows for score in row)


def _scores(strategy: Strategy, step: Step, test: Test) -> dict[str, float]:
    weights = strategy.weights(step)
    if weights is None:
        return {}
    a, b = (_embed(x, w) for x, w in zip((test.a, test.b), weights, strict=True))
    found: dict[str, Any] = retrieval(a, b) if test.labels is None else classification(a, b, test.labels)
    return {name: found[name] for name in METRICS if name in found}


def _embed(features: NDArray[np.float32], weight: Any) -> NDArray[np.float32]:
    return unit(features @ weight.detach().numpy().T)
