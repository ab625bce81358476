"""`edge-cmcl report`: the page that shows a comparison, a benchmark, or a fleet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge_cmcl.cli.console import show
from edge_cmcl.cli.options import Json, chosen_fleet
from edge_cmcl.cli.outputs import Force, check_folder
from edge_cmcl.errors import UsageError

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl report results/comparison.json --out page.html")
def report(
    out: Annotated[Path, typer.Option("--out", help="The page, an HTML file.")],
    result: Annotated[
        Path | None,
        typer.Argument(
            help="A comparison or its folder, or what `benchmark --json` printed; with --fleet, the fleet [your own]."
        ),
    ] = None,
    fleet: Annotated[bool, typer.Option("--fleet", help="A page of a fleet, and not of a comparison.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="A folder for every matrix as CSV.")] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write the HTML page of a comparison, a benchmark, or a fleet."""
    if fleet:
        if csv is not None:
            raise UsageError("a fleet has no matrices", expected="--fleet without --csv", got=f"--csv {csv}")
        _fleet(result, out, force, json)
    elif result is None:
        raise UsageError(
            "what is the page to show?", expected="the result of a comparison, or --fleet", got="neither of them"
        )
    else:
        _comparison(result, out, csv, force, json)


def _fleet(folder: Path | None, out: Path, force: bool, json: bool) -> None:
    from edge_cmcl.host.fleet.fleet import Fleet
    from edge_cmcl.host.fleet.overview import overview
    from edge_cmcl.report import fleet_verdict, write_fleet_page

    found = overview(Fleet(folder or chosen_fleet()))
    _check_page(out, force)
    size = write_fleet_page(found, out)
    sentences = fleet_verdict(found)
    states = {device.device_id: device.state for device in found.devices}
    done = {"page": out, "bytes": size, "devices": states, "verdict": sentences}
    show(done, "\n".join([*sentences, f"{out}: {size / 1e6:.1f} MB"]), json=json)


def _comparison(result: Path, out: Path, csv: Path | None, force: bool, json: bool) -> None:
    from edge_cmcl.report import is_benchmark, load, summaries, verdict, write_csv, write_page

    if result.is_file() and is_benchmark(result):
        _benchmark(result, out, csv, force, json)
        return
    comparison = load(result)
    _check_page(out, force)
    size = write_page(comparison, out)
    files = [] if csv is None else write_csv(comparison, csv)
    sentences = verdict(comparison)
    done = {
        "page": out,
        "bytes": size,
        "csv": files,
        "verdict": sentences,
        "summaries": [asdict(summary) for summary in summaries(comparison)],
    }
    text = "\n".join([*sentences, f"{out}: {size / 1e6:.1f} MB", *([f"{csv}: {len(files)} files"] if files else [])])
    show(done, text, json=json)


def _benchmark(result: Path, out: Path, csv: Path | None, force: bool, json: bool) -> None:
    from edge_cmcl.report import benchmark_verdict, load_benchmark, write_benchmark_page

    if csv is not None:
        raise UsageError("a benchmark has no matrices", expected="no --csv", got=f"--csv {csv}")
    found = load_benchmark(result)
    _check_page(out, force)
    size = write_benchmark_page(found, out)
    sentences = benchmark_verdict(found)
    done = {"page": out, "bytes": size, "verdict": sentences}
    show(done, "\n".join([*sentences, f"{out}: {size / 1e6:.1f} MB"]), json=json)


def _check_page(out: Path, force: bool) -> None:
    """Check that the page may be written to `out`: an older page is replaced, another file only with --force."""
    from edge_cmcl.report import is_page

    check_folder(out)
    if out.is_dir():
        raise UsageError(f"{out} is a folder", expected="--out FILE", hint=f"for instance --out {out / 'page.html'}")
    if out.exists() and not force and not is_page(out):
        raise UsageError(
            f"{out} exists and is not a page that this command writes",
            expected="a new path, or an older page to replace",
            hint="choose another --out, or --force to replace it",
        )
