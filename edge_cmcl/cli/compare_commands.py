"""`edge-cmcl compare` and `edge-cmcl search`: every continual strategy on one stream of pairs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_cmcl.cli.console import progress, show, table
from edge_cmcl.cli.options import Json, need_host

if TYPE_CHECKING:
    from edge_cmcl.host.compare import Request
    from edge_cmcl.report.results import Comparison

app = typer.Typer()

StreamFile = Annotated[Path, typer.Argument(help="The stream file: steps, each a pair of modalities and its files.")]
Strategies = Annotated[str, typer.Option("--strategies", help="Names, separated by commas. [default: all]")]
Epochs = Annotated[int, typer.Option("--epochs", min=1, help="Per step, for strategies that train by epochs.")]
Jobs = Annotated[int, typer.Option("--jobs", min=0, help="Runs side by side; 0 for one per core.")]
Part = Literal["train", "test", "both"]


@app.command(epilog="Example: edge-cmcl compare stream.toml --out results --strategies ours,vanilla,joint --seeds 1")
def compare(
    stream: StreamFile,
    out: Annotated[Path, typer.Option("--out", help="Folder of the result; what is there already is kept.")],
    strategies: Strategies = "",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many, from 0.")] = 3,
    epochs: Epochs = 20,
    best: Annotated[Path | None, typer.Option("--best", help="Best-config file of `search`.")] = None,
    width: Annotated[int | None, typer.Option("--width", help="Features per window, instead of the stream's.")] = None,
    corrupt: Annotated[
        str, typer.Option("--corrupt", help="noise=SNR_DB,missing=FRACTION,drift=RATE, any of them.")
    ] = "",
    corrupt_part: Annotated[Part, typer.Option("--corrupt-part", help="Which windows are corrupted.")] = "both",
    jobs: Jobs = 0,
    json: Json = False,
) -> None:
    """Run a stream through every strategy; a cut-off one goes on."""
    need_host()
    from edge_cmcl.data.corruption import parse_corruption
    from edge_cmcl.host.compare import Request
    from edge_cmcl.host.compare import compare as run

    request = Request(
        stream,
        out,
        strategies=_names(strategies),
        seeds=seeds,
        epochs=epochs,
        best=best,
        corruption=parse_corruption(corrupt) if corrupt else None,
        corrupted_parts=("train", "test") if corrupt_part == "both" else (corrupt_part,),
        jobs=jobs,
        width=width,
        command=("edge-cmcl", *sys.argv[1:]),
    )
    with progress() as told:
        result = run(request, told)
    show(result.model_dump(mode="json", by_alias=True), _describe(result, request), json=json)


@app.command(epilog="Example: edge-cmcl search stream.toml --out results --best best.json")
def search(
    stream: StreamFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for what is computed on the way.")],
    best: Annotated[Path, typer.Option("--best", help="The best-config file to write.")],
    strategies: Strategies = "",
    epochs: Epochs = 20,
    jobs: Jobs = 0,
    json: Json = False,
) -> None:
    """Search each strategy's hyper-parameters on validation data."""
    need_host()
    from edge_cmcl.host.compare import Request
    from edge_cmcl.host.compare import search as run

    request = Request(stream, out, strategies=_names(strategies), epochs=epochs, jobs=jobs)
    with progress() as told:
        chosen = run(request, best, told)
    rows = [[name, ", ".join(f"{key} {value}" for key, value in found.items())] for name, found in chosen.items()]
    show({"best": best, "strategies": chosen}, f"{table(['strategy', 'best settings'], rows)}\n\n{best}", json=json)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _describe(result: Comparison, request: Request) -> str:
    from edge_cmcl.report import percent, summaries, verdict

    metric = result.headline
    rows = []
    for summary in summaries(result):
        if summary.metric == metric:
            cells = result.strategies()[summary.strategy]
            figures = (summary.final, summary.backward_transfer, summary.forgetting, summary.plasticity)
            seconds = sum(cell.seconds.total for cell in cells) / len(cells)
            stored = cells[0].stored
            cost = (seconds, stored.bytes / 1e6, stored.raw_samples)
            rows.append([cells[0].title, *(percent(figure) for figure in figures), *cost])
    header = ["strategy", f"final {metric}", "BWT", "forgetting", "plasticity", "s", "MB stored", "raw samples"]
    next_command = f"edge-cmcl report {request.out} --out {request.out / 'report.html'}"
    return "\n".join([table(header, rows), "", *verdict(result), f"{request.out}: next, {next_command}"])
