"""What an update did, as it is told to people and scripts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from edge_cmcl.device.guard import Failure
from edge_cmcl.device.outcome import PairOutcome
from edge_cmcl.device.renewal import StatisticsFit


@dataclass
class UpdateReport:
    """What an update did, or would do.

    Attributes:
        modality: the anchor.
        partners: what it was aligned with.
        learned: modalities that were new.
        pairs: number of pairs trained on.
        held_back: number of pairs kept back in the store to judge models by.
        committed: manifest digest of the new generation, "" for a dry run.
        counter: its counter.
        penalty: ridge penalty of new adapters, None where none was new.
        epochs: epochs trained.
        steps: training steps done.
        judged: each pair of modalities before and after, on held-out pairs.
        certificate: displacement bound of every origin of the changed modalities.
        bytes_added: new bytes in the store.
        seconds: wall time by stage.
        peak_memory_bytes: largest resident size of the process.
        budget_exhausted: whether a time budget ended training early.
        learned_before: counter of the generation that learned the anchor from this very file, None where none did. What
            is held out to judge was learned then, so the figures flatter.
        statistics: how the statistics of each known sensor fit the recording.
        renewed: known sensors whose statistics were renewed.
        failed: checks of the guard that were overridden, or would refuse what a dry run did.
        stages: pairs learned from in each stage, the last one being all of them.
    """

    modality: str
    partners: tuple[str, ...]
    learned: tuple[str, ...]
    pairs: int
    held_back: int = 0
    committed: str = ""
    counter: int = 0
    penalty: float | None = None
    epochs: int = 0
    steps: int = 0
    judged: list[PairOutcome] = field(default_factory=list)
    certificate: list[dict[str, Any]] = field(default_factory=list)
    bytes_added: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    budget_exhausted: bool = False
    learned_before: int | None = None
    statistics: list[StatisticsFit] = field(default_factory=list)
    renewed: tuple[str, ...] = ()
    failed: list[Failure] = field(default_factory=list)
    stages: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the report in JSON types."""
        judged = [outcome.as_json() for outcome in self.judged]
        statistics = [fit.as_json() for fit in self.statistics]
        failed = [vars(failure).copy() for failure in self.failed]
        return {**vars(self), "judged": judged, "statistics": statistics, "failed": failed}


class Clock:
    """Adds up wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def stage(self, name: str) -> None:
        """Book the time since the last call under `name`."""
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._last, 4)
        self._last = now
