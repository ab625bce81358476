"""What the page of a fleet shows, as plain values: a host makes them of its fleet (host/fleet/overview.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

METRICS = ("mrr", "recall_at_1", "recall_at_10")
"""The metrics that devices tell; the accuracy that a host finds against labels is their R@1."""

Whose = Literal["device", "offer", "host"]
"""Whose word a score is: a device's of what it had in use, a device's of what it was offered, or the host's."""


@dataclass(frozen=True)
class Score:
    """How well one generation knows one pair of modalities, and whose word that is.

    Attributes:
        pair: the modalities, "acoustic - text".
        whose: whose word it is.
        device: id of the device whose word it is, "" for the host.
        digest: the generation.
        counter: the generation's, None where nothing here tells it.
        at: when, as "2026-01-31T23:59:59Z".
        metrics: those of `METRICS` that are known, as shares.
        n: pairs or windows judged, 0 where that is not told.
        gallery: candidates that each was ranked among, 0 where that is not told.
        origin: what the pairs were of: a learned step of the device, or a file of the host.
        before: MRR of what the device had in use, for what it was offered; None where it did not know the pair.
    """

    pair: str
    whose: Whose
    device: str
    digest: str
    counter: int | None
    at: str
    metrics: Mapping[str, float]
    n: int = 0
    gallery: int = 0
    origin: str = ""
    before: float | None = None


@dataclass(frozen=True)
class Moved:
    """One generation that a device had in use.

    Attributes:
        digest, counter, at, action: of the generation.
        worst: largest relative displacement bound of its certificate, a share.
    """

    digest: str
    counter: int
    at: str
    action: str
    worst: float


@dataclass(frozen=True)
class Refusal:
    """A generation that a device did not take, or went back from.

    Attributes:
        device: id of the device.
        digest: the generation.
        counter: the generation's, None where nothing here tells it.
        kind: "declined" before it was in use, "reverted" when its trial failed.
        at: when, by the device's clock.
        reason: why.
        scores: what the device found of it.
    """

    device: str
    digest: str
    counter: int | None
    kind: Literal["declined", "reverted"]
    at: str
    reason: str
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True)
class Promoted:
    """What the host decided of one generation, for all devices or for some.

    Attributes:
        digest, counter: the generation.
        stage: "trial", "release" or "withdrawn".
        at: when, the latest of the decisions.
        for_all: whether it is for all devices, those that come later too.
        answers: what each device that follows it has done, by id: "in use", "declined", ...
    """

    digest: str
    counter: int
    stage: str
    at: str
    for_all: bool
    answers: Mapping[str, str]


@dataclass(frozen=True)
class FleetDevice:
    """One device, by what it sent last.

    Attributes:
        device_id: its id.
        digest, counter: the generation in use.
        state: "on trial", "confirmed", or "reverted" where it went back to it from a failed trial.
        seen: when the host first saw that.
        told: when the device said it, by its clock.
        unsent: generations that it could not send yet.
        software: what it runs.
        history: its generations, the oldest first.
        scores: its word of them.
        follows: the decision that it follows, as "release of 7", "" for none.
        answer: what it has done about that.
    """

    device_id: str
    digest: str
    counter: int
    state: Literal["on trial", "confirmed", "reverted"]
    seen: str
    told: str
    unsent: int
    software: str
    history: tuple[Moved, ...]
    scores: tuple[Score, ...]
    follows: str
    answer: str

    @property
    def worst(self) -> float | None:
        """The displacement bound of the generation in use, None where it is not known."""
        return next((each.worst for each in self.history if each.digest == self.digest), None)

    @property
    def now(self) -> list[Score]:
        """Its word of the generation in use."""
        return [each for each in self.scores if each.digest == self.digest]


@dataclass(frozen=True)
class FleetOverview:
    """A fleet.

    Attributes:
        name: of the project, "" before the first device.
        remote: with which it syncs.
        made: when this was put together.
        devices: by id.
        offers: what devices found of generations that they were offered.
        measured: what the host found on pairs of its own.
        refusals: the latest first.
        promoted: what is decided, the latest first.
    """

    name: str
    remote: str
    made: str
    devices: tuple[FleetDevice, ...]
    offers: tuple[Score, ...]
    measured: tuple[Score, ...]
    refusals: tuple[Refusal, ...]
    promoted: tuple[Promoted, ...]

    @property
    def scores(self) -> list[Score]:
        """Every score: the devices' word of what they had in use and were offered, and the host's."""
        return [each for device in self.devices for each in device.scores] + [*self.offers, *self.measured]

    @property
    def pairs(self) -> list[str]:
        """Every pair of which something is told, by name."""
        return sorted({score.pair for score in self.scores})


@dataclass(frozen=True)
class PairRow:
    """What is known of one pair now.

    Attributes:
        pair: its name.
        devices: how many tell something of it, of the generation that they have in use.
        medians: median over devices of each metric, a share.
        lowest, highest: MRR of the worst and the best device; None where none tells.
        lowest_device: id of the worst.
        host: the host's latest of a generation.
    """

    pair: str
    devices: int
    medians: Mapping[str, float]
    lowest: float | None
    highest: float | None
    lowest_device: str
    host: Score | None


def pair_rows(fleet: FleetOverview) -> list[PairRow]:
    """Return one row for each pair: what devices say of what they have in use, and the host's latest."""
    now = [score for device in fleet.devices for score in device.now]
    return [
        _pair_row(pair, [s for s in now if s.pair == pair], [s for s in fleet.measured if s.pair == pair])
        for pair in fleet.pairs
    ]


def _pair_row(pair: str, told: Sequence[Score], host: Sequence[Score]) -> PairRow:
    known = [score for score in told if "mrr" in score.metrics]
    worst = min(known, key=lambda score: score.metrics["mrr"], default=None)
    return PairRow(
        pair=pair,
        devices=len({score.device for score in told}),
        medians={metric: median(score.metrics[metric] for score in known) for metric in METRICS if known},
        lowest=worst.metrics["mrr"] if worst else None,
        highest=max((score.metrics["mrr"] for score in known), default=None),
        lowest_device=worst.device if worst else "",
        host=max(host, key=lambda score: score.at, default=None),
    )
