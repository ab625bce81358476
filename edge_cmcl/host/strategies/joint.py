"""All steps at once: what could be learned if every recording were kept and trained on together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from edge_cmcl.host.strategies.base import Batch, Step, Stored, Strategy, batch_of, batches_of, epoch_rows, set_rate


class Joint(Strategy):
    """A reference rather than a continual learner: it keeps all data. Its epochs are its own hyper-parameter."""

    name = "joint"
    title = "Joint"
    source = "X. Liu et al., NeurIPS 2025, section 5.1 (upper reference)"
    kind = "reference"
    grid = {"epochs_joint": (20, 40, 80)}  # noqa: RUF012

    def learn_stream(self, steps: Sequence[Step]) -> Iterator[int]:
        """Learn all steps together."""
        self._samples = sum(len(step) for step in steps)
        self._bytes = sum(side.numel() * side.element_size() for step in steps for side in step.features)
        for step in steps:
            self.add_adapters(step)
        optimizer = self.make_optimizer()
        epochs = int(self.own("epochs_joint"))
        total = epochs * sum(batches_of(step) for step in steps)
        done = 0
        for _ in range(epochs):
            for batch in self._shuffled(steps):
                set_rate(optimizer, self.settings.learning_rate * (1.0 - done / total))
                optimizer.zero_grad(set_to_none=True)
                self.backward(batch)
                optimizer.step()
                done += 1
        yield len(steps)

    def stored(self) -> Stored:
        """All features are kept."""
        return Stored(self._bytes, self._samples)

    def _shuffled(self, steps: Sequence[Step]) -> Iterator[Batch]:
        """Yield the batches of one epoch of every step, in random order."""
        parts = [(step, rows) for step in steps for rows in epoch_rows(step, self.random)]
        for place in torch.randperm(len(parts), generator=self.random).tolist():
            yield batch_of(*parts[place])
