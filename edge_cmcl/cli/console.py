"""What a command shows: its result on stdout (text, or one JSON object), progress and errors on stderr."""

from __future__ import annotations

import json as json_format
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import PurePath
from typing import Any, TextIO

from edge_cmcl.cli import interruption
from edge_cmcl.cli.failures import Failure
from edge_cmcl.errors import EdgeCmclWarning
from edge_cmcl.progress import Progress

_claimed: list[TextIO] = []


def claim_stdout() -> None:
    """Keep stdout for `show` alone: what anything else prints there, C libraries included, goes to stderr."""
    if not _claimed:
        sys.stdout.flush()
        _claimed.append(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        os.dup2(2, 1)


def show(result: Mapping[str, object], text: str, *, json: bool) -> None:
    """Print the result of a command on stdout: `result` as one JSON object, or `text` for people.

    NumPy values, paths and tuples become plain JSON; NaN and infinities, which JSON lacks, become null.
    """
    _print(json_format.dumps(plain(result), indent=2, allow_nan=False) if json else text)


def show_failure(failure: Failure, *, json: bool) -> None:
    """Print why a command failed: as {"error": {...}} on stdout, or as text on stderr."""
    if json:
        error = {
            "type": failure.kind,
            "message": failure.message,
            "expected": failure.expected,
            "got": failure.got,
            "to_do": failure.to_do,
            "exit_code": failure.exit_code,
        }
        show({"error": error}, "", json=True)
        return
    lines = [f"edge-cmcl: {failure.message}"]
    named = {"expected": failure.expected, "got": failure.got, "to do": failure.to_do}
    lines += [f"  {name}: {text}" for name, text in named.items() if text]
    with suppress(BrokenPipeError):
        print("\n".join(lines), file=sys.stderr, flush=True)


def _print(text: str) -> None:
    out = _claimed[0] if _claimed else sys.stdout
    try:
        print(text, file=out, flush=True)
    except BrokenPipeError:
        # `| head` has seen enough. The work is done; let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def plain(value: object) -> object:
    """Return `value` in the types that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # a NumPy array or number, without importing NumPy here
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    return value


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out `rows` under `header` in aligned columns; numbers are right-aligned, None is shown as "-"."""
    texts = [[_cell(value) for value in row] for row in rows]
    columns = list(zip(header, *texts, strict=True))
    widths = [max(len(text) for text in column) for column in columns]
    numeric = [all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(header))]
    lines = []
    for texts_of_row in [list(header), ["-" * width for width in widths], *texts]:
        cells = zip(texts_of_row, widths, numeric, strict=True)
        padded = [text.rjust(width) if right else text.ljust(width) for text, width, right in cells]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def warned() -> Iterator[list[str]]:
    """Show each warning of ours on stderr, once, and collect it for the key `warnings` of the JSON."""
    collected: list[str] = []
    with warnings.catch_warnings():
        others = warnings.showwarning

        def note(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: Any
        ) -> None:
            if not issubclass(category, EdgeCmclWarning):
                others(message, category, filename, lineno, *rest, **more)
            elif str(message) not in collected:
                collected.append(str(message))
                warn(str(message))

        warnings.showwarning = note
        warnings.simplefilter("always", EdgeCmclWarning)
        yield collected


def show_warnings() -> None:
    """Let every warning of ours look like `warn`, also where no command collects it."""
    others = warnings.showwarning

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: Any
    ) -> None:
        if issubclass(category, EdgeCmclWarning):
            warn(str(message))
        else:
            others(message, category, filename, lineno, *rest, **more)

    warnings.showwarning = shown


def told(text: str) -> None:
    """Print on stderr what a command that goes on has just done."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    with suppress(BrokenPipeError):
        print(f"warning: {text}", file=sys.stderr, flush=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Yield a callback that shows each stage on stderr: a bar on a terminal, one line at its end elsewhere."""
    with _bars() if sys.stderr.isatty() else nullcontext(_lines()) as shown:

        def callback(stage: str, done: int, total: int) -> None:
            interruption.check()
            shown(stage, done, total)

        yield callback


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def callback(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield callback


def _lines() -> Progress:
    began: dict[str, float] = {}

    def callback(stage: str, done: int, total: int) -> None:
        start = began.setdefault(stage, time.monotonic())
        if done >= total:
            del began[stage]
            with suppress(BrokenPipeError):
                print(f"{stage}: {total} in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)

    return callback
