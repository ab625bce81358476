"""The live view of a recording: what each sensor sends, what gets lost, how far its clock is, and the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from firmware_bridge.recorder import Feed, Progress

_RATE_S = 3.0
"""Over which a sensor's rate is counted."""


class Rates:
    """How fast each sensor's samples come, lately."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], deque[tuple[float, int]]] = {}

    def of(self, seconds: float, link: str, stream: int, samples: int) -> float:
        """Return samples per second, of which there were `samples` until `seconds` after the start."""
        seen = self._seen.setdefault((link, stream), deque())
        seen.append((seconds, samples))
        while seconds - seen[0][0] > _RATE_S:
            seen.popleft()
        (then, before), (now, after) = seen[0], seen[-1]
        return (after - before) / (now - then) if now > then else 0.0


@contextmanager
def live_view() -> Iterator[Callable[[Progress], None]]:
    """Yield a callback that draws how a recording goes, on stderr."""
    from rich.console import Console
    from rich.live import Live

    rates = Rates()
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield lambda progress: live.update(draw(progress, rates), refresh=True)


def draw(progress: Progress, rates: Rates) -> RenderableType:
    """Return the view."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False)
    for column in ("sensor", "link", "Hz", "nominal", "samples", "lost", "repeated", "late", "reboots", "clock"):
        grid.add_column(column, justify="left" if column in ("sensor", "link") else "right")
    for feed in progress.feeds:
        for row in _rows(progress, feed, rates):
            grid.add_row(*row)
    label = f"   label: {progress.label}" if progress.label else ""
    files = f"{progress.bytes / 1e6:.2f} MB in {progress.folder}, {progress.free_bytes / 1e9:.1f} GB free"
    end = "Ctrl-C ends the recording; type a label and Enter to say what is going on"
    return Group(Text(f"{progress.seconds:.0f} s   {files}{label}"), grid, Text(end, style="dim"))


def _rows(progress: Progress, feed: Feed, rates: Rates) -> Iterator[list[str]]:
    source, link = feed.source, feed.link
    if link.away:
        yield ["-", link.address, f"away: {link.away}"]
    elif not source.streams:
        yield ["-", link.address, "waiting for a HELLO"]
    for number, info in sorted(source.streams.items()):
        counts = source.trackers[number].counts
        rate = rates.of(progress.seconds, link.address, number, source.samples[number])
        yield [
            info.hello.name, link.address, f"{rate:.1f}", f"{info.hello.rate_hz:g}", str(source.samples[number]),
            str(counts.lost), str(counts.duplicates), str(counts.reordered), str(counts.reboots), _clock(feed),
        ]  # fmt: skip
    if source.all_faults:
        yield ["", link.address, ", ".join(f"{count} {reason}" for reason, count in source.all_faults.items())]


def _clock(feed: Feed) -> str:
    """Return how well the board's clock is known: half of the fastest exchange lately."""
    if not feed.exchanges:
        return "no answer"
    fastest_ns = min(
        each.arrived_ns - each.sent_ns - 1000 * (each.answered_us - each.received_us) for each in feed.exchanges
    )
    return f"+-{max(fastest_ns, 0) / 2e6:.2f} ms"
