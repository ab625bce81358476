"""Recordings where a command takes pairs files: aligned into a temporary pairs file, and what people are told of it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_cmcl.cli.console import table, warn
from edge_cmcl.cli.options import need_bridge

if TYPE_CHECKING:
    from edge_cmcl.bundle import ModalityRecord
    from edge_cmcl.data import Pairs
    from edge_cmcl.progress import Progress
    from firmware_bridge.pairing import PairReport
    from firmware_bridge.retention import Deletion
    from firmware_bridge.windows import Cutting

WINDOW_S = 2.0
"""Of sensors that nothing is known of."""
TEXT = "text"


def is_recording(data: Path) -> bool:
    """Return whether `data` is a recording rather than a pairs file, by its name and kind."""
    return data.suffix == ".mcap" or data.is_dir()


@contextmanager
def opened(
    data: Path,
    known: dict[str, ModalityRecord],
    told: Progress,
    *,
    wanted: Collection[str] | None = None,
    required: Collection[str] = (),
    alone: bool = False,
    folder: Path | None = None,
) -> Iterator[tuple[Pairs, PairReport | None]]:
    """Open a pairs file, or align a recording into one that is gone at the end; then tell what was lost, too.

    Args:
        data: a pairs file or a recording.
        known: what a generation says of its modalities: they get the rates and windows that they were learned with.
        told: called as it goes on.
        wanted: sensors of a recording to use, None for the known ones.
        required: sensors that a recording must have.
        alone: whether moments of a single sensor without a label are used, too.
        folder: for the temporary file; by default one that is temporary itself.

    Raises:
        MissingExtraError: a recording, and the bridge extra is not installed.
        DataError: it cannot be used.
    """
    from edge_cmcl.data import open_pairs

    with ExitStack() as stack:
        if not is_recording(data):
            yield stack.enter_context(open_pairs(data)), None
            return
        need_bridge()
        from firmware_bridge.pairing import pair_recordings

        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-cmcl-")))
        report = pair_recordings(
            folder / f"{data.resolve().stem or 'recording'}.safetensors", [data], _as_learned(known, alone),
            wanted=known if wanted is None else wanted, required=set(required) - {TEXT}, progress=told,
        )  # fmt: skip
        for warning in report.warnings:
            warn(warning)
        yield stack.enter_context(open_pairs(report.path)), report


def _as_learned(known: dict[str, ModalityRecord], alone: bool) -> Cutting:
    """Return windows as long and as dense as what is known was learned with."""
    from firmware_bridge.windows import Cutting

    windows = {name: each.window_s for name, each in known.items() if each.kind == "series" and each.window_s}
    rates = {name: each.rate_hz for name, each in known.items() if each.kind == "series" and each.rate_hz}
    return Cutting(max(windows.values(), default=WINDOW_S), windows, rates_hz=rates, alone=alone)


def describe(report: PairReport) -> str:
    """Return what was paired and lost, for people."""
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in report.shapes.items())
    sensors = [
        [each.sensor, each.recorded_hz, each.rate_hz, each.starts, _counts(each.breaks), each.windows,
         _counts(each.missing)]
        for each in report.sensors
    ]  # fmt: skip
    clocks = [
        [each.link, each.boot, each.source, each.count, each.rejected, each.drift_ppm, each.residual_median_ms,
         each.residual_max_ms, each.bound_ms]
        for each in report.clocks
    ]  # fmt: skip
    drops = report.drops
    lines = [
        table(["sensor", "recorded at Hz", "windows at Hz", "starts", "broke off", "windows", "without"], sensors),
        "",
        table(
            ["clock of", "boot", "from", "n", "rejected", "drift, ppm", "residual, ms", "at most", "bound, ms"], clocks
        ),
        "",
        f"kept {drops.kept} windows ({shapes}); dropped {_counts(drops.dropped) or 'none'}; "
        f"filled in {drops.interpolated} missing samples",
    ]
    if report.labels:
        lines.append(f"labels: {_counts({name or '(none)': count for name, count in report.labels.items()})}")
    return "\n".join([*lines, *report.notes])


def delete(data: Path, report: PairReport) -> Deletion:
    """Delete a recording that was learned from, and say so on stderr."""
    from firmware_bridge.retention import delete as delete_files

    done = delete_files(data, report.files)
    if done.deleted:
        with suppress(BrokenPipeError):
            text = f"deleted {', '.join(done.deleted)}: learned from, and not kept (--keep keeps it)"
            print(text, file=sys.stderr, flush=True)
    for path, why in done.kept.items():
        warn(f"{path} was learned from, and is still there: {why}")
    return done


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
