"""A pair of adapters per step, trained on that step alone: nothing is shared, nothing forgotten or transferred."""

from __future__ import annotations

from torch import Tensor

from edge_cmcl.host.strategies.base import Settings, Step, Stored, Strategy, tensor_bytes


class Individual(Strategy):
    """A reference rather than a continual learner: it needs to be told which step a query belongs to."""

    name = "individual"
    title = "Individual"
    source = "upper reference per pair, as training.py of the CMCL release with method individual"
    kind = "reference"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._learned: list[tuple[Tensor, Tensor]] = []

    def learn(self, step: Step) -> None:
        """Learn one step from scratch."""
        self.adapters = {}
        super().learn(step)
        a, b = (self.adapters[name].detach().clone() for name in step.modalities)
        self._learned.append((a, b))

    def weights(self, step: Step) -> tuple[Tensor, Tensor] | None:
        """Return the adapters that `step` was learned with, None for a step not learned yet."""
        return self._learned[step.place] if step.place < len(self._learned) else None

    def stored(self) -> Stored:
        """All adapters but those of the last step are kept beside them."""
        return Stored(bytes=sum(tensor_bytes(pair) for pair in self._learned[:-1]))
