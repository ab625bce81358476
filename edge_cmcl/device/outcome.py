"""What cross-validation found for each pair of modalities, as people and generations are told it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_cmcl.bundle import Generation, PairRecord
from edge_cmcl.continual.metrics import bootstrap_interval, chance_mrr
from edge_cmcl.device.fitting import CrossValidation
from edge_cmcl.device.next_generation import origin_id
from edge_cmcl.device.plan import RECORDINGS, Plan, learned_from

MAX_RECORDINGS = 200
"""Digests that a pair keeps of what it was learned from, the latest ones."""


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

    @property
    def no_better_than_chance(self) -> bool:
        """Whether the interval of a newly learned pair reaches down to chance: it may have learned nothing."""
        return self.before is None and self.interval[0] <= self.chance

    def as_json(self) -> dict[str, Any]:
        """Return the outcome in JSON types."""
        return {**vars(self), "no_better_than_chance": self.no_better_than_chance}


def outcomes(plan: Plan, judged: CrossValidation) -> list[PairOutcome]:
    """Return the outcome of every pair of modalities that occurs in held-out rows of the update."""
    occurring = ~np.isnan(judged.scores[0]).all(axis=1)
    return [_outcome(plan, judged, int(place)) for place in np.flatnonzero(occurring)]


def pair_records(plan: Plan, device: str, found: Sequence[PairOutcome], before: Generation) -> tuple[PairRecord, ...]:
    """Return what the generation after `before` keeps of the pairs that the update learned (those with the anchor)."""
    origin = origin_id(device, plan.members, plan.task)

    def recordings(modalities: tuple[str, str]) -> dict[str, Any]:
        same = [pair for pair in before.pairs if {*pair.modalities} == {*modalities} and pair.origin == origin]
        known = {**learned_from(same, plan.anchor), plan.recording: before.counter + 1}
        return dict(sorted(known.items(), key=lambda entry: entry[1])[-MAX_RECORDINGS:])

    return tuple(
        PairRecord(
            modalities=outcome.modalities,
            origin=origin,
            n=plan.rows,
            metrics={
                "mrr": outcome.after,
                "mrr_interval": list(outcome.interval),
                "mrr_chance": outcome.chance,
                "judged": outcome.n,
                "gallery": outcome.gallery,
                RECORDINGS: recordings(outcome.modalities),
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
