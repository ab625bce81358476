"""The device's commands: install, status, embed, classify, retrieve, update, rollback, log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cmcl.cli.console import progress, show, table
from edge_cmcl.cli.options import Json, Store, default_store

if TYPE_CHECKING:
    from edge_cmcl.device.learner import UpdateReport

app = typer.Typer()

Data = Annotated[Path, typer.Argument(help="A pairs file.")]
Modalities = Annotated[
    list[str] | None, typer.Option("--modality", help="A sensor to use; repeat to fuse. [default: all known]")
]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 for one per core.")]


@app.command()
def install(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a folder, or a tar file.")],
    store: Store = None,
    json: Json = False,
) -> None:
    """Install a bundle on this device."""
    from edge_cmcl.device.store import install as install_bundle

    target = store or default_store()
    done = install_bundle(bundle, target)
    text = (
        f"installed {done.name}, generation {done.counter}, into {target}\n"
        f"it knows {', '.join(done.modalities)}; this device is {done.device_id}"
    )
    show({"store": target, **done.as_json()}, text, json=json)


@app.command()
def status(store: Store = None, json: Json = False) -> None:
    """Show what this device knows, and how far it has moved."""
    from edge_cmcl.device.status import status as read_status
    from edge_cmcl.device.store import open_store

    found = read_status(open_store(store or default_store()))
    rows = [
        [each["modality"], each["encoder"], each["width"], origin["pairs"], "+".join(origin["partners"]), bound(origin)]
        for each in found["modalities"]
        for origin in each["origins"]
    ]
    header = ["modality", "encoder", "width", "pairs", "learned with", "moved at most"]
    text = (
        f"{found['name']}, generation {found['counter']} ({found['action']}, {found['created']})\n"
        f"device {found['device_id']}, {found['store_bytes'] / 1e6:.1f} MB in {found['store']}\n\n{table(header, rows)}"
    )
    show(found, text, json=json)


@app.command()
def embed(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")],
    modality: Modalities = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Write the joint embedding of every moment of a file."""
    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.opening import open_model
    from edge_cmcl.device.use import joint_embeddings, write_joint

    model = open_model(store or default_store())
    with open_pairs(data) as pairs, progress() as told:
        joint = joint_embeddings(model, pairs, modality or (), told)
    write_joint(out, joint, model)
    n, dimensions = joint.embeddings.shape
    result = {"out": out, "n": n, "embedding_dim": dimensions, "present": int(joint.present.sum())}
    text = f"{out}: {n} embeddings of {dimensions} numbers from {', '.join(joint.modalities)}"
    show({**result, "modalities": joint.modalities}, text, json=json)


@app.command()
def classify(
    data: Data,
    modality: Modalities = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="A label to choose from; repeat. [default: all learned]")
    ] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Name the label that each moment of a file looks like."""
    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.opening import open_model
    from edge_cmcl.device.use import classify as classify_data

    model = open_model(store or default_store())
    with open_pairs(data) as pairs, progress() as told:
        found = classify_data(model, pairs, modality or (), label or (), told)
    moments = [
        {"row": row, "label": found.names[index] if index >= 0 else None, "similarity": similarity, "margin": margin}
        for row, (index, similarity, margin) in enumerate(
            zip(found.labels.tolist(), found.similarity.tolist(), found.margin.tolist(), strict=True)
        )
    ]
    shown = [[m["row"], m["label"], m["similarity"], m["margin"]] for m in moments]
    text = table(["row", "label", "similarity", "margin"], shown)
    if found.accuracy is not None:
        text += f"\naccuracy against the labels of {data}: {found.accuracy:.1%}"
    result = {"modalities": found.modalities, "labels": found.names, "moments": moments, "accuracy": found.accuracy}
    show(result, text, json=json)


@app.command()
def retrieve(
    query: Annotated[Path, typer.Argument(help="The pairs file with the query.")],
    gallery: Annotated[Path, typer.Argument(help="The pairs file to search.")],
    query_modality: Annotated[
        list[str] | None, typer.Option("--from", help="Sensors of the query; repeat to fuse. [default: all known]")
    ] = None,
    gallery_modality: Annotated[
        list[str] | None, typer.Option("--in", help="Sensors of the gallery; repeat to fuse. [default: all known]")
    ] = None,
    row: Annotated[list[int] | None, typer.Option("--row", help="A row of the query; repeat. [default: 0]")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Hits to show for each row.")] = 10,
    store: Store = None,
    json: Json = False,
) -> None:
    """Find the moments of a file most like those of another."""
    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.opening import open_model
    from edge_cmcl.device.use import joint_embeddings
    from edge_cmcl.device.use import retrieve as find

    model = open_model(store or default_store())
    with open_pairs(query) as queries, open_pairs(gallery) as searched, progress() as told:
        asked = joint_embeddings(model, queries, query_modality or (), told)
        known = joint_embeddings(model, searched, gallery_modality or (), told)
    hits = find(asked, known, row or [0], top)
    rows = [
        [hit.query, place, found, similarity]
        for hit in hits
        for place, (found, similarity) in enumerate(zip(hit.rows, hit.similarity, strict=True), start=1)
    ]
    result = {"from": asked.modalities, "in": known.modalities, "hits": [vars(hit) for hit in hits]}
    show(result, table(["query", "place", "row", "similarity"], rows), json=json)


@app.command()
def update(
    modality: Annotated[str, typer.Option("--modality", help="The sensor to learn, new or known.")],
    data: Annotated[Path, typer.Option("--data", help="A pairs file of it and its partners.")],
    partner: Annotated[
        list[str] | None,
        typer.Option("--with", help='A partner; repeat. "text" is the labels. [default: all known, and labels]'),
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", min=0.0, help="Seconds after which training ends and commits.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")] = False,
    threads: Threads = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order of batches.")] = 0,
    store: Store = None,
    json: Json = False,
) -> None:
    """Let this device learn a sensor from paired windows."""
    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.learner import update as learn
    from edge_cmcl.device.store import open_store

    opened = open_store(store or default_store())
    with open_pairs(data) as pairs, progress() as told:
        report = learn(
            opened, pairs, modality,
            partners=partner, budget_s=budget, dry_run=dry_run, threads=threads, seed=seed, progress=told,
        )  # fmt: skip
    show(report.as_json(), describe_update(report), json=json)


@app.command()
def rollback(
    generation: Annotated[str, typer.Argument(help="A tag or digest of `log`. [default: the parent]")] = "",
    store: Store = None,
    json: Json = False,
) -> None:
    """Make an older generation current again."""
    from edge_cmcl.device.store import open_store
    from edge_cmcl.device.store import rollback as go_back

    loaded = go_back(open_store(store or default_store()), generation)
    known = sorted(loaded.generation.modalities)
    text = f"generation {loaded.generation.counter} is current: {', '.join(known)}"
    result = {"generation": loaded.digest, "counter": loaded.generation.counter, "modalities": known}
    show(result, text, json=json)


@app.command("log")
def log_(store: Store = None, json: Json = False) -> None:
    """List the generations of this device, newest first."""
    from edge_cmcl.device.store import log, open_store

    found = log(open_store(store or default_store()))
    rows = [
        ["*" if e["current"] else "", e["counter"], e["digest"][7:19], e["created"], e["action"], _names(e)]
        for e in found
    ]
    show({"generations": found}, table(["", "generation", "digest", "created", "action", "knows"], rows), json=json)


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
    lines = [
        f"{report.modality} with {', '.join(report.partners)}: {report.pairs} pairs, {report.epochs} epochs",
        "",
        table(["held-out pairs", "n", "MRR by chance", "before", "after", "95 % interval"], judged),
        "",
        table(["modality", "learned earlier as", "moved at most"], moved) if moved else "nothing older moved",
        "",
        f"{sum(report.seconds.values()):.1f} s, {report.peak_memory_bytes / 1e6:.0f} MB at most, "
        f"{report.bytes_added / 1e6:.1f} MB added",
    ]
    if report.budget_exhausted:
        lines.append("the time budget ended training early")
    ending = f"generation {report.counter} is current" if report.committed else "dry run: nothing was changed"
    return "\n".join([*lines, ending])


def bound(origin: dict[str, Any]) -> str:
    """Return the relative displacement bound of an origin as a percentage."""
    return f"{origin['relative_displacement_bound']:.2%}"


def _names(entry: dict[str, Any]) -> str:
    return ", ".join(entry["modalities"])
