"""What a device does with its model every day: embed, classify, retrieve."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cmcl.cli.console import progress, show, table, warned
from edge_cmcl.cli.options import Json, Store, default_store
from edge_cmcl.cli.outputs import Force, check_output

if TYPE_CHECKING:
    from edge_cmcl.device.use import Classified

app = typer.Typer()

Data = Annotated[Path, typer.Argument(help="A pairs file, or a recording.")]
Modalities = Annotated[
    list[str] | None, typer.Option("--modality", help="A sensor to use; repeat to fuse. [default: all known]")
]

SHOWN_ROWS = 20
_CALENDAR_S = 1e8  # later than 1973 where seconds count from 1970, and three years into a recording where they do not


@app.command(epilog="Example: edge-cmcl embed day1.safetensors --out day1-embeddings.safetensors")
def embed(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")],
    modality: Modalities = None,
    force: Force = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Write the joint embedding of every moment of a file."""
    from edge_cmcl.cli import recordings
    from edge_cmcl.device.opening import open_model
    from edge_cmcl.device.use import EMBEDDINGS_FORMAT, joint_embeddings, write_joint

    check_output(out, [data], EMBEDDINGS_FORMAT, force=force)
    with progress() as told, warned() as warnings:
        model = open_model(store or default_store())
        with recordings.opened(data, model.generation.modalities, told, wanted=modality, alone=True) as (pairs, _):
            joint = joint_embeddings(model, pairs, modality or (), told)
    write_joint(out, joint, model)
    n, dimensions = joint.embeddings.shape
    result = {"out": out, "n": n, "embedding_dim": dimensions, "present": int(joint.present.sum())}
    text = f"{out}: {n} embeddings of {dimensions} numbers from {', '.join(joint.modalities)}"
    show({**result, "modalities": joint.modalities, "warnings": warnings}, text, json=json)


@app.command(epilog="Example: edge-cmcl classify live.safetensors --modality acoustic")
def classify(
    data: Data,
    modality: Modalities = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="A label to choose from; repeat. [default: all learned]")
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", help=f"Show every row, not the first {SHOWN_ROWS}.")] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Name the label that each moment of a file looks like."""
    from edge_cmcl.cli import recordings
    from edge_cmcl.device.opening import open_model
    from edge_cmcl.device.use import classify as classify_data

    with progress() as told, warned() as warnings:
        model = open_model(store or default_store())
        with recordings.opened(data, model.generation.modalities, told, wanted=modality, alone=True) as (pairs, _):
            found = classify_data(model, pairs, modality or (), label or (), told)
    result = {
        "modalities": found.modalities,
        "labels": found.names,
        "moments": _moments(found),
        "accuracy": found.accuracy,
        "scored": found.scored,
        "per_label": found.per_label(),
        "warnings": warnings,
    }
    show(result, _describe(found, data, every_row=rows), json=json)


@app.command(epilog="Example: edge-cmcl retrieve today.safetensors archive.safetensors --from acoustic --row 7")
def retrieve(
    query: Annotated[Path, typer.Argument(help="The pairs file or recording with the query.")],
    gallery: Annotated[Path, typer.Argument(help="The pairs file or recording to search.")],
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
    from edge_cmcl.cli import recordings
    from edge_cmcl.device.opening import open_model
    from edge_cmcl.device.use import joint_embeddings
    from edge_cmcl.device.use import retrieve as find

    with progress() as told, warned() as warnings:
        model = open_model(store or default_store())
        learned = model.generation.modalities
        with (
            recordings.opened(query, learned, told, wanted=query_modality, alone=True) as (queries, _),
            recordings.opened(gallery, learned, told, wanted=gallery_modality, alone=True) as (searched, _),
        ):
            asked = joint_embeddings(model, queries, query_modality or (), told)
            known = joint_embeddings(model, searched, gallery_modality or (), told)
    hits = find(asked, known, row or [0], top)
    rows = [
        [hit.query, *_time(asked.time, hit.query), place, found, *_time(known.time, found), similarity]
        for hit in hits
        for place, (found, similarity) in enumerate(zip(hit.rows, hit.similarity, strict=True), start=1)
    ]
    header = ["query", *_if(asked.time, "query time"), "place", "row", *_if(known.time, "time"), "similarity"]
    listed = [
        {**vars(hit), **({} if known.time is None else {"times": [known.time[found] for found in hit.rows]})}
        for hit in hits
    ]
    result = {"from": asked.modalities, "in": known.modalities, "hits": listed, "warnings": warnings}
    show(result, table(header, rows), json=json)


def _moments(found: Classified) -> list[dict[str, Any]]:
    columns = zip(found.labels.tolist(), found.similarity.tolist(), found.margin.tolist(), strict=True)
    return [
        {
            "row": row,
            **({} if found.time is None else {"time": float(found.time[row])}),
            "label": found.names[index] if index >= 0 else None,
            "similarity": similarity,
            "margin": margin,
        }
        for row, (index, similarity, margin) in enumerate(columns)
    ]


def _describe(found: Classified, data: Path, *, every_row: bool) -> str:
    moments = _moments(found)
    shown = moments if every_row else moments[:SHOWN_ROWS]
    cells = [[m["row"], *_time(found.time, m["row"]), m["label"], m["similarity"], m["margin"]] for m in shown]
    parts = [table(["row", *_if(found.time, "time"), "label", "similarity", "margin"], cells)]
    if len(shown) < len(moments):
        parts.append(f"the first {len(shown)} of {len(moments)} rows; --rows shows all of them, --json too")
    each = found.per_label()
    if found.accuracy is None:
        parts.append(table(["label", "rows named so"], [[e["label"], e["rows"]] for e in each]))
        parts.append(f"no accuracy: {data} has no row with a sensor and one of these labels of its own")
    else:
        header = ["label", "rows named so", "rows labelled so", "of these named right"]
        parts.append(table(header, [[e["label"], e["rows"], e["true"], e["right"]] for e in each]))
        scored = f"the {found.scored} of {len(moments)} rows that have one of these labels in {data}"
        parts.append(f"accuracy {found.accuracy:.1%} over {scored} (chance {1 / len(found.names):.1%})")
    return "\n\n".join(parts)


def _if(times: object, name: str) -> list[str]:
    return [] if times is None else [name]


def _time(times: Sequence[float] | Any, row: int) -> list[str]:
    """Return the time of a row for people: a date in UTC where it counts from 1970, else seconds; [] without times."""
    if times is None:
        return []
    seconds = float(times[row])
    if seconds < _CALENDAR_S:
        return [f"{seconds:.3f} s"]
    return [datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"]
