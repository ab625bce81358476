"""What an update would cost, from a rehearsal of it on part of the recording (design.md section 2)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_cmcl.bundle.payloads import sketch_to_bytes
from edge_cmcl.continual.update_space import MAX_DIRECTIONS
from edge_cmcl.data import Pairs
from edge_cmcl.device.attempt import Attempt
from edge_cmcl.device.fitting import judged_splits
from edge_cmcl.device.golden import golden_windows
from edge_cmcl.device.members import MAX_REDUCED
from edge_cmcl.device.model import Model
from edge_cmcl.device.plan import Plan
from edge_cmcl.device.power import Power
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.text import TEXT

STORAGE_BYTES_S = 20e6
"""Assumed speed at which a device's flash takes small synced files; the store is not written to find out."""

_FLOAT_BYTES = 4
_DOCUMENTS_BYTES = 20_000


@dataclass(frozen=True)
class Cost:
    """What an update would cost.

    Attributes:
        seconds: by stage, as the update reports them.
        peak_memory_bytes: largest resident size of the process.
        bytes_added: new bytes in the store.
        scratch_bytes: work files beside the store while it runs.
        joules: energy at the power that the rehearsal took; None where the board does not report it.
        power_source: who measured the power, "" for nobody.
    """

    seconds: dict[str, float]
    peak_memory_bytes: int
    bytes_added: int
    scratch_bytes: int
    joules: float | None
    power_source: str

    @property
    def total_s(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {**vars(self), "total_s": self.total_s}


def forecast(
    model: Model,
    pairs: Pairs,
    plan: Plan,
    rehearsal: Attempt,
    seconds: Mapping[str, float],
    peak_memory_bytes: int,
    power: Power | None,
) -> Cost:
    """Return what the update of `plan` would cost.

    Args:
        model: the generation in use.
        pairs: the recording.
        plan: for the whole recording.
        rehearsal: the update on the part `rehearsal.plan`.
        seconds: what its stages took.
        peak_memory_bytes: largest resident size of the process after it.
        power: while it ran.
    """
    longer = plan.rows / rehearsal.plan.rows
    trained = sum(len(training) for training, _ in judged_splits(plan.splits))
    judged = trained / max(1, sum(len(training) for training, _ in judged_splits(rehearsal.plan.splits)))
    factors = {"encode": longer, "space": longer, "judge": judged, "train": longer, "fold": 1.0}
    expected = {stage: round(took * factors[stage], 3) for stage, took in seconds.items()}
    added = _bytes_added(model, pairs, rehearsal)
    began = time.monotonic()
    self_test(model)
    expected["commit"] = round(time.monotonic() - began + added / STORAGE_BYTES_S, 3)
    scratch = _scratch_bytes(model, plan, pairs.n)
    # Work files are mapped into memory: those of the rows left out come on top of what the rehearsal took.
    memory = peak_memory_bytes + round(scratch * (1.0 - rehearsal.plan.rows / plan.rows))
    joules = power.watts * sum(expected.values()) if power else None
    return Cost(expected, memory, added, scratch, joules, power.source if power else "")


def _bytes_added(model: Model, pairs: Pairs, rehearsal: Attempt) -> int:
    """Return the size of the blobs that a commit of `rehearsal` would add."""
    total = _DOCUMENTS_BYTES
    for each in rehearsal.learned:
        known = model.origins(each.name) if each.name in model.modalities else ()
        there = {(origin.id, origin.revision) for origin in known}
        changed = [origin for origin in each.origins if (origin.id, origin.revision) not in there]
        total += len(each.adapter_bytes) + sum(len(sketch_to_bytes(origin)) for origin in changed)
        if each.name != TEXT and each.record.golden_blob is None:
            total += golden_windows(each.name, each.record, pairs.shape(each.name)[0]).nbytes
    return total


def _scratch_bytes(model: Model, plan: Plan, n: int) -> int:
    """Return the size of the work files of an update: encoder outputs, and embeddings or reduced features."""
    total = 0
    for name in plan.members:
        width = plan.records[name].width
        columns = MAX_REDUCED if name in plan.new else model.generation.embedding_dim + MAX_DIRECTIONS
        total += n * _FLOAT_BYTES * (width + min(columns, width))
    return total
