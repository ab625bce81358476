"""Runs the training step graph over batches; the loss and the optimiser live in the graph (host/step.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_cmcl.device.sessions import input_shape
from edge_cmcl.errors import ModelError

BATCH_SIZE = 64
MAX_EPOCHS = 40
LEARNING_RATE = 0.05
"""How far each row of M moves in the first step. Measured on validation parts: more forgets more, less learns less."""
_SMALLEST_BATCH = 2

Array = NDArray[np.float32]
AfterEpoch = Callable[[int, Array], bool]
"""Called as `after(epoch, changes)`; False ends the training."""


@dataclass(frozen=True)
class Problem:
    """What one run of the step graph learns from.

    Attributes:
        base: one (n, d) float32 array per modality, the anchor first.
        inputs: one (n, k) float32 array per modality; k may differ.
        ids: (S, n) int64, one row per partner: equal ids are positives, -1 is a missing partner.
    """

    base: Sequence[Array]
    inputs: Sequence[Array]
    ids: NDArray[np.int64]

    @property
    def directions(self) -> int:
        """The widest k, to which the others are filled up with zeros."""
        return max(int(inputs.shape[1]) for inputs in self.inputs)


def random_problem(rows: int, dimensions: int, directions: int) -> Problem:
    """Return a problem of two modalities whose numbers mean nothing: to run the step graph, and to time it."""
    random = np.random.default_rng(0)
    base, inputs = (
        [random.standard_normal((rows, size), np.float32) for _ in range(2)] for size in (dimensions, directions)
    )
    return Problem(base, inputs, np.arange(rows)[None])


def no_change(problem: Problem) -> Array:
    """Return M = 0 for every modality, (1 + S, d, k) float32."""
    return np.zeros((len(problem.base), problem.base[0].shape[1], problem.directions), np.float32)


def changed(problem: Problem, changes: Array, index: int, rows: NDArray[np.int64]) -> Array:
    """Return embeddings e0 + M y (rows, d) of modality `index` under `changes`, not normalised."""
    inputs = problem.inputs[index][rows]
    return np.asarray(problem.base[index][rows] + inputs @ changes[index, :, : inputs.shape[1]].T)


def train(
    session: ort.InferenceSession,
    problem: Problem,
    rows: NDArray[np.int64],
    after: AfterEpoch,
    *,
    epochs: int = MAX_EPOCHS,
    seed: int = 0,
    deadline: float = float("inf"),
) -> tuple[Array, int]:
    """Train the changes M on `rows` and return them, (1 + S, d, k) float32, with the number of steps done.

    The learning rate falls linearly from `LEARNING_RATE` to 0 over `MAX_EPOCHS` epochs.

    Args:
        session: the step graph.
        problem: the data.
        rows: rows to train on.
        after: called after each epoch.
        epochs: epochs to do, at most `MAX_EPOCHS`.
        seed: of the batch order.
        deadline: `time.monotonic()` at which training stops, in the middle of an epoch if need be.

    Raises:
        ModelError: the step graph is of another version.
    """
    _check_step(session)
    order = np.random.default_rng(seed)
    changes = no_change(problem)
    moments = [np.zeros_like(changes), np.zeros(changes.shape[:2], np.float32)]
    per_epoch = max(1, -(-len(rows) // BATCH_SIZE))
    step = 0
    for epoch in range(1, epochs + 1):
        shuffled = order.permutation(rows)
        for start in range(0, len(rows), BATCH_SIZE):
            batch = shuffled[start : start + BATCH_SIZE]
            if len(batch) < _SMALLEST_BATCH:
                continue
            if time.monotonic() >= deadline:
                return changes, step
            now = LEARNING_RATE * (1.0 - step / (per_epoch * MAX_EPOCHS))
            step += 1
            feeds = _feeds(problem, batch, changes, moments, now, step)
            changes, *moments, _ = session.run(None, feeds)
        if not after(epoch, changes):
            break
    return changes, step


def _check_step(session: ort.InferenceSession) -> None:
    shape = input_shape(session, "second")
    if len(shape) != 2:
        raise ModelError(
            "the training step that came with the base is an older one",
            expected="one second moment per row of an adapter's change",
            got=f"an input `second` of {len(shape)} dimensions",
            hint="train and export the base again with this version of edge-cmcl, and install that",
        )


def _feeds(
    problem: Problem, batch: NDArray[np.int64], changes: Array, moments: Sequence[Array], rate: float, step: int
) -> dict[str, NDArray[np.generic]]:
    inputs = np.zeros((len(problem.inputs), len(batch), changes.shape[2]), np.float32)
    for index, source in enumerate(problem.inputs):
        inputs[index, :, : source.shape[1]] = source[batch]
    return {
        "changes": changes,
        "first": moments[0],
        "second": moments[1],
        "base": np.stack([source[batch] for source in problem.base]),
        "inputs": inputs,
        "ids": problem.ids[:, batch],
        "rate": np.array(rate, np.float32),
        "count": np.array(step, np.float32),
    }
