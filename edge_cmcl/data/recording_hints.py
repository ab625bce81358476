"""What is probably wrong with a recording that cannot be read, so that an error can say what to do about it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_cmcl.errors import DataError

ISO_EXAMPLE = "2025-03-01T12:00:00.125"
ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(\.\d+)?(?:(Z)|([+-])(\d\d):?(\d\d))?")
OTHER_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b")
"""A date with the day or month first."""

_PREAMBLE_LINES = 100  # in which the column names are looked for where they are not in the first one


def check_first_line(path: Path, header: Sequence[str], names: Iterable[str]) -> None:
    """Refuse a file whose column names stand below some other lines, as many loggers write them.

    Raises:
        DataError: it is such a file.
    """
    if not set(names) - set(header):
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(itertools.islice(file, _PREAMBLE_LINES), start=1):
            if any(set(names) <= {cell.strip(' "') for cell in line.strip().split(mark)} for mark in ",;\t"):
                raise DataError(
                    f"{path} does not begin with its column names",
                    expected="column names in line 1, then samples",
                    got=f"the column names in line {number}",
                    hint=f"remove the {number - 1} lines above them, for instance with `tail -n +{number}`",
                )


def number_hint(name: str, cell: str, row: int) -> str:
    """Say what a cell that is no number probably is."""
    if ISO_TIME.fullmatch(cell):
        return f"these are ISO 8601 times: write {name}[iso]"
    if OTHER_DATE.match(cell):
        return f"write times as {ISO_EXAMPLE} and name the column {name}[iso]"
    if row == 1 and not any(character.isdigit() for character in cell.split("/")[0]):
        return "this looks like a row of units below the column names: remove it"
    return ""
