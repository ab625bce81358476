"""Assessing a sensor before an update is spent on it: is it worth it, what would it cost, and what would it risk?

Nothing in the store changes, no lock is taken, and work files go to a temporary folder. Up to `MAX_ROWS` pairs, spread
evenly over the recording, are encoded; the update is rehearsed on them, and their pairing compared with shuffled ones.
The policy that turns the figures into a recommendation is `advice`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import Store
from edge_cmcl.data import Pairs, open_pairs, write_pairs
from edge_cmcl.data.splits import evenly
from edge_cmcl.device import advice
from edge_cmcl.device.advice import MIN_PAIRS, Advice, Evidence, Findings, advise, too_little
from edge_cmcl.device.attempt import Attempt, Request, attempt
from edge_cmcl.device.cost import Cost, forecast
from edge_cmcl.device.encode import OutputCache, encode
from edge_cmcl.device.encoders import BATCH, UniversalEncoder
from edge_cmcl.device.evidence import label_evidence, new_share, pair_evidence, splits_among
from edge_cmcl.device.features import RunningStatistics, standardise, unit
from edge_cmcl.device.guard import Failure
from edge_cmcl.device.held_out import keep_back, usual_share
from edge_cmcl.device.memory import peak_memory_bytes
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.outcome import PairOutcome
from edge_cmcl.device.plan import Plan, make_plan, universal_record
from edge_cmcl.device.power import PowerMeter
from edge_cmcl.device.starting import current_model
from edge_cmcl.device.text import TEXT, label_features
from edge_cmcl.device.universal import DEFAULT_WIDTH
from edge_cmcl.device.update_report import Clock
from edge_cmcl.errors import DeadSensorError, TooLittleDataError
from edge_cmcl.limits import MAX_DRIFT
from edge_cmcl.progress import Progress, silent

MAX_ROWS = 512
"""Pairs looked at: enough to tell any relation that is worth an update, and few enough for a small board."""

Array = NDArray[np.float32]


@dataclass
class Assessment:
    """What an assessment found. Where the data are too little to look at, everything but the advice is empty.

    Attributes:
        modality: the sensor.
        partners: what it would be aligned with.
        known: whether the generation has learned it already.
        recommendation: "learn", "do not learn" or "unclear".
        reasons: why, the decisive one first.
        pairs: rows with the sensor and a partner; None where they were too few for a plan.
        looked_at: how many of them were looked at.
        evidence: how well the sensor predicts each partner.
        new_share: how much of the sensor is new beside the known sensors of the recording: 0 for a copy of one, 1 for
            an unrelated one, noise included (see `evidence.new_share`); None without a known sensor.
        judged: pairs of modalities before and after a rehearsal of the update, on held-out pairs.
        certificate: predicted displacement bound of every origin of the modalities that would change.
        failed: checks of the guard that the rehearsal failed.
        cost: what the update would cost.
        seconds: what the assessment took.
    """

    modality: str
    partners: tuple[str, ...]
    known: bool
    recommendation: str
    reasons: list[str]
    pairs: int | None = None
    looked_at: int = 0
    evidence: list[Evidence] = field(default_factory=list)
    new_share: float | None = None
    judged: list[PairOutcome] = field(default_factory=list)
    certificate: list[dict[str, Any]] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    cost: Cost | None = None
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {
            **vars(self),
            "evidence": [each.as_json() for each in self.evidence],
            "judged": [each.as_json() for each in self.judged],
            "failed": [vars(each).copy() for each in self.failed],
            "cost": self.cost.as_json() if self.cost else None,
        }


def assess(
    store: Store,
    pairs: Pairs,
    modality: str,
    *,
    partners: Sequence[str] | None = None,
    max_drift: float = MAX_DRIFT,
    threads: int = 0,
    progress: Progress = silent,
) -> Assessment:
    """Say whether the store's current generation should learn `modality` from `pairs`. Changes nothing in the store.

    Args:
        store: the device store.
        pairs: synchronised windows of the modality and its partners.
        modality: what would be learned, new or known.
        partners: whom it would be aligned with; by default every known modality in the data, and the labels.
        max_drift: largest relative displacement bound that the update would be allowed.
        threads: CPU threads of one operator; 0 for one per core.
        progress: told how far it is.

    Raises:
        UsageError, DataError: the data cannot teach it, for another reason than that there is too little of it.
        StorageError: there is no room for work files.
    """
    began = time.monotonic()
    model = current_model(store, threads)
    known = modality in model.modalities

    def without_figures(advised: Advice, plan: Plan | None = None) -> Assessment:
        chosen = plan.partners if plan else tuple(partners or ())
        pairs_ = plan.rows if plan else None
        return Assessment(modality, chosen, known, advised.recommendation, advised.reasons, pairs_)

    try:
        plan = make_plan(model, pairs, modality, partners)
    except TooLittleDataError as error:
        why = f"too little data: {error.message}: expected {error.expected}, got {error.got}"
        return without_figures(too_little(modality, 0, why))
    if plan.rows < MIN_PAIRS:
        return without_figures(too_little(modality, plan.rows), plan)
    with TemporaryDirectory(prefix="edge-cmcl-assess-") as folder:
        try:
            found = _look(store, model, pairs, plan, max_drift, progress, Path(folder))
        except DeadSensorError as error:
            reason = f"{error.message}: {error.got}"
            return without_figures(Advice(advice.DO_NOT_LEARN, [reason, error.hint]), plan)
        except TooLittleDataError as error:
            return without_figures(too_little(modality, plan.rows, f"too little data: {error.message}"), plan)
    found.seconds = round(time.monotonic() - began, 3)
    return found


def _look(
    store: Store, model: Model, pairs: Pairs, plan: Plan, max_drift: float, progress: Progress, folder: Path
) -> Assessment:
    """Rehearse the update and test the pairing on an excerpt of the recording."""
    meter = PowerMeter()

    def told(stage: str, done: int, total: int) -> None:
        meter.sample()
        progress(stage, done, total)

    with _excerpt(pairs, plan, folder) as part:
        small = plan if part is pairs else _same_sensors(plan, make_plan(model, part, plan.anchor, plan.partners))
        clock = Clock()
        cache = OutputCache(folder)
        state = store.state()
        request = Request(model, part, state.device_id, cache, max_drift, False, None, 0, float("inf"), clock, told)
        rehearsal = attempt(request, keep_back(small, part, usual_share(state))[0], folder)
        memory, seconds, power = peak_memory_bytes(), dict(clock.seconds), meter.read()
        features = _features(model, part, small, cache)
        evidence = [_evidence(model, part, small, features, partner, told) for partner in small.partners]
        share = _new_share(model, part, small, features)
        cost = forecast(model, part, plan, rehearsal, seconds, memory, power)
    known = plan.anchor not in plan.new
    findings = Findings(plan.anchor, known, plan.rows, evidence, share, rehearsal.judged, rehearsal.failed)
    advised = advise(findings)
    if plan.learned_before is not None:
        advised.reasons.append(f"generation {plan.learned_before} learned this very file: the figures flatter")
    return Assessment(
        plan.anchor, plan.partners, known, advised.recommendation, advised.reasons, plan.rows, small.rows, evidence,
        share, rehearsal.judged, _certificate(rehearsal), rehearsal.failed, cost,
    )  # fmt: skip


def _certificate(rehearsal: Attempt) -> list[dict[str, Any]]:
    return [vars(each).copy() for learned in rehearsal.learned for each in learned.certificates]


def _excerpt(pairs: Pairs, plan: Plan, folder: Path) -> Pairs:
    """Return `pairs`, or a recording of `MAX_ROWS` of its pairs, spread evenly, where it has more rows."""
    if pairs.n <= MAX_ROWS:
        return pairs
    paired = np.flatnonzero(plan.paired)
    rows = paired[evenly(len(paired), MAX_ROWS)]
    sensors = [name for name in plan.members if name != TEXT]
    path = folder / "excerpt.safetensors"
    write_pairs(
        path,
        {name: np.concatenate([pairs.read(name, row, row + 1) for row in rows]) for name in sensors},
        labels=None if pairs.labels is None else pairs.labels[rows],
        label_names=pairs.label_names,
        groups=None if pairs.groups is None else pairs.groups[rows],
        time=None if pairs.time is None else pairs.time[rows],
        valid={name: pairs.valid(name)[rows] for name in sensors},
        rate_hz={name: pairs.rate_hz[name] for name in sensors if name in pairs.rate_hz},
        units={name: pairs.units[name] for name in sensors if name in pairs.units},
        source=pairs.source,
    )
    return open_pairs(path)


def _same_sensors(plan: Plan, part: Plan) -> Plan:
    """Return the plan `part` with the records of the whole: a new sensor's scale comes from the whole recording."""
    return replace(part, records=plan.records, recording=plan.recording)


def _features(model: Model, pairs: Pairs, plan: Plan, cache: OutputCache) -> dict[str, Array]:
    """Return unit features (n, width) of every sensor of the plan; they have been encoded."""
    found = {}
    for name in plan.members:
        if name != TEXT:
            encoder = model.make_encoder(name, plan.records[name])
            encoded = encode(pairs, name, encoder, cache, silent, plan.paired)
            statistics = encoded.statistics if name in plan.new else statistics_of(model.adapter(name))
            found[name] = np.concatenate([features for _, features in encoded.features(statistics)])
    return found


def _evidence(
    model: Model, pairs: Pairs, plan: Plan, features: dict[str, Array], partner: str, progress: Progress
) -> Evidence:
    ids = plan.ids[plan.partners.index(partner)]
    rows = np.flatnonzero(ids >= 0)
    own, splits = features[plan.anchor][rows], splits_among(plan.splits, rows, len(ids))
    groups = plan.groups[rows] if plan.groups is not None else None
    share = len(plan.partners)
    if partner == TEXT:
        occurring, labels = np.unique(ids[rows], return_inverse=True)
        names = label_features(pairs.label_names)[occurring]
        if partner not in plan.new:
            names = unit(names @ model.adapter(TEXT).weight.T)
        return label_evidence(own, names, labels, splits, groups, share, progress)
    theirs = features[partner][rows]
    if partner not in plan.new:
        theirs = unit(theirs @ model.adapter(partner).weight.T)
    return pair_evidence(partner, own, theirs, splits, groups, share, progress)


def _new_share(model: Model, pairs: Pairs, plan: Plan, features: dict[str, Array]) -> float | None:
    """Return how much of the anchor is new beside the known sensors of the plan, None where there is none."""
    sensors = [name for name in plan.partners if name != TEXT and name not in plan.new]
    if not sensors:
        return None
    rows = np.flatnonzero(np.all([plan.ids[plan.partners.index(name)] >= 0 for name in sensors], axis=0))
    if len(rows) < MIN_PAIRS:
        return None
    splits = splits_among(plan.splits, rows, plan.ids.shape[1])
    known = [features[name][rows] for name in sensors]
    return new_share(features[plan.anchor][rows], known, _copy(model, pairs, plan.anchor)[rows], splits)


def _copy(model: Model, pairs: Pairs, modality: str) -> Array:
    """Return unit features (n, width) of a sensor by another encoder than its own: of other random kernels."""
    name = f"{modality}_copy"
    record = universal_record(pairs, modality, DEFAULT_WIDTH, model.generation.universal)
    encoder = UniversalEncoder(model.universal_session, name, record)
    raw = np.concatenate([encoder(pairs.read(modality, at, at + BATCH)) for at in range(0, pairs.n, BATCH)])
    running = RunningStatistics(record.width)
    running.update(raw[pairs.valid(modality)])
    return standardise(raw, running.statistics())
