"""`edge-cmcl record`: from boards into a recording."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cmcl.cli.console import show, table
from edge_cmcl.cli.options import Json, need_bridge

if TYPE_CHECKING:
    from firmware_bridge.links import Link
    from firmware_bridge.recorder import Progress, Recorded, Recorder

app = typer.Typer()


@app.command(epilog="Example: edge-cmcl record /dev/ttyACM0 --label idle --seconds 600")
def record(
    links: Annotated[
        list[str],
        typer.Argument(help="Where the boards are: /dev/ttyACM0, tcp://HOST:PORT, unix:///PATH, mqtt://HOST/TOPIC."),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="A new folder. [default: recordings/DATE-TIME]")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0.1, help="[default: until Ctrl-C]")] = None,
    label: Annotated[
        str, typer.Option("--label", help="What is going on; type another one and Enter to change it.")
    ] = "",
    script: Annotated[
        Path | None, typer.Option("--script", help="A file of lines SECONDS LABEL: what will be going on when.")
    ] = None,
    fsync: Annotated[float, typer.Option("--fsync", min=0.05, help="Seconds; what is older survives a crash.")] = 1.0,
    rotate: Annotated[
        float, typer.Option("--rotate", min=1.0, help="Megabytes after which a new file begins.")
    ] = 256.0,
    min_free: Annotated[float, typer.Option("--min-free", min=1.0, help="Megabytes to leave free on the disk.")] = 64.0,
    speed: Annotated[
        float, typer.Option("--speed", min=0.01, help="Of a virtual board in accelerated time.", hidden=True)
    ] = 1.0,
    json: Json = False,
) -> None:
    """Record what boards send, until Ctrl-C.

    A board says itself what sensors it has (firmware_bridge/SPEC.md); links that are lost come back by themselves. The
    recording is a folder of MCAP files, which Foxglove opens and `assess` and `update` take as they are.
    """
    need_bridge()
    from firmware_bridge.recorder import Recorder, Settings

    settings = Settings(
        fsync, int(rotate * 1e6), int(min_free * 1e6), seconds, label, read_script(script) if script else (), speed
    )
    opened = _open_all(links)
    folder = out or Path("recordings") / time.strftime("%Y%m%d-%H%M%S")
    with _view() as view:
        recorder = Recorder(folder, opened, settings, view)
        with _stopping(recorder):
            _listen_for_labels(recorder)
            recorded = recorder.record()
    show(_as_json(recorded), describe(recorded), json=json)


def read_script(path: Path) -> list[tuple[float, str]]:
    """Return (seconds, label) of each line of a script.

    Raises:
        DataError: a line that is not SECONDS LABEL, or no file.
    """
    from edge_cmcl.errors import DataError
    from edge_cmcl.limits import MAX_LABEL_LENGTH

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read", expected="lines of SECONDS LABEL", got=str(error)) from None
    steps = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        at, _, text = line.strip().partition(" ")
        try:
            steps.append((float(at), text.strip()))
        except ValueError:
            raise DataError(f"line {number} of {path} is no step", expected="SECONDS LABEL", got=line) from None
        if not 0 <= steps[-1][0] < float("inf") or len(text) > MAX_LABEL_LENGTH:
            raise DataError(f"line {number} of {path} is no step", expected="SECONDS LABEL", got=line)
    return steps


def describe(recorded: Recorded) -> str:
    """Return what was recorded, for people."""
    rows = []
    for link, counts in recorded.counts.items():
        for name, stream in counts["streams"].items():
            if stream["samples"]:
                rows.append([name, link, *(stream[key] for key in _COLUMNS)])
    files = f"{recorded.files} file" + "s" * (recorded.files != 1)
    lines = [table(["sensor", "link", *(key.replace("_", " ") for key in _COLUMNS)], rows), ""]
    for link, counts in recorded.counts.items():
        told = [f"{count} {reason.replace('_', ' ')}" for reason, count in counts["faults"].items()]
        told += [f"{counts['reconnects']} reconnections"] * bool(counts["reconnects"])
        lines += [f"{link}: {', '.join(told)}"] * bool(told)
    lines.append(f"{recorded.seconds:.1f} s in {recorded.folder}, {files}, {recorded.bytes / 1e6:.2f} MB")
    return "\n".join(lines)


_COLUMNS = ("samples", "lost", "duplicates", "reordered", "reboots", "dropped_by_firmware")


def _as_json(recorded: Recorded) -> dict[str, Any]:
    return {**vars(recorded), "counts": dict(recorded.counts)}


def _open_all(addresses: list[str]) -> list[tuple[Link, Callable[[], Link]]]:
    """Open all links, or none."""
    from firmware_bridge.links import open_link

    opened: list[tuple[Link, Callable[[], Link]]] = []
    try:
        for address in addresses:
            opened.append((open_link(address), partial(open_link, address)))
    except BaseException:
        for link, _ in opened:
            link.close()
        raise
    return opened


@contextmanager
def _stopping(recorder: Recorder) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the recording as it should be: that is how one is stopped."""

    def stop(number: int, _frame: object) -> None:
        recorder.stop()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen_for_labels(recorder: Recorder) -> None:
    """Take each line that is typed, or piped in, for the label from now on."""

    def listen() -> None:
        for line in sys.stdin:
            recorder.label(line.strip())

    if sys.stdin is not None and not sys.stdin.closed:
        threading.Thread(target=listen, daemon=True).start()


@contextmanager
def _view() -> Iterator[Callable[[Progress], None]]:
    """Yield what shows how a recording goes: a table on a terminal, a line every ten seconds elsewhere."""
    if sys.stderr.isatty():
        from edge_cmcl.cli.live import live_view

        with live_view() as tell:
            yield tell
    else:
        yield _lines()


def _lines(every_s: float = 10.0) -> Callable[[Progress], None]:
    next_s = every_s

    def tell(progress: Progress) -> None:
        nonlocal next_s
        if progress.seconds < next_s:
            return
        next_s = progress.seconds + every_s
        samples = sum(sum(feed.source.samples.values()) for feed in progress.feeds)
        away = [f"{feed.link.address}: {feed.link.away}" for feed in progress.feeds if feed.link.away]
        told = [f"{progress.seconds:.0f} s: {samples} samples, {progress.bytes / 1e6:.2f} MB", *away]
        print("; ".join(told), file=sys.stderr, flush=True)

    return tell
