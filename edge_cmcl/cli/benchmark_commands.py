"""What a bundle costs on a machine, and what TensorRT can do before it is used: `benchmark` and `prebuild`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_cmcl.cli.console import progress, show, table, warned
from edge_cmcl.cli.options import Json, Store, default_store
from edge_cmcl.errors import UsageError

app = typer.Typer()

OF_BLAS = "of BLAS: what plain matrix products of the same sizes take on this machine, relative to the encoder"


@app.command(epilog="Example: edge-cmcl benchmark base.tar --data test.safetensors --learn acoustic --json")
def benchmark(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a device store, which stays as it is.")],
    data: Annotated[Path | None, typer.Option("--data", help="A pairs file: recall too.")] = None,
    learn: Annotated[
        str,
        typer.Option("--learn", metavar="NAME", help="A sensor of --data: time an update that learns it."),
    ] = "",
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 for one per core.")] = 0,
    providers: Annotated[
        list[str] | None,
        typer.Option("--providers", help="Execution providers instead of the target's, best first. Repeatable."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.05, help="To measure each batch size for.")] = 1.0,
    json: Json = False,
) -> None:
    """Measure what a bundle costs on this machine.

    Size, load time, latency, throughput, memory, energy and recall of every sensor, and an update by stage.

    `edge-cmcl report FILE --out page.html` draws a page of what --json printed.
    """
    if learn and data is None:
        raise UsageError("an update needs data", expected="--data FILE", got="none", hint="name a pairs file")
    if threads:  # before NumPy is loaded: BLAS, which encoders are compared with, reads it once
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(threads)
    from contextlib import ExitStack

    from edge_cmcl.data import open_pairs
    from edge_cmcl.device.benchmark import benchmark as measure
    from edge_cmcl.device.opening import open_generation
    from edge_cmcl.device.providers import check_known

    check_known(providers or [])
    with ExitStack() as stack:
        told, warnings = stack.enter_context(progress()), stack.enter_context(warned())
        loaded = stack.enter_context(open_generation(bundle))
        pairs = stack.enter_context(open_pairs(data)) if data else None
        found = measure(
            loaded, pairs=pairs, learn=learn, threads=threads, providers=providers, seconds=seconds, progress=told
        )
    show({**found, "warnings": warnings}, _described(found), json=json)


def _described(found: dict[str, Any]) -> str:
    header = ["sensor", "precision", "by", "kB", "load, ms", "batch", "median, ms", "p95", "p99", "windows/s"]
    header += ["of BLAS, %", "J/window", "peak, MB", "R@10, %"]
    rows = [_row(each, one) for each in found["encoders"] for one in each["latency"]]
    step, learned = found["step"], found["update"]
    of_blas = _percent(step["share_of_blas"])
    told = f"training step of {step['batch']} pairs: {step['median_ms']:.2f} ms, {of_blas} % of BLAS"
    parts = [table(header, rows), OF_BLAS, told]
    if learned:
        per = learned["seconds_per_1000_pairs"]
        parts.append(
            f"learning {learned['modality']} from {learned['pairs']} pairs, s per 1,000 pairs:\n"
            f"{table(list(per), [list(per.values())])}"
        )
    return "\n\n".join(parts)


def _row(each: dict[str, Any], one: dict[str, Any]) -> list[Any]:
    """Return a row of the table: a sensor at one batch size."""
    return [
        each["modality"],
        each["precision"],
        each["provider"].removesuffix("ExecutionProvider"),
        each["encoder_bytes"] / 1e3,
        each["load_ms"],
        *(one[name] for name in ("batch", "median_ms", "p95_ms", "p99_ms")),
        round(one["windows_per_s"]),
        _percent(one["share_of_blas"]),
        one["joules_per_window"],
        _megabytes(each["peak_memory_bytes"]),
        _percent(each["recall_at_10"]),
    ]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def _megabytes(count: int | None) -> int | None:
    return None if count is None else round(count / 1e6)


@app.command(epilog="Example: edge-cmcl prebuild --store /var/lib/edge-cmcl/store")
def prebuild(
    target: Annotated[Path | None, typer.Argument(help="A bundle or a device store. [default: --store]")] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Build TensorRT engines ahead, so that no window waits."""
    from edge_cmcl.device.model import Model
    from edge_cmcl.device.opening import open_generation
    from edge_cmcl.device.prebuild import prebuild as build
    from edge_cmcl.device.store import open_store

    place = target or open_store(store or default_store()).root
    with progress() as told, warned() as warnings, open_generation(place) as loaded:
        found = build(Model(loaded), told)
    rows = [[each.modality, each.bytes / 1e6, each.seconds, "yes" if each.was_there else "no"] for each in found]
    text = (
        table(["sensor", "engine, MB", "s", "was built before"], rows)
        if found
        else f"{place} has nothing to build ahead: no sensor was exported with --target tensorrt"
    )
    show({"engines": [vars(each) for each in found], "warnings": warnings}, text, json=json)
