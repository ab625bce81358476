"""What an experiment tracker is told of a fleet, as plain values: a run for each generation and whose word it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from edge_cmcl.bundle.attested import Promotion
from edge_cmcl.host.fleet.fleet import Fleet, latest_decision
from edge_cmcl.host.fleet.overview import overview
from edge_cmcl.report.fleet import FleetOverview, Score

HOST = "host"
"""Stands for the device in runs of generations that the host has judged or promoted."""
TAG = "edge_cmcl."
"""What the names of our tags begin with."""
KEY = f"{TAG}key"
"""The tag by which a run is found again: the device, and the generation's digest."""
RELEASE, TRIAL, FOR = "release", "trial", "for-"
"""Aliases: what is released to all, what is on trial, and before a device's id what is promoted to it alone."""


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        key: "device.acoustic-text.mrr": whose word it is, the pair, the metric.
        value: the figure.
        at: when, as bundles write it.
        step: the generation's counter.
    """

    key: str
    value: float
    at: str
    step: int


@dataclass
class Tracked:
    """One generation as one device, or the host, knows it.

    Attributes:
        device: id of the device, `HOST` for the host.
        digest: the generation.
        counter: the generation's, None where nothing here tells it.
        at: when it began.
        metrics: by key.
        tags: by name.
    """

    device: str
    digest: str
    counter: int | None
    at: str
    metrics: dict[str, Metric] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """By what the run is found again."""
        return f"{self.device}/{self.digest}"

    @property
    def name(self) -> str:
        """What people call the run."""
        return f"{self.device[:16]} {self.digest[7:19] if self.counter is None else self.counter}"

    def add(self, key: str, value: float, at: str) -> None:
        """Add a figure; where one has the same key, that of the later time stays."""
        old = self.metrics.get(key)
        if old is None or old.at <= at:
            self.metrics[key] = Metric(key, value, at, self.counter or 0)


@dataclass(frozen=True)
class Tracking:
    """All that is told of a fleet.

    Attributes:
        project: its name, "" for an empty fleet.
        remote: where the generations are.
        runs: the oldest generations first.
        aliases: digests of generations by the alias that is to point to them.
    """

    project: str
    remote: str
    runs: tuple[Tracked, ...]
    aliases: Mapping[str, str]


def tracking(fleet: Fleet) -> Tracking:
    """Return what a tracker is told of `fleet`.

    Raises:
        FormatError, DigestError: something of the fleet is damaged.
    """
    found = overview(fleet)
    runs = _runs(found)
    for run in runs.values():
        run.tags |= {KEY: run.key, f"{TAG}device": run.device, f"{TAG}digest": run.digest, f"{TAG}project": found.name}
        if fleet.store.has(run.digest):
            generation = fleet.store.load_manifest(run.digest).generation
            run.tags[f"{TAG}parents"] = ",".join(generation.parents)
            run.tags.setdefault(f"{TAG}action", generation.action)
    ordered = sorted(runs.values(), key=lambda run: (run.counter or 0, run.at, run.device))
    return Tracking(found.name, found.remote, tuple(ordered), aliases(fleet))


def aliases(fleet: Fleet) -> dict[str, str]:
    """Return what each alias is to point to: of several trials the latest, and nothing to what is withdrawn."""
    state, found = fleet.state(), dict[str, str]()
    trials: list[Promotion] = []
    for device in fleet.devices().values():
        decision = latest_decision(device, state.for_all)
        if decision is not None and decision.device_id and decision.stage != "withdrawn":
            found[FOR + _word(device.device_id)] = decision.manifest
            trials += [decision] if decision.stage == TRIAL else []
    if state.for_all is not None and state.for_all.stage == RELEASE:
        found[RELEASE] = state.for_all.manifest
    if state.for_all is not None and state.for_all.stage == TRIAL:
        trials.append(state.for_all)
    if trials:
        found[TRIAL] = max(trials, key=lambda each: each.serial).manifest
    return found


def _runs(found: FleetOverview) -> dict[tuple[str, str], Tracked]:
    runs: dict[tuple[str, str], Tracked] = {}

    def run(device: str, digest: str, counter: int | None, at: str) -> Tracked:
        return runs.setdefault((device, digest), Tracked(device, digest, counter, at))

    for device in found.devices:
        for past in device.history:
            each = run(device.device_id, past.digest, past.counter, past.at)
            each.tags[f"{TAG}action"] = past.action
            each.add("counter", past.counter, past.at)
            each.add("certificate.worst", past.worst, past.at)
    scores = found.scores
    origins = _origins(scores)
    for score in scores:
        each = run(score.device or HOST, score.digest, score.counter, score.at)
        _add(each, score, alone=score.whose != "host" and len(origins[_about(score)]) == 1)
    for refusal in found.refusals:
        each = run(refusal.device, refusal.digest, refusal.counter, refusal.at)
        each.tags |= {f"{TAG}refused": refusal.kind, f"{TAG}reason": refusal.reason}
    for decision in found.promoted:
        run(HOST, decision.digest, decision.counter, decision.at)
    return runs


def _about(score: Score) -> tuple[str, ...]:
    return (score.whose, score.device, score.digest, score.pair)


def _origins(scores: Iterable[Score]) -> dict[tuple[str, ...], set[str]]:
    found: dict[tuple[str, ...], set[str]] = {}
    for score in scores:
        found.setdefault(_about(score), set()).add(score.origin)
    return found


def _add(run: Tracked, score: Score, *, alone: bool) -> None:
    """Add the figures of a score; what its pairs were of stands in the keys unless it is `alone`."""
    pair = _word(score.pair.replace(" - ", "-"))
    word = {"device": "device", "offer": "offered", "host": HOST}[score.whose]
    where = "" if alone else f".{_word(score.origin)}"
    for metric, value in score.metrics.items():
        run.add(f"{word}.{pair}.{metric}{where}", value, score.at)
    if score.before is not None:
        run.add(f"{word}.{pair}.mrr_before{where}", score.before, score.at)


def _word(text: str) -> str:
    """Return a text as part of a key or an alias: where something must be replaced, with a hash, to stay apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", text)[:64]
    return plain if plain == text else f"{plain}-{sha256(text.encode()).hexdigest()[:6]}"
