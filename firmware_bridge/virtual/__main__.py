"""`python -m firmware_bridge.virtual`: sensors to try the bridge with, without any hardware."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from edge_cmcl.errors import EdgeCmclError, PlatformError, UsageError
from firmware_bridge.virtual import native
from firmware_bridge.virtual.faults import Faults
from firmware_bridge.virtual.serve import (
    Endpoint,
    MakeBoard,
    PtyEndpoint,
    SocketEndpoint,
    native_board,
    python_board,
    serve,
)
from firmware_bridge.virtual.signals import Signal, machine_signals, replayed


def main(
    machine: Annotated[str, typer.Option(help="Sensors of the simulated machine, as in vibration,current.")] = "",
    replay: Annotated[Path | None, typer.Option(help="A pairs file, whose windows are played.")] = None,
    sensors: Annotated[str, typer.Option(help="Of the pairs file. [default: all]")] = "",
    seconds: Annotated[float, typer.Option(min=1.0, max=1e6, help="Of the simulated machine.")] = 60.0,
    pty: Annotated[bool, typer.Option("--pty", help="Be a serial device.")] = False,
    tcp: Annotated[str, typer.Option(help="Listen at HOST:PORT.")] = "",
    unix: Annotated[Path | None, typer.Option(help="Listen at a unix socket.")] = None,
    speed: Annotated[float, typer.Option(min=0.01, max=10_000, help="Board's seconds in a real one.")] = 1.0,
    loss: Annotated[float, typer.Option(help="Share of frames that are lost.")] = 0.0,
    bit_errors: Annotated[float, typer.Option(help="Share of frames with flipped bits.")] = 0.0,
    duplicates: Annotated[float, typer.Option(help="Share of frames that come twice.")] = 0.0,
    jitter: Annotated[float, typer.Option(help="Seconds that a piece may come late.")] = 0.0,
    reboot_every: Annotated[float, typer.Option(help="Seconds between restarts; 0 for none.")] = 0.0,
    stall_every: Annotated[float, typer.Option(help="Seconds between stalls of the line; 0 for none.")] = 0.0,
    stall: Annotated[float, typer.Option(help="Seconds of a stall.")] = 1.0,
    drift: Annotated[float, typer.Option(help="Of the board's clock, in millionths.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of all chance.")] = 0,
    board: Annotated[
        str, typer.Option(help="c: the C library's posix port, python: a stand-in. [default: c where it can be built]")
    ] = "",
    flash: Annotated[
        Path | None, typer.Option(help="File of the C board's micro model. [default: a temporary one]")
    ] = None,
) -> None:
    """Be a board with sensors: of the simulated machine, or out of a pairs file. Its address is printed first.

    Example: python -m firmware_bridge.virtual --machine vibration,acoustic --tcp 127.0.0.1:7000
    """
    faults = Faults(loss, bit_errors, duplicates, jitter, reboot_every, stall_every, stall, drift, seed)
    signals = _signals(machine, replay, sensors, seconds, seed)
    endpoint = _endpoint(pty, tcp, unix)
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-board-") as folder:
        try:
            boot = _board(board, faults, speed, Path(folder), flash)
            print(endpoint.address, flush=True)
            done = serve(signals, endpoint, faults, speed=speed, boot=boot)
            print(", ".join(f"{count} frames {name}" for name, count in done.items()) or "no faults", file=sys.stderr)
        finally:
            endpoint.close()


def _board(kind: str, faults: Faults, speed: float, folder: Path, flash: Path | None) -> MakeBoard:
    if kind not in ("", "c", "python"):
        raise UsageError("there is no such board", expected="c or python", got=kind)
    why_not = native.can_build()
    if kind == "python" or (not kind and why_not):
        if why_not and not kind:
            print(f"a stand-in in Python, because the C library cannot be built: {why_not}", file=sys.stderr)
        return python_board(faults)
    if why_not:
        raise PlatformError("the C library cannot be built", expected="make and a C99 compiler", got=why_not)
    return native_board(faults, native.build(folder / "build"), speed, flash or folder / "flash")


def _signals(machine: str, replay: Path | None, sensors: str, seconds: float, seed: int) -> list[Signal]:
    if bool(machine) == (replay is not None):
        raise UsageError("a board needs sensors", expected="--machine NAMES or --replay FILE", got="none or both")
    if replay is not None:
        return replayed(replay, [name for name in sensors.split(",") if name])
    return machine_signals([name for name in machine.split(",") if name], seconds, seed)


def _endpoint(pty: bool, tcp: str, unix: Path | None) -> Endpoint:
    if pty + bool(tcp) + (unix is not None) != 1:
        raise UsageError(
            "a board needs one place", expected="--pty, --tcp HOST:PORT or --unix PATH", got="none or more"
        )
    if pty:
        return PtyEndpoint()
    if unix is not None:
        return SocketEndpoint.unix(unix)
    host, _, port = tcp.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) < 65536:
        raise UsageError("--tcp is no place", expected="HOST:PORT", got=tcp)
    return SocketEndpoint.tcp(host, int(port))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except EdgeCmclError as error:
        print(f"virtual board: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
