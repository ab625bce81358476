"""One attempt of an update, committing nothing: fitted adapters, their certificates and the guard's verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle.payloads import Adapter
from edge_cmcl.continual.sketch import Sketch, noise_deviation, noisy
from edge_cmcl.data import Pairs
from edge_cmcl.device.drift import calibrated_record
from edge_cmcl.device.encode import EncodedModality, OutputCache, cache_array, encode
from edge_cmcl.device.features import Statistics
from edge_cmcl.device.fitting import cross_validate, fit
from edge_cmcl.device.guard import Failure, failures
from edge_cmcl.device.members import Member, known_member, new_member
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.next_generation import LearnedModality, learned_modality
from edge_cmcl.device.outcome import PairOutcome, outcomes
from edge_cmcl.device.plan import Plan
from edge_cmcl.device.renewal import StatisticsFit, fits, renewed
from edge_cmcl.device.text import TEXT, label_features
from edge_cmcl.device.update_report import Clock
from edge_cmcl.progress import Progress

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """What an update was asked for, and what it works with.

    Attributes:
        model: the generation to continue.
        pairs: the recording.
        device: the device's id, which its origins carry.
        cache: encoder outputs, shared by all stages.
        max_drift: largest relative displacement bound that the guard lets pass.
        renew_stale: whether statistics of known sensors that no longer fit are renewed.
        sketch_noise: epsilon of the noise in the sketches of sensors, None for none (`sketch.noisy`).
        seed: of the batch order.
        deadline: `time.monotonic()` at which training stops.
        clock: books where the time goes.
        progress: told how far it is.
    """

    model: Model
    pairs: Pairs
    device: str
    cache: OutputCache
    max_drift: float
    renew_stale: bool
    sketch_noise: float | None
    seed: int
    deadline: float
    clock: Clock
    progress: Progress


@dataclass(frozen=True)
class Attempt:
    """What one attempt came to.

    Attributes:
        plan: what it learned from.
        model: the generation that it continues, with renewed statistics where those are.
        statistics: how the statistics of each known sensor fit the recording.
        learned: every changed modality, ready to be written.
        judged: pairs before and after, on held-out pairs.
        failed: checks of the guard that it does not pass.
        penalty: chosen ridge penalty, None where no modality is new.
        epochs: whole epochs trained.
        steps: training steps.
        complete: False where the deadline ended it early.
    """

    plan: Plan
    model: Model
    statistics: list[StatisticsFit]
    learned: Sequence[LearnedModality]
    judged: list[PairOutcome]
    failed: list[Failure]
    penalty: float | None
    epochs: int
    steps: int
    complete: bool


def attempt(request: Request, plan: Plan, folder: Path) -> Attempt:
    """Learn what `plan` says; work files go to `folder`.

    Raises:
        DataError: a window does not fit its modality, or a sensor is dead.
        StorageError: there is no room for the work files.
    """
    clock = request.clock
    encoded = {name: _encode(request, plan, name, folder) for name in plan.members}
    statistics = fits(request.model, encoded)
    model = renewed(request.model, statistics, encoded) if request.renew_stale else request.model
    clock.stage("encode")
    members = [_member(model, plan, name, encoded[name], folder) for name in plan.members]
    clock.stage("space")
    dimensions, session = model.generation.embedding_dim, model.step_session
    how: dict[str, Any] = {"seed": request.seed, "deadline": request.deadline, "progress": request.progress}
    judged = cross_validate(session, members, plan.ids, plan.splits, dimensions, **how)
    clock.stage("judge")
    weights, steps, epochs = fit(session, members, plan.ids, judged, dimensions, **how)
    clock.stage("train")
    adapters = [
        _adapter(model, plan, member.name, weight, encoded[member.name])
        for member, weight in zip(members, weights, strict=True)
    ]
    learned = [
        learned_modality(
            model, member.name,
            calibrated_record(model, plan, request.pairs, member.name, encoded[member.name], request.device),
            adapter,
            _kept_sketch(request, member, encoded[member.name], adapter), request.device, plan.members, plan.task,
        )
        for member, adapter in zip(members, adapters, strict=True)
    ]  # fmt: skip
    # Where time ran out, what is told of held-out pairs is what they said of as many epochs as were done.
    pairs = outcomes(plan, replace(judged, epochs=epochs))
    certificates = [certificate for each in learned for certificate in each.certificates]
    failed = failures({each.name: each.adapter.weight for each in learned}, certificates, pairs, request.max_drift)
    complete = judged.complete and time.monotonic() < request.deadline
    clock.stage("fold")
    return Attempt(plan, model, statistics, learned, pairs, failed, judged.penalty, epochs, steps, complete)


def _kept_sketch(request: Request, member: Member, encoded: EncodedModality, adapter: Adapter) -> Sketch:
    """Return what is kept of a member's features: their sketch, noise in it where that was asked for.

    It is added here, once, and not when a sketch is sent: what is drawn at every sync could be averaged away. Label
    names are no secret that noise could keep: they are in the generation themselves.
    """
    if request.sketch_noise is None or member.name == TEXT:
        return member.sketch
    width, n = adapter.weight.shape[1], member.sketch.n
    moment = np.zeros((width, width))
    for rows, features in encoded.features(statistics_of(adapter)):
        learned = features[encoded.learned[rows]].astype(np.float64)
        moment += learned.T @ learned / n
    return noisy(moment, n, noise_deviation(n, request.sketch_noise), np.random.default_rng())


def _encode(request: Request, plan: Plan, name: str, folder: Path) -> EncodedModality:
    if name != TEXT:
        encoder = request.model.make_encoder(name, plan.records[name])
        return encode(request.pairs, name, encoder, request.cache, request.progress, plan.paired, plan.within)
    labels = plan.ids[plan.partners.index(TEXT)]
    features = label_features(request.pairs.label_names)
    raw = cache_array(folder / "text.raw.npy", (len(labels), features.shape[1]))
    raw[:] = np.where(labels[:, None] >= 0, features[labels], 0.0)
    ones = np.ones(features.shape[1], np.float32)
    return EncodedModality(raw, labels >= 0, Statistics(np.zeros_like(ones), ones))


def _member(model: Model, plan: Plan, name: str, encoded: EncodedModality, folder: Path) -> Member:
    if name in plan.new:
        return new_member(name, encoded, encoded.statistics, folder)
    adapter = model.adapter(name)
    return known_member(name, encoded, statistics_of(adapter), adapter.weight, model.origins(name), folder)


def _adapter(model: Model, plan: Plan, name: str, weight: Array, encoded: EncodedModality) -> Adapter:
    if name not in plan.new:
        known = model.adapter(name)
        return Adapter(weight, known.mean, known.std)
    if name == TEXT:
        return Adapter(weight)
    return Adapter(weight, encoded.statistics.mean, encoded.statistics.std)
