"""What changes or describes what a device knows: install, status, update."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cmcl.cli.console import progress, show, table, warn, warned
from edge_cmcl.cli.options import Json, Store, default_store
from edge_cmcl.cli.outputs import check_folder
from edge_cmcl.cli.terms import CLOSED_FORM, MOVED, MRR, OUTSIDE, STILL
from edge_cmcl.limits import MAX_DRIFT

if TYPE_CHECKING:
    from edge_cmcl import bundle
    from edge_cmcl.device.drift import Drift
    from edge_cmcl.device.renewal import StatisticsFit
    from edge_cmcl.device.update_report import UpdateReport

app = typer.Typer()

Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 for one per core.")]


@app.command(epilog="Example: edge-cmcl install base.tar --trust base.key.pub")
def install(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a folder, or a tar file.")],
    trust: Annotated[
        str, typer.Option("--trust", help="A fingerprint or public key file to trust from now on: it signed this.")
    ] = "",
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Take it although no trusted key has signed it, on record.")
    ] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Install a signed bundle on this device."""
    from edge_cmcl.device.store import install as install_bundle

    target = store or default_store()
    done = install_bundle(bundle, target, trust=trust, allow_unsigned=allow_unsigned)
    signer = f"signed by {done.signed_by}" if done.signed_by else "NOT SIGNED by anyone who is trusted here"
    text = (
        f"installed {done.name}, generation {done.counter}, into {target}\n"
        f"it knows {', '.join(done.modalities)}; this device is {done.device_id}\n{signer}"
    )
    show({"store": target, **done.as_json()}, text, json=json)


@app.command(epilog="Example: edge-cmcl status --data today.safetensors")
def status(
    data: Annotated[
        Path | None, typer.Option("--data", help="Recent windows: tells whether its sensors are as they were learned.")
    ] = None,
    prometheus: Annotated[
        Path | None, typer.Option("--prometheus", help="Write it to this file too, for a textfile collector.")
    ] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Show what this device knows, how well, and how far it has moved.

    With --data it also watches for drift: how much energy of recent windows lies outside everything learned. A sensor
    that was remounted, or fails, is beyond the threshold.
    """
    from edge_cmcl.device.status import status as read_status
    from edge_cmcl.device.store import open_store

    opened = open_store(store or default_store())
    with warned() as told:
        found = read_status(opened)
    found["warnings"] = told
    rows = [
        [each["modality"], each["encoder"], each["width"], origin["pairs"], "+".join(origin["partners"]), bound(origin)]
        for each in found["modalities"]
        for origin in each["origins"]
    ]
    header = ["modality", "encoder", "width", "pairs", "learned with", "moved at most"]
    pairs = [[" - ".join(pair["modalities"]), pair["n"], *_quality(pair["metrics"])] for pair in found["pairs"]]
    lines = [
        f"{found['name']}, generation {found['counter']} ({found['action']}, {found['created']})",
        f"signed by {signed(found)}",
        f"device {found['device_id']}, {found['store_bytes'] / 1e6:.1f} MB in {found['store']}",
        *_trial(found),
        *_synced(found),
        *_runs(found),
        "",
        table(header, rows),
        MOVED,
        "",
        table(["pair", "learned from pairs", "held-out MRR", "95 % interval", "MRR by chance"], pairs),
        MRR,
    ]
    watched: list[Drift] = []
    if data is not None:
        watched, warnings = _watch(opened, data)
        found |= {"drift": [each.as_json() for each in watched], "warnings": [*told, *warnings]}
        lines += ["", describe_drift(watched)]
    if prometheus is not None:
        from edge_cmcl.device.exposition import write_exposition

        check_folder(prometheus)
        write_exposition(prometheus, opened, found, watched)
    show(found, "\n".join(lines), json=json)


@app.command(epilog="Example: edge-cmcl update --modality acoustic --data new.safetensors --with vibration")
def update(
    modality: Annotated[str, typer.Option("--modality", help="The sensor to learn, new or known.")],
    data: Annotated[Path, typer.Option("--data", help="A pairs file of it and its partners, at least 16 pairs.")],
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
    """
    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.fits import near
    from edge_cmcl.device.learner import update as learn
    from edge_cmcl.device.store import CURRENT, open_store

    os.nice(nice)
    opened = open_store(store or default_store())
    known = set(opened.load(CURRENT).generation.modalities)
    with open_pairs(data) as pairs, progress() as told, warned() as warnings:
        for name in {modality, *(partner or ())} - known:
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
    show({**report.as_json(), "warnings": warnings}, describe_update(report), json=json)


def describe_drift(watched: Sequence[Drift]) -> str:
    """Return what the drift watch found for people."""
    rows = [
        [each.modality, each.windows, _share(each.outside), _share(each.threshold), _share(each.beyond), each.verdict]
        for each in watched
    ]
    header = ["recent windows of", "n", "energy outside", "normal up to", "windows beyond", "verdict"]
    return f"{table(header, rows)}\n{OUTSIDE.format(share=max(each.false_alarms for each in watched))}"


def _watch(store: bundle.Store, data: Path) -> tuple[list[Drift], list[str]]:
    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.drift import drift
    from edge_cmcl.device.starting import start

    with open_pairs(data) as pairs, progress() as told, warned() as warnings:
        return drift(start(store), pairs, progress=told), warnings


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


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


def _trial(found: dict[str, Any]) -> list[str]:
    """Return what there is to say of trials: one that runs, and the last one that failed."""
    lines = []
    if found["trial"]:
        back_to = found["trial"]["back_to"]
        which = "an older one" if back_to is None else f"generation {back_to}"
        lines.append(f"on trial: if it fails, {which} is used again; `edge-cmcl confirm` keeps it")
    if found["reverted"]:
        failed = found["reverted"]
        lines.append(f"generation {failed['digest'][7:19]} failed its trial at {failed['since']}: {failed['reason']}")
    return lines


def _runs(found: dict[str, Any]) -> list[str]:
    """Return where encoders run that are not in float32 on the CPU."""
    lines = []
    for each in found["modalities"]:
        if each["precision"] not in (None, "fp32") or each["target"] not in (None, "cpu"):
            lines.append(f"{each['modality']}: {each['precision']} for {each['target']}, run by {each['provider']}")
    return lines


def _synced(found: dict[str, Any]) -> list[str]:
    """Return what there is to say of syncs."""
    known = found["sync"]
    if known is None:
        return []
    left = f"{known['unsent']} generations to send" if known["unsent"] else "everything sent"
    return [f"syncs with {known['remote']}, reported {known['reported'] or 'never'}: {left}"]


def _quality(metrics: dict[str, Any]) -> list[object]:
    """Return what a pair's record says of it: MRR, its interval, chance; None where it was not judged."""
    interval = metrics.get("mrr_interval")
    shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else None
    return [metrics.get("mrr"), shown, metrics.get("mrr_chance")]


def signed(generation: dict[str, Any]) -> str:
    """Return by whom a generation of `status` or `log` is signed."""
    from edge_cmcl.device.signing import SignedBy

    return str(SignedBy(**generation["signed_by"]))


def bound(origin: dict[str, Any]) -> str:
    """Return the relative displacement bound of an origin as a percentage."""
    return f"{origin['relative_displacement_bound']:.2%}"
