"""From recordings to pairs files: pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_cmcl.cli.console import progress, show, warn
from edge_cmcl.cli.options import Json, need_bridge
from edge_cmcl.cli.outputs import Force, check_output

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl pair recordings/monday --out monday.safetensors --window 2 --step 1")
def pair(
    recording: Annotated[list[Path], typer.Argument(help="A folder of .mcap files, or one; several are groups.")],
    out: Annotated[Path, typer.Option("--out", help="The pairs file to write.")],
    window: Annotated[float, typer.Option("--window", help="Length of a window in seconds.")] = 2.0,
    step: Annotated[
        float | None, typer.Option("--step", help="Seconds between the starts of windows. [default: --window]")
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option("--rate", metavar="NAME=HZ", help="Rate of a sensor's windows; repeat. [default: its own]"),
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(
            "--max-gap", help="Longest distance in seconds of two samples that is no gap. [default: 1.5 periods]"
        ),
    ] = None,
    sensor: Annotated[
        list[str] | None, typer.Option("--sensor", help="A sensor to use; repeat. [default: all recorded]")
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Align a recording into a pairs file.

    All sensors are brought onto the host's clock: offset and drift of each board's are fitted from the time exchanges
    of the recording, or where a board answered none, bounded by what arrived fastest. Windows are cut at the same
    moments of all sensors, and what is missing is told by reason: reboot, loss (of frames on the way), gap (samples
    that the board dropped), no partner, mixed label. The recording itself is left alone.
    """
    from edge_cmcl.cli.recordings import describe

    need_bridge()
    from edge_cmcl.data.pairs import FORMAT
    from firmware_bridge.pairing import pair_recordings
    from firmware_bridge.windows import Cutting

    cutting = Cutting(window, step_s=step, rates_hz=_rates(rate or []), max_gap_s=max_gap)
    check_output(out, recording, FORMAT, force=force)
    with progress() as told:
        report = pair_recordings(
            out, recording, cutting, wanted=sensor or None, required=[*(sensor or []), *cutting.rates_hz], progress=told
        )
    for warning in report.warnings:
        warn(warning)
    show(report.as_json(), f"wrote {out}\n\n{describe(report)}", json=json)


def _rates(texts: list[str]) -> dict[str, float]:
    from edge_cmcl.data.pairs_format import MAX_RATE_HZ
    from edge_cmcl.errors import UsageError

    rates = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            rates[name] = float(number)
        except ValueError:
            rates[name] = 0.0
        if not name or not 0 < rates[name] <= MAX_RATE_HZ:
            raise UsageError("--rate has another form", expected="NAME=HZ, for instance acc=50", got=text)
    return rates
