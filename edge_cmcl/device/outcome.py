"""What cross-validation found for each pair of modalities, as people and generations are told it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_cmcl.bundle import PairRecord
from edge_cmcl.continual.metrics import bootstrap_interval, chance_mrr
from edge_cmcl.device.fitting import CrossValidation
from edge_cmcl.device.next_generation import origin_id
from edge_cmcl.device.plan import Plan


@dataclass(frozen=True)
class PairOutcome:
    """One pair of modalities before and after an update, on pairs that were held out.

    Attributes:
        modalities: the pair.
        n: held-out pairs judged.
        gallery: how many candidates each was ranked among, on average.
        chance: MRR of random ranking there.
        before: MRR before the update; None where one of the two was unknown then.
        after: MRR after it.
        interval: 95 % bootstrap interval of `after`, over groups where there are groups.
        change: interval of after - before, None where there is no before.
    """

    modalities: tuple[str, str]
    n: int
    gallery: float
    chance: float
    before: float | None
    after: float
    interval: tuple[float, float]
    change: tuple[float, float] | None

    def as_json(self) -> dict[str, Any]:
        """Return the outcome in JSON types."""
        return vars(self).copy()


def outcomes(plan: Plan, judged: CrossValidation) -> list[PairOutcome]:
    """Return the outcome of every pair of modalities that occurs in held-out rows of the update."""
    occurring = ~np.isnan(judged.scores[0]).all(axis=1)
    return [_outcome(plan, judged, int(place)) for place in np.flatnonzero(occurring)]


def pair_records(plan: Plan, device: str, found: Sequence[PairOutcome]) -> tuple[PairRecord, ...]:
    """Return what the generation keeps of the pairs that the update learned (those with the anchor)."""
    return tuple(
        PairRecord(
            modalities=outcome.modalities,
            origin=origin_id(device, plan.members),
            n=plan.rows,
            metrics={
                "mrr": outcome.after,
                "mrr_interval": list(outcome.interval),
                "mrr_chance": outcome.chance,
                "judged": outcome.n,
                "gallery": outcome.gallery,
            },
        )
        for outcome in found
        if plan.anchor in outcome.modalities
    )


def _outcome(plan: Plan, judged: CrossValidation, place: int) -> PairOutcome:
    i, j = judged.judge.pairs[place]
    names = (plan.members[i], plan.members[j])
    before, after = judged.scores[0, place], judged.scores[judged.epochs, place]
    seen = ~np.isnan(after)
    groups = plan.groups[seen] if plan.groups is not None else None
    known = not plan.new.intersection(names)
    return PairOutcome(
        modalities=names,
        n=int(seen.sum()),
        gallery=judged.gallery[place],
        chance=chance_mrr(round(judged.gallery[place])),
        before=float(before[seen].mean()) if known else None,
        after=float(after[seen].mean()),
        interval=bootstrap_interval(after[seen], groups),
        change=bootstrap_interval(after[seen] - before[seen], groups) if known else None,
    )
