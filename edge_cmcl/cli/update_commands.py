"""Learning a sensor: update."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cmcl.cli.console import progress, show, table, warn, warned
from edge_cmcl.cli.options import Json, Store, Threads, default_store
from edge_cmcl.cli.terms import CLOSED_FORM, MOVED, MRR, STILL
from edge_cmcl.limits import MAX_DRIFT

if TYPE_CHECKING:
    from edge_cmcl.device.renewal import StatisticsFit
    from edge_cmcl.device.update_report import UpdateReport

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl update --modality acoustic --data new.safetensors --with vibration")
def update(
    modality: Annotated[str, typer.Option("--modality", help="The sensor to learn, new or known.")],
    data: Annotated[
        Path, typer.Option("--data", help="A pairs file or recording of it and its partners, at least 16 pairs.")
    ],
    partner: Annotated[
        list[str] | None,
        typer.Option("--with", help='A partner; repeat. "text" is the labels. [default: all known, and labels]'),
    ] = None,
    task: Annotated[
        str, typer.Option("--task", help="What this is a recording of; other tasks of the same sensors are kept too.")
    ] = "",
    budget: Annotated[
        float | None, typer.Option("--budget", min=0.0, help="Seconds after which training ends and commits.")
    ] = None,
    max_drift: Annotated[
        float,
        typer.Option("--max-drift", min=0.0, help="Refuse to move what was learned by more; 0.1 is 10 %."),
    ] = MAX_DRIFT,
    force: Annotated[
        bool, typer.Option("--force", help="Commit although recall or drift fails the guard; it is recorded.")
    ] = False,
    stages: Annotated[
        int, typer.Option("--stages", min=1, max=8, help="Learn from growing parts first; stop where one is refused.")
    ] = 1,
    hold_back: Annotated[
        float | None,
        typer.Option(
            "--hold-back",
            min=0.0,
            max=0.5,
            help="Share of pairs to judge models by. [default: 0.1 if it syncs, or 0]",
        ),
    ] = None,
    sketch_noise: Annotated[
        float | None,
        typer.Option("--sketch-noise", min=0.01, help="Hide single windows in what is remembered: epsilon."),
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option("--max-memory", min=1.0, max=1e9, help="MB of its own memory that it may take.")
    ] = None,
    nice: Annotated[
        int, typer.Option("--nice", min=0, max=19, help="Give way to other processes: 19 is the most polite.")
    ] = 0,
    renew: Annotated[
        bool, typer.Option("--renew", help="Renew the statistics of known sensors that no longer fit the recording.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the recording: else its files are deleted once it is learned.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")] = False,
    threads: Threads = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order of batches.")] = 0,
    store: Store = None,
    json: Json = False,
) -> None:
    """Let this device learn a sensor from paired windows.

    It takes at least 16 pairs: rows of the file that have the sensor and a partner. A few minutes of recording are
    usual; what the file says of rate, window and unit must be what the partners were learned with. The result is
    refused, and leaves no trace, where it moves what was learned earlier too far or makes known pairs worse. It is on
    trial until `edge-cmcl confirm`.

    A recording (a folder of .mcap files, or one of them) is aligned first, as `edge-cmcl pair` does, into windows as
    long and dense as its known sensors were learned with. Raw data is not kept: once the update is committed, the files
    of the recording that were read are deleted, unless --keep is given. A pairs file is always kept.
    """
    from edge_cmcl.cli import recordings
    from edge_cmcl.device.fits import near
    from edge_cmcl.device.learner import update as learn
    from edge_cmcl.device.store import CURRENT, open_store

    os.nice(nice)
    opened = open_store(store or default_store())
    known = opened.load(CURRENT).generation.modalities
    named = {modality, *(partner or ())}
    with ExitStack() as stack:
        told, warnings = stack.enter_context(progress()), stack.enter_context(warned())
        folder = None
        if recordings.is_recording(data):  # raw data goes where a kill leaves nothing behind
            stack.enter_context(opened.writer())
            folder = stack.enter_context(opened.scratch())
        pairs, paired = stack.enter_context(
            recordings.opened(
                data, known, told, wanted=named if partner else {*named, *known}, required=named, folder=folder
            )
        )
        for name in named - known.keys():
            similar = near(name, known, cutoff=0.8)
            if similar and name in pairs.modalities:
                warnings.append(f"{name} is NEW to this device: {similar} If so, roll back and rename it in {data}")
                warn(warnings[-1])
        report = learn(
            opened, pairs, modality,
            partners=partner, task=task, budget_s=budget, max_drift=max_drift, force=force, renew_stale=renew,
            stages_wanted=stages, hold_back=hold_back, dry_run=dry_run, threads=threads, seed=seed, progress=told,
            sketch_noise=sketch_noise,
            max_memory_bytes=None if max_memory is None else int(max_memory * 1e6),
        )  # fmt: skip
    result, text = {**report.as_json(), "warnings": warnings}, describe_update(report)
    if paired is not None:
        result["recording"], text = paired.as_json(), f"{recordings.describe(paired)}\n\n{text}"
        if report.committed and not keep:
            result["recording"] |= recordings.delete(data, paired).as_json()
    show(result, text, json=json)


def describe_update(report: UpdateReport) -> str:
    """Return the outcome of an update for people."""
    judged = [
        [
            " - ".join(pair.modalities),
            pair.n,
            pair.chance,
            pair.before,
            pair.after,
            f"{pair.interval[0]:.3f} to {pair.interval[1]:.3f}",
        ]
        for pair in report.judged
    ]
    moved = [[c["modality"], c["origin"], f"{c['relative']:.3%}"] for c in report.certificate if c["bound"] > 0]
    names = [f"{name} (NEW)" if name in report.learned else name for name in (report.modality, *report.partners)]
    trained = f"{report.epochs} epochs" if report.epochs else CLOSED_FORM
    kept_back = f"; {report.held_back} more kept back to judge models by" if report.held_back else ""
    lines = [
        f"{names[0]} with {', '.join(names[1:])}: {report.pairs} pairs; {trained}{kept_back}",
        "",
        table(["held-out pairs", "n", "MRR by chance", "before", "after", "95 % interval"], judged),
        MRR,
        "",
        f"{table(['modality', 'learned earlier as', 'moved at most'], moved)}\n{MOVED}" if moved else STILL,
        "",
        f"{sum(report.seconds.values()):.1f} s, {report.peak_memory_bytes / 1e6:.0f} MB at most, "
        f"{report.bytes_added / 1e6:.1f} MB added",
    ]
    lines += [_stale(fit, report.renewed) for fit in report.statistics if fit.stale]
    if report.budget_exhausted:
        lines.append("the time budget ended training early")
    for failure in report.failed:
        verb = "was overridden" if report.committed else "would refuse it"
        lines.append(f"WARNING: the guard {verb}: {failure.message}: {failure.got}")
    if report.learned_before is not None:
        lines.append(
            f"WARNING: generation {report.learned_before} learned this very file, so the pairs held out here were not "
            "new to it: the figures flatter"
        )
    for pair in report.judged:
        if pair.no_better_than_chance:
            undo = "; `edge-cmcl rollback` undoes it" if report.committed else ""
            lines.append(f"WARNING: {' - '.join(pair.modalities)}: no better than chance on held-out pairs{undo}")
    kept = f"generation {report.counter} is current, on trial: `edge-cmcl confirm` keeps it"
    ending = kept if report.committed else "dry run: nothing was changed"
    return "\n".join([*lines, ending])


def _stale(fit: StatisticsFit, renewed: Sequence[str]) -> str:
    """Return the warning that a sensor's statistics no longer fit."""
    found = f"the statistics of {fit.modality} no longer fit: its scores have {fit.energy:.2g} times the energy"
    if fit.modality in renewed:
        return f"{found}; they were renewed, and older embeddings stay"
    advice = "--renew renews them" if fit.renewable else "they cannot be renewed: part of it was never calibrated"
    return f"WARNING: {found}; {advice}"
