"""The strategies of a comparison as a table shows them: ordered, with their costs over seeds, and figures as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_cmcl.report.results import Cell, Comparison
from edge_cmcl.report.summary import Spread, Summary, spread, summaries


@dataclass(frozen=True)
class Entry:
    """One strategy.

    Attributes:
        cells: one per seed.
        by_metric: its summaries.
        raw_samples: the most that it kept with any seed.
        bytes: stored between steps beside the adapters.
        seconds: wall time of the whole stream.
        memory: peak in bytes, None where it was not measured.
    """

    cells: tuple[Cell, ...]
    by_metric: dict[str, Summary]
    raw_samples: int
    bytes: Spread
    seconds: Spread
    memory: Spread | None

    @property
    def first(self) -> Cell:
        """The cell of the first seed."""
        return self.cells[0]


def entries_of(comparison: Comparison) -> list[Entry]:
    """Return the strategies, continual ones before references, the best final mean of the headline metric first."""
    found = summaries(comparison)
    entries = [
        _entry(cells, {summary.metric: summary for summary in found if summary.strategy == name})
        for name, cells in comparison.strategies().items()
    ]
    return sorted(entries, key=lambda e: (e.first.kind, -e.by_metric[comparison.headline].final.mean))


def _entry(cells: tuple[Cell, ...], by_metric: dict[str, Summary]) -> Entry:
    memory = [cell.peak_memory_bytes for cell in cells if cell.peak_memory_bytes is not None]
    return Entry(
        cells,
        by_metric,
        max(cell.stored.raw_samples for cell in cells),
        spread([cell.stored.bytes for cell in cells]),
        spread([cell.seconds.total for cell in cells]),
        spread(memory) if memory else None,
    )


def leaders(entries: Sequence[Entry], metrics: Sequence[str]) -> dict[str, set[str]]:
    """Return, for each metric, the continual strategies with the highest final mean, several where they are level."""
    continual = [entry for entry in entries if entry.first.kind == "continual"]
    found = {}
    for metric in metrics:
        finals = {entry.first.strategy: entry.by_metric[metric].final.mean for entry in continual}
        found[metric] = {name for name, mean in finals.items() if mean == max(finals.values())}
    return found


def percent(found: Spread | None) -> str:
    """Return a share as "46.4 ± 0.5", in percent; "-" for None."""
    return _figure(found, ".1f")


def signed(found: Spread | None) -> str:
    """Return a difference of shares as "-4.1 ± 0.2", in points; "-" for None."""
    return _figure(found, "+.1f")


def _figure(found: Spread | None, form: str) -> str:
    if found is None:
        return "-"
    mean = round(100 * found.mean, 1) + 0.0  # not "-0.0"
    deviation = "" if found.std is None else f" ± {100 * found.std:.1f}"
    return f"{mean:{form}}{deviation}"


def size_text(count: float) -> str:
    """Return a number of bytes as "2.2 MB" (decimal units)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"


def seconds_text(seconds: float) -> str:
    """Return a time as "8.2 s", "41 s" or "12.5 min"."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min"
