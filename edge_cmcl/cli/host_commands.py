"""The host's commands: train, export, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cmcl.cli.console import progress, show, table, warned
from edge_cmcl.cli.options import Json, Store, default_store, host_keys, need_host
from edge_cmcl.cli.outputs import check_bundle
from edge_cmcl.cli.signers import Key, signers
from edge_cmcl.cli.terms import CLOSED_FORM, MRR

if TYPE_CHECKING:
    from edge_cmcl.device.evaluate import PairMetrics

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl train edge-cmcl.toml --run runs/first")
def train(
    project: Annotated[Path, typer.Argument(help="The project file, or its folder.")] = Path(),
    run: Annotated[Path | None, typer.Option("--run", help="The run folder. [default: runs/NAME]")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the project's.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished run.")] = False,
    json: Json = False,
) -> None:
    """Train the base model of a project; a cut-off run goes on."""
    need_host()
    from edge_cmcl.host.train import train as train_base
    from edge_cmcl.project import load_project

    loaded = load_project(project)
    folder = run or loaded.folder / "runs" / loaded.name
    with progress() as told, warned() as warnings:
        done = train_base(project, folder, device=device, seed=seed, force=force, progress=told)
    best = done.metrics["adapters"]["epochs"][done.metrics["adapters"]["best_epoch"]]
    chances = [pair["chance_mrr"] for pair in done.metrics["pairs"]]
    reached = f"best after epoch {best['epoch']}" if best["epoch"] else CLOSED_FORM
    text = (
        f"trained {loaded.name} on {done.metrics['device']} in {done.metrics['seconds']:.1f} s: "
        f"validation MRR {best['validation_mrr']:.3f} (by chance {sum(chances) / len(chances):.3f}); {reached}\n"
        f"{MRR}\n"
        f"{folder}: next, edge-cmcl export {folder} --out {loaded.name}.tar"
    )
    show({"run": folder, "run_id": done.run_id, **done.metrics, "warnings": warnings}, text, json=json)


@app.command(epilog="Example: edge-cmcl export runs/my-machine --out base.tar")
def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle: a folder, or a tar file.")],
    key: Key = None,
    counter: Annotated[
        int | None,
        typer.Option("--counter", min=1, help="Devices refuse lower ones. [default: one more a run; 1 with --key]"),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="fp32, fp16, int8 or int8-dynamic; NAME=int8 for one sensor. Repeatable."),
    ] = None,
    target: Annotated[str, typer.Option("--target", help="cpu, cuda or tensorrt: where devices run it.")] = "cpu",
    max_loss: Annotated[
        float, typer.Option("--max-loss", min=0.0, help="Points of R@10 or accuracy that a pair may lose.")
    ] = 0.5,
    project: Annotated[
        Path | None, typer.Option("--project", help="Where the run's project is now, for a reduced precision.")
    ] = None,
    json: Json = False,
) -> None:
    """Export a run to a signed bundle for devices, parity proven."""
    need_host()
    check_bundle(out)
    signing, rotations = signers(key)  # before torch is loaded: what is wrong is told at once
    from edge_cmcl.host.counting import counter_of
    from edge_cmcl.host.export import export as export_run
    from edge_cmcl.host.precision import at_precision, checked_target, chosen_precisions, export_id
    from edge_cmcl.host.run import load_run

    loaded = load_run(run)
    precisions = chosen_precisions(loaded, precision or ())
    target = checked_target(target)
    with progress() as told, warned() as warnings:
        exported, encoders = at_precision(loaded, precisions, target, max_loss=max_loss, project=project, progress=told)
        if not key:  # only now: what the gate refuses takes no number
            counter = counter or counter_of(host_keys(), loaded.project.name, export_id(loaded, precisions))
        done = export_run(
            exported, out, told, counter=counter or 1, signers=signing, rotations=rotations, encoders=encoders
        )
    text = (
        f"{out}: generation {done['counter']}, {', '.join(done['modalities'])}, {done['bytes'] / 1e6:.1f} MB\n\n"
        f"{_graphs(done)}\n\n"
        f"signed by {' and '.join(done['signed_by'])}\n"
        f"on a device: edge-cmcl install {out} --trust {done['signed_by'][0]}"
    )
    show({**done, "warnings": warnings}, text, json=json)


def _graphs(done: dict[str, Any]) -> str:
    """Return what an export says of its graphs, and of held-out pairs where a precision was reduced."""
    rows = [
        [name, done["runtime"].get(name, {}).get("precision", "fp32"), difference]
        for name, difference in done["parity"].items()
    ]
    parts = [table(["graph", "precision", "largest difference from torch, or from itself one by one"], rows)]
    if done["gate"]:
        judged = [[p["pair"], p["rows"], p["measure"], p["fp32"], p["now"], p["lost"]] for p in done["gate"]["pairs"]]
        parts.append(table(["pair", "held out", "measure, %", "fp32", "now", "lost"], judged))
    return "\n\n".join(parts)


@app.command(epilog="Example: edge-cmcl evaluate runs/my-machine --data test.safetensors")
def evaluate(
    data: Annotated[list[Path], typer.Option("--data", help="A pairs file; repeat for more.")],
    target: Annotated[
        Path | None, typer.Argument(help="A run folder, a bundle, or a device store. [default: --store]")
    ] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Measure a run, bundle or store on pairs files."""
    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.evaluate import evaluate as measure
    from edge_cmcl.device.evaluate import overall
    from edge_cmcl.device.opening import open_target
    from edge_cmcl.device.store import open_store

    found: list[PairMetrics] = []
    if target is None:
        target = open_store(store or default_store()).root
    with progress() as told, warned() as warnings, open_target(target, _run_opener) as model:
        generation = {"digest": model.loaded.digest, "counter": model.generation.counter}
        for path in data:
            with open_pairs(path) as pairs:
                found += measure(model, pairs, told)
    means = overall(found)
    result = {"target": target, "generation": generation, "pairs": [p.as_json() for p in found], "overall": means}
    show({**result, "warnings": warnings}, describe_metrics(found, means), json=json)


def _run_opener(folder: Path) -> Any:
    need_host()
    from edge_cmcl.host.export import exported_model

    return exported_model(folder)


def describe_metrics(found: list[PairMetrics], means: dict[str, float]) -> str:
    """Return the metrics of an evaluation for people."""
    retrieved = [
        [Path(p.file).name, " - ".join(p.modalities), int(p.metrics["n"])]
        + [_percent(p.metrics[f"recall_at_{k}"]) for k in (1, 5, 10)]
        + [p.metrics["mrr"], _percent(p.metrics["chance_recall_at_10"])]
        for p in found
        if "mrr" in p.metrics
    ]
    classified = [
        [Path(p.file).name, p.modalities[0], int(p.metrics["n"])]
        + [_percent(p.metrics[name]) for name in ("accuracy", "map", "chance_accuracy")]
        for p in found
        if "accuracy" in p.metrics
    ]
    parts = []
    if retrieved:
        parts.append(table(["file", "pair", "gallery", "R@1", "R@5", "R@10", "MRR", "chance R@10"], retrieved))
    if classified:
        parts.append(table(["file", "sensor", "windows", "accuracy", "mAP", "chance accuracy"], classified))
    parts.append("mean over the rows above  " + "  ".join(_mean(name, value) for name, value in means.items()))
    return "\n\n".join(parts)


def _mean(name: str, value: float) -> str:
    shown = {"recall_at_1": "R@1", "recall_at_5": "R@5", "recall_at_10": "R@10", "mrr": "MRR", "map": "mAP"}
    return f"{shown.get(name, name)} {value:.4g}" if name == "mrr" else f"{shown.get(name, name)} {_percent(value)}"


def _percent(share: float) -> str:
    return f"{share:.1%}"
