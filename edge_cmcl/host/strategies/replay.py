"""The buffer of replay strategies: a uniform sample of all pairs learned so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from edge_cmcl.host.strategies.base import BATCH_SIZE, BUFFER_PAIRS, Batch, Step, Stored, batch_of, tensor_bytes


class Reservoir:
    """Keeps `capacity` pairs in all by reservoir sampling (J. Vitter, ACM TOMS 11(1), 1985, algorithm R).

    Every pair of the stream is offered once, when its step is learned, in random order, so that after any number of
    steps each pair offered so far is kept with the same probability. It has a generator of its own: the batches of a
    replay strategy come in the same order as those of every other strategy with the same seed.

    Attributes:
        steps: the kept pairs of each learned step, by its place, without groups and times; a step of which no pair is
            kept is absent.
        outputs: (n, d) tensors given with each step, reduced to its kept pairs.
        seen: pairs offered so far.
    """

    def __init__(self, seed: int, capacity: int = BUFFER_PAIRS) -> None:
        self.steps: dict[int, Step] = {}
        self.outputs: dict[int, tuple[Tensor, ...]] = {}
        self.seen = 0
        self._capacity = capacity
        self._random = np.random.default_rng(seed)
        self._slots: list[tuple[int, int]] = []
        """Place and row, within `steps[place]`, of each kept pair."""

    def __len__(self) -> int:
        return len(self._slots)

    def offer(self, step: Step, outputs: Sequence[Tensor] = ()) -> None:
        """Offer every pair of `step`, and with it its row of each of `outputs` (n, d)."""
        for row in self._random.permutation(len(step)):
            slot = len(self._slots) if len(self._slots) < self._capacity else int(self._random.integers(self.seen + 1))
            self.seen += 1
            if slot < self._capacity:
                self._slots[slot : slot + 1] = [(step.place, int(row))]
        self.steps[step.place], self.outputs[step.place] = step, tuple(outputs)
        for place in list(self.steps):
            self._keep(place)

    def draw(self, place: int | None = None, size: int = BATCH_SIZE) -> Batch | None:
        """Return up to `size` random kept pairs of one step, None while nothing is kept.

        Args:
            place: which step; left out, a random one, with probability in proportion to its kept pairs.
            size: the most pairs wanted. They differ from each other.
        """
        if not self._slots:
            return None
        if place is None:
            place = self._slots[int(self._random.integers(len(self._slots)))][0]
        step = self.steps[place]
        return batch_of(step, torch.from_numpy(self._random.permutation(len(step))[:size]))

    def stored(self) -> Stored:
        """Return the bytes of features, ids and outputs, and the number of pairs."""
        tensors = [tensor for step in self.steps.values() for tensor in (*step.features, step.ids)]
        tensors += [tensor for outputs in self.outputs.values() for tensor in outputs]
        return Stored(tensor_bytes(tensors), len(self))

    def _keep(self, place: int) -> None:
        """Copy the kept rows of a step out of it, so that nothing refers to the others."""
        slots = [slot for slot, (other, _) in enumerate(self._slots) if other == place]
        step, outputs = self.steps.pop(place), self.outputs.pop(place)
        if not slots:
            return
        rows = torch.tensor([self._slots[slot][1] for slot in slots])
        a, b = step.features
        kept = replace(step, features=(a[rows], b[rows]), ids=step.ids[rows], groups=None, time=None)
        self.steps[place] = kept
        self.outputs[place] = tuple(output[rows] for output in outputs)
        for row, slot in enumerate(slots):
            self._slots[slot] = (place, row)
