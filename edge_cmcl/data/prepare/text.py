"""Reading the numbers of published text files."""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.prepare.source import Found
from edge_cmcl.errors import DataError


def read_columns(file: Found, columns: Sequence[str]) -> dict[str, list[str]]:
    """Return the cells of the named columns of a comma-separated file with a header line.

    Raises:
        DataError: the file is not such text, lacks a column, has no rows, or has rows of another width.
    """
    try:
        with file.path.open(encoding="utf-8-sig", newline="") as lines:
            header, *rows = list(csv.reader(lines)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise damaged(file, "a comma-separated text file", str(error)) from error
    missing = [name for name in columns if name not in header]
    if missing:
        raise damaged(file, f"columns {', '.join(columns)}", f"no {', '.join(missing)} in the first line")
    if not rows:
        raise damaged(file, "rows of numbers", "only a header line")
    widths = {len(row) for row in rows}
    if widths != {len(header)}:
        raise damaged(file, f"{len(header)} cells in each row", f"{min(widths)} to {max(widths)}")
    return {name: [row[header.index(name)] for row in rows] for name in columns}


def numbers(file: Found, columns: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return columns of cells as float64 (rows, columns); an empty cell is NaN.

    Raises:
        DataError: a cell is not a number.
    """
    try:
        cells = [[cell or "nan" for cell in column] for column in columns]
        table: NDArray[np.float64] = np.array(cells, dtype=np.float64).T
    except ValueError as error:
        raise damaged(file, "a number in each cell", str(error)) from error
    return table


def matrix(file: Found, lines: Sequence[bytes], delimiter: bytes | None) -> NDArray[np.float64]:
    """Return lines of numbers as float64 (lines, columns); `delimiter` None stands for any white space.

    Raises:
        DataError: a cell is not a number, or the lines differ in width.
    """
    try:
        return np.array([line.split(delimiter) for line in lines], dtype=np.bytes_).astype(np.float64)
    except ValueError as error:
        raise damaged(file, "lines of equally many numbers", str(error)) from error


def damaged(file: Found, expected: str, got: str) -> DataError:
    """Return the error for a file that is not what its name says."""
    hint = "the file is damaged or of another data set: download it again"
    return DataError(f"cannot read {file.name}", expected=expected, got=got, hint=hint)
