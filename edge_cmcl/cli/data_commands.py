"""`edge-cmcl data`: public data sets and the user's own recordings become pairs files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cmcl.cli.console import progress, show, table, warn
from edge_cmcl.cli.options import Json
from edge_cmcl.cli.outputs import Force, check_output

if TYPE_CHECKING:
    from edge_cmcl.data import DropReport

app = typer.Typer()
data = typer.Typer(help="Turn recordings into pairs files.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")


@data.command("list", epilog="Example: edge-cmcl data list")
def list_(json: Json = False) -> None:
    """List the public data sets: where to get them, on which terms."""
    from edge_cmcl.data.prepare import catalogue

    sets = catalogue()
    lines = []
    for info in sets:
        lines += [
            f"{info.name}  {info.title}",
            f"    sensors   {', '.join(info.sensors)}",
            f"    download  {info.url}",
            f"    files     {info.files}",
            f"    licence   {info.licence}",
            f"    cite      {info.citation}",
        ]
    show({"datasets": [info.as_json() for info in sets]}, "\n".join(lines), json=json)


@data.command(epilog="Example: edge-cmcl data prepare utd_mhad --source utd_mhad.tar.xz --out data")
def prepare(
    name: Annotated[str, typer.Argument(help="A data set of `data list`.")],
    source: Annotated[Path, typer.Option("--source", help="The download: a folder, or a tar file.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for the pairs files.")],
    force: Force = False,
    json: Json = False,
) -> None:
    """Make pairs files of a public data set you downloaded."""
    from edge_cmcl.data.pairs import FORMAT
    from edge_cmcl.data.prepare import prepare as prepare_data

    for older in sorted([*out.glob("*train.safetensors"), *out.glob("*test.safetensors")]):
        check_output(older, [source], FORMAT, force=force)
    with progress() as told:
        report = prepare_data(name, source, out, told)
    rows = [
        [file.path, file.windows, ", ".join(f"{name} {_shape(shape)}" for name, shape in file.shapes.items())]
        for file in report.files
    ]
    text = [table(["file", "windows", "modalities"], rows), "", _drops(report.drops), *report.notes]
    show(report.as_json(), "\n".join(text), json=json)


@data.command(
    "import",
    epilog="Example: edge-cmcl data import --out pairs.safetensors --window 2 --sensor acc=run1.csv:time_s:ax,ay,az@50",
)
def import_(
    out: Annotated[Path, typer.Option("--out", help="The pairs file to write.")],
    sensor: Annotated[list[str], typer.Option("--sensor", metavar="SENSOR", help="A sensor of a run; see above.")],
    window: Annotated[float, typer.Option("--window", help="Length of a window in seconds.")],
    step: Annotated[
        float | None, typer.Option("--step", help="Seconds between the starts of windows. [default: --window]")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="COLUMN", help="The labels of a run; see above.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="COLUMN", help="Subject or run; as --label.")
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(
            "--max-gap", help="Longest distance in seconds of two samples that is no gap. [default: 1.5 periods]"
        ),
    ] = None,
    source: Annotated[str, typer.Option("--source", help="Where the recording comes from, in words.")] = "",
    force: Force = False,
    json: Json = False,
) -> None:
    r"""Turn your own recordings into a pairs file.

    FILE is CSV, Parquet or NumPy (.npy, .npz).

    SENSOR is NAME=FILE:TIME:COLUMN,COLUMN@RATE, for instance acc=run1.csv:time_s:ax,ay,az@50. RATE is in Hz. A unit
    and a divisor may follow: @20[A/10] says that the values are in ampere and divides them by 10, so that an encoder
    sees numbers of order 1. Times are in seconds, unless [ms], [us], [ns] or [iso] follows the name of their column.

    COLUMN is FILE:COLUMN with a sensor's file, for instance run1.csv:state, or FILE:TIME:COLUMN with a list of events.

    A colon, comma or at sign that is part of a column's name is written with a backslash before it, in quotes because
    of the shell: 'acc=run1.csv:time\:s:ax,ay@50'.

    For several runs give every sensor, label and group once per run, in the same order.
    """
    from edge_cmcl.data.import_report import rate_warnings
    from edge_cmcl.data.import_spec import parse_column, parse_sensor
    from edge_cmcl.data.importing import import_recordings
    from edge_cmcl.data.pairs import FORMAT

    sensors = [parse_sensor(text) for text in sensor]
    labels, groups = ([parse_column(text) for text in texts or ()] for texts in (label, group))
    paths = [each.path for each in sensors] + [each.path for each in (*labels, *groups)]
    check_output(out, paths, FORMAT, force=force)
    with progress() as told:
        report = import_recordings(
            out,
            sensors,
            window_s=window,
            step_s=step,
            labels=labels,
            groups=groups,
            max_gap_s=max_gap,
            source=source,
            progress=told,
        )
    shapes = ", ".join(f"{name} {_shape(shape)}" for name, shape in report.shapes.items())
    recorded = [f"{each.sensor}: {each.recorded_hz:.4g} Hz recorded in {each.path}" for each in report.sensors]
    warnings = rate_warnings(sensors, report)
    for warning in warnings:
        warn(warning)
    text = [f"wrote {report.windows} windows to {report.path}: {shapes}", *recorded, _drops(report.drops)]
    show({**report.as_json(), "warnings": warnings}, "\n".join([*text, *report.notes]), json=json)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _drops(report: DropReport) -> str:
    reasons = ", ".join(f"{count} ({reason})" for reason, count in sorted(report.dropped.items())) or "none"
    return f"kept {report.kept} windows; dropped {reasons}; filled in {report.interpolated} missing samples"
