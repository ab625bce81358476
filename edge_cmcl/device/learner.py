"""The continual step: a generation and a recording of a new sensor become the next generation (design.md section 2).

Encode once, find the update space, choose by cross-validation, train, fold in place, certify, judge, commit. Nothing of
the recording stays but sketches, statistics, figures and the few pairs that are kept back to judge by (`held_out`), and
nothing at all if it fails or is interrupted.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.store_files import all_or_nothing
from edge_cmcl.data import Pairs
from edge_cmcl.device.attempt import Attempt, Request, attempt
from edge_cmcl.device.commit import commit_on_trial
from edge_cmcl.device.encode import OutputCache
from edge_cmcl.device.guard import record, refuse
from edge_cmcl.device.held_out import HeldOutWarning, collected, keep_back, remove, save, usual_share
from edge_cmcl.device.memory import memory_limit, peak_memory_bytes
from edge_cmcl.device.next_generation import next_generation, origin_id, write_modality
from edge_cmcl.device.outcome import pair_records
from edge_cmcl.device.plan import Plan, make_plan
from edge_cmcl.device.signing import check_signer
from edge_cmcl.device.stages import stages
from edge_cmcl.device.starting import start
from edge_cmcl.device.store import store_bytes
from edge_cmcl.device.text import TEXT
from edge_cmcl.device.update_report import Clock, UpdateReport
from edge_cmcl.errors import DataError, StorageError
from edge_cmcl.limits import MAX_DRIFT
from edge_cmcl.progress import Progress, silent


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
    stages_wanted: int = 1,
    hold_back: float | None = None,
    sketch_noise: float | None = None,
    max_memory_bytes: int | None = None,
    renew_stale: bool = False,
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
        renew_stale: renew the statistics of known sensors that no longer fit the recording (see `renewal`).
        force: commit although the guard found recall or drift wanting; the generation says so.
        stages_wanted: learn from growing parts of the recording first, and stop where the guard refuses one already.
        hold_back: share of the pairs to keep back, to judge this and later models by (see `held_out`); by default
            `held_out.usual_share`.
        sketch_noise: epsilon of the noise that hides single windows in what is remembered, None for none.
        max_memory_bytes: memory of its own that the process may have meanwhile (`memory.memory_limit`).
        dry_run: do everything but commit.
        threads: CPU threads of one operator; 0 for one per core.
        seed: of the batch order.
        progress: told how far it is.

    Raises:
        UsageError, DataError: the data cannot teach it (see `plan.make_plan`).
        RefusedError: the guard refused the result.
        StoreLockedError: another process writes to the store.
        StorageError: there is no room.
        PlatformError: the memory limit was reached.
    """
    deadline = time.monotonic() + budget_s if budget_s is not None else float("inf")
    clock = Clock()
    with store.writer(), store.scratch() as folder:
        state = store.state()  # first: a damaged state or key must not cost the training
        device, share = state.device_id, usual_share(state) if hold_back is None else hold_back
        check_signer(store)
        model = start(store, threads=threads)  # without the limit: too little memory is no verdict on a trial
        with memory_limit(max_memory_bytes):
            plan = make_plan(model, pairs, modality, partners, task)
            learned, kept_back = keep_back(plan, pairs, share)
            report = UpdateReport(modality, plan.partners, tuple(sorted(plan.new)), learned.rows)
            report.learned_before = plan.learned_before
            cache = OutputCache(folder)
            request = Request(
                model, pairs, device, cache, max_drift, renew_stale, sketch_noise, seed, deadline, clock, progress
            )
            for part in stages(learned, pairs, stages_wanted):
                report.stages.append(part.rows)
                work = folder / f"stage-{len(report.stages)}"
                work.mkdir()
                done = attempt(request, part, work)
                _tell(report, done)
                if not dry_run:
                    refuse([failure for failure in done.failed if not force or failure.final], part.rows, learned.rows)
            if not dry_run:
                _commit(store, request, done, report)
                _keep(store, request, plan, kept_back, report)
                clock.stage("commit")
    report.seconds = clock.seconds
    report.peak_memory_bytes = peak_memory_bytes()
    return report


def _keep(store: Store, request: Request, plan: Plan, rows: NDArray[np.bool_], report: UpdateReport) -> None:
    """Write the pairs that were kept back. The update is committed: failing costs nothing but a judgement."""
    origin = origin_id(request.device, plan.members, plan.task)
    try:
        if not rows.any():
            remove(store, origin)
            return
        save(store, collected(request.model, request.pairs, plan, rows, origin, request.cache))
    except (DataError, StorageError) as error:
        warnings.warn(f"the pairs kept back could not be kept: {error.message}", HeldOutWarning, stacklevel=3)
    else:
        report.held_back = int(rows.sum())


def _tell(report: UpdateReport, done: Attempt) -> None:
    report.penalty, report.epochs, report.steps = done.penalty, done.epochs, done.steps
    report.judged, report.failed = done.judged, done.failed
    report.statistics, report.renewed = done.statistics, done.model.renewed
    report.budget_exhausted = not done.complete
    report.certificate = [vars(c).copy() for each in done.learned for c in each.certificates]


def _commit(store: Store, request: Request, done: Attempt, report: UpdateReport) -> None:
    model, pairs, plan = done.model, request.pairs, done.plan
    before = store_bytes(store)
    with all_or_nothing(store):
        records = {}
        for each in done.learned:
            encoder = None if each.name == TEXT else model.make_encoder(each.name, plan.records[each.name])
            samples = 0 if each.name == TEXT else pairs.shape(each.name)[0]
            records[each.name] = write_modality(store, model, each, encoder, samples, pairs.label_names)
        told = {"pairs": plan.rows, "epochs": done.epochs, "steps": done.steps}
        metrics: dict[str, object] = {"update": {**told, "seconds": round(sum(request.clock.seconds.values()), 1)}}
        if model.renewed:
            metrics["renewed"] = list(model.renewed)
        if done.failed:
            metrics["guard"] = record(done.failed)
        judged = pair_records(plan, request.device, done.judged, model.generation)
        generation = next_generation(model, request.device, records, done.learned, judged, metrics)
        report.committed = commit_on_trial(store, model.loaded.digest, generation)
    report.counter = generation.counter
    report.bytes_added = store_bytes(store) - before
