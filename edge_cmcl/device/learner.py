"""The continual step on the device: encode, find the update space, train, judge, fold, certify, commit.

Design: design.md section 2. Nothing but the commit at the end changes the store; whatever interrupts the update before
it leaves the generation that was there, and the cache is removed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_cmcl.bundle import Loaded, Store
from edge_cmcl.bundle.payloads import Adapter
from edge_cmcl.bundle.store_folder import all_or_nothing
from edge_cmcl.bundle.tags import generation_tag
from edge_cmcl.data import Pairs
from edge_cmcl.device.encode import EncodedModality, cache_array, encode
from edge_cmcl.device.features import Statistics
from edge_cmcl.device.fitting import CrossValidation, cross_validate, fit
from edge_cmcl.device.guard import MAX_DRIFT, Failure, failures, record, refuse
from edge_cmcl.device.members import Member, known_member, new_member
from edge_cmcl.device.memory import peak_memory_bytes
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.next_generation import LearnedModality, learned_modality, next_generation, write_modality
from edge_cmcl.device.outcome import PairOutcome, outcomes, pair_records
from edge_cmcl.device.plan import Plan, make_plan
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.starting import start
from edge_cmcl.device.store import CURRENT, store_bytes
from edge_cmcl.device.text import TEXT, label_features
from edge_cmcl.device.trial import begun, noted
from edge_cmcl.progress import Progress, silent


@dataclass
class UpdateReport:
    """What an update did, or would do.

    Attributes:
        modality: the anchor.
        partners: what it was aligned with.
        learned: modalities that were new.
        pairs: number of pairs trained on.
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
        failed: checks of the guard that were overridden, or would refuse what a dry run did.
    """

    modality: str
    partners: tuple[str, ...]
    learned: tuple[str, ...]
    pairs: int
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
    failed: list[Failure] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the report in JSON types."""
        judged = [outcome.as_json() for outcome in self.judged]
        return {**vars(self), "judged": judged, "failed": [vars(failure).copy() for failure in self.failed]}


class _Clock:
    """Adds up wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def stage(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._last, 4)
        self._last = now


def update(
    store: Store,
    pairs: Pairs,
    modality: str,
    *,
    partners: Sequence[str] | None = None,
    task: str = "",
    budget_s: float | None = None,
    max_drift: float = MAX_DRIFT,
    force: bool = False,
    dry_run: bool = False,
    threads: int = 0,
    seed: int = 0,
    progress: Progress = silent,
) -> UpdateReport:
    """Let the store's current generation learn `modality` from `pairs`, and commit the result as the next one.

    The guard judges it first; what it refuses leaves no trace. The new generation is on trial until it is confirmed.

    Args:
        store: the device store.
        pairs: synchronised windows of the modality and its partners.
        modality: what to learn; a modality the generation knows is refined.
        partners: whom to align it with; by default every known modality in the data, and the labels.
        task: what the recording is of, where the same modalities are learned in several places: what was learned of
            another task is remembered beside it, where the same task replaces its own older part.
        budget_s: seconds after which training stops; what was reached by then is committed.
        max_drift: largest relative displacement bound that an origin may have afterwards.
        force: commit although the guard found recall or drift wanting; the generation says so.
        dry_run: do everything but commit.
        threads: CPU threads of one operator; 0 for one per core.
        seed: of the batch order.
        progress: told how far it is.

    Raises:
        UsageError, DataError: the data cannot teach it (see `plan.make_plan`).
        RefusedError: the guard refused the result.
        StoreLockedError: another process writes to the store.
        StorageError: there is no room.
    """
    deadline = time.monotonic() + budget_s if budget_s is not None else float("inf")
    clock = _Clock()
    with store.writer(), store.scratch() as folder:
        device = store.state().device_id  # first: a damaged state must not cost the training
        model = start(store, threads=threads)
        plan = make_plan(model, pairs, modality, partners, task)
        report = UpdateReport(modality, plan.partners, tuple(sorted(plan.new)), plan.rows)
        report.learned_before = plan.learned_before
        encoded = {name: _encode(model, plan, pairs, name, folder, progress) for name in plan.members}
        clock.stage("encode")
        members = [_member(model, plan, name, encoded[name], folder) for name in plan.members]
        clock.stage("space")
        dimensions = model.generation.embedding_dim
        judged = cross_validate(
            model.step_session, members, plan.ids, plan.splits, dimensions,
            seed=seed, deadline=deadline, progress=progress,
        )  # fmt: skip
        clock.stage("judge")
        weights, report.steps, epochs = fit(
            model.step_session, members, plan.ids, judged, dimensions, seed=seed, deadline=deadline, progress=progress
        )
        clock.stage("train")
        # Where time ran out, what is told of held-out pairs is what they said of as many epochs as were done.
        _judge(report, plan, replace(judged, epochs=epochs), deadline)
        learned = [
            learned_modality(
                model, member.name, plan.records[member.name],
                _adapter(model, plan, member.name, weight, encoded[member.name]),
                member.sketch, device, plan.members, task,
            )
            for member, weight in zip(members, weights, strict=True)
        ]  # fmt: skip
        report.certificate = [vars(c).copy() for each in learned for c in each.certificates]
        report.failed = failures(
            {each.name: each.adapter.weight for each in learned},
            [certificate for each in learned for certificate in each.certificates],
            report.judged,
            max_drift,
        )
        clock.stage("fold")
        if not dry_run:
            refuse([failure for failure in report.failed if not force or failure.final])
            _commit(store, model, plan, pairs, learned, report)
            clock.stage("commit")
    report.seconds = clock.seconds
    report.peak_memory_bytes = peak_memory_bytes()
    return report


def _encode(model: Model, plan: Plan, pairs: Pairs, name: str, folder: Path, progress: Progress) -> EncodedModality:
    if name != TEXT:
        return encode(pairs, name, model.make_encoder(name, plan.records[name]), folder, progress, plan.paired)
    labels = plan.ids[plan.partners.index(TEXT)]
    features = label_features(pairs.label_names)
    raw = cache_array(folder / "text.raw.npy", (len(labels), features.shape[1]))
    raw[:] = np.where(labels[:, None] >= 0, features[labels], 0.0)
    ones = np.ones(features.shape[1], np.float32)
    return EncodedModality(raw, labels >= 0, Statistics(np.zeros_like(ones), ones))


def _member(model: Model, plan: Plan, name: str, encoded: EncodedModality, folder: Path) -> Member:
    if name in plan.new:
        return new_member(name, encoded, encoded.statistics, folder)
    adapter = model.adapter(name)
    return known_member(name, encoded, statistics_of(adapter), adapter.weight, model.origins(name), folder)


def _adapter(
    model: Model, plan: Plan, name: str, weight: np.ndarray[Any, np.dtype[np.float32]], encoded: EncodedModality
) -> Adapter:
    if name not in plan.new:
        known = model.adapter(name)
        return Adapter(weight, known.mean, known.std)
    if name == TEXT:
        return Adapter(weight)
    return Adapter(weight, encoded.statistics.mean, encoded.statistics.std)


def _judge(report: UpdateReport, plan: Plan, judged: CrossValidation, deadline: float) -> None:
    report.penalty = judged.penalty
    report.epochs = judged.epochs
    report.judged = outcomes(plan, judged)
    report.budget_exhausted = not judged.complete or time.monotonic() >= deadline


def _commit(
    store: Store, model: Model, plan: Plan, pairs: Pairs, learned: Sequence[LearnedModality], report: UpdateReport
) -> None:
    before = store_bytes(store)
    with all_or_nothing(store):
        records = {}
        for each in learned:
            encoder = None if each.name == TEXT else model.make_encoder(each.name, plan.records[each.name])
            samples = 0 if each.name == TEXT else pairs.shape(each.name)[0]
            records[each.name] = write_modality(store, model, each, encoder, samples, pairs.label_names)
        metrics = {"update": {"pairs": plan.rows, "epochs": report.epochs, "steps": report.steps}}
        if report.failed:
            metrics["guard"] = record(report.failed)
        device = store.state().device_id
        judged = pair_records(plan, device, report.judged, model.generation)
        generation = next_generation(model, device, records, learned, judged, metrics)

        def accept(new: Loaded) -> None:
            self_test(Model(new))  # as it came back from the disk
            state = noted(store.state(), model.generation.counter)
            store.save_state(begun(state, model.loaded.digest, new.digest, generation.created))

        report.committed = store.commit(generation, [CURRENT, generation_tag(generation)], accept)
    report.counter = generation.counter
    report.bytes_added = store_bytes(store) - before
