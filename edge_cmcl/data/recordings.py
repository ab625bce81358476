"""Reading columns of a user's own files: CSV, Parquet and NumPy, each into the same `Table`.

CSV (.csv, .tsv, .txt): the first line names the columns; comma, semicolon or tab is recognised from it, and with the
latter two a decimal comma is understood. Parquet (.parquet, .pq) needs the host extra. NumPy: the columns of a
structured .npy are its fields, those of a plain one "0", "1", ...; those of an .npz are its one-dimensional arrays by
name and the columns of its two-dimensional ones as "NAME.0", "NAME.1", ...
"""

from __future__ import annotations

import csv
import difflib
import importlib
import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.recording_hints import ISO_EXAMPLE, ISO_TIME, OTHER_DATE, check_first_line, number_hint
from edge_cmcl.errors import DataError, MissingExtraError

TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
ISO = "iso"

# The last three: damaged in the middle, encrypted, compressed by a method that Python lacks.
_NPZ_ERRORS = (
    *(ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile),
    *(zlib.error, RuntimeError, NotImplementedError),
)

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
_CHUNK_ROWS = 65536


@dataclass(frozen=True)
class Wanted:
    """The columns wanted from one file.

    Attributes:
        times: (column, unit), the unit a key of `TIME_UNITS` or `ISO`.
        numbers: columns of measured values.
        texts: columns of names: labels, subjects.
    """

    times: set[tuple[str, str]] = field(default_factory=set)
    numbers: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)

    def names(self) -> list[str]:
        """Return every column once, sorted."""
        return sorted({name for name, _ in self.times} | self.numbers | self.texts)


@dataclass(frozen=True)
class Table:
    """The columns read from one file, each of as many rows.

    Attributes:
        times: per (column, unit) float64 (t,) seconds; calendar times count from 1970 in UTC.
        numbers: per column float64 (t,), missing cells NaN.
        texts: per column a list of t strings, missing cells "".
    """

    path: Path
    times: dict[tuple[str, str], NDArray[np.float64]]
    numbers: dict[str, NDArray[np.float64]]
    texts: dict[str, list[str]]


def read_table(path: Path, wanted: Wanted) -> Table:
    """Read the wanted columns of a file of any supported kind.

    Raises:
        DataError: the file is missing, empty, damaged or of an unknown kind, a column is missing, a cell is no number.
        MissingExtraError: a Parquet file, and pyarrow is not installed.
    """
    readers: dict[str, Callable[[Path, Wanted], dict[str, Any]]] = {
        **dict.fromkeys((".csv", ".tsv", ".txt"), _read_csv),
        **dict.fromkeys((".parquet", ".pq"), _read_parquet),
        ".npy": _read_npy,
        ".npz": _read_npz,
    }
    if path.suffix.lower() not in readers:
        raise DataError(f"cannot import {path}", expected=", ".join(readers), got=path.suffix or "no ending")
    if not path.is_file():
        raise DataError(f"cannot import {path}", expected="a file", got="no such file")
    columns = readers[path.suffix.lower()](path, wanted)
    if any(np.ndim(column) != 1 for column in columns.values() if isinstance(column, np.ndarray)):
        raise DataError(f"{path}: a column is no column", expected="one value in each row", got="an array in each row")
    if any(len(column) == 0 for column in columns.values()):
        raise DataError(f"{path} has no rows", expected="recorded samples below the column names", got="none")
    return Table(
        path=path,
        times={(name, unit): _times(path, name, unit, columns[name]) for name, unit in sorted(wanted.times)},
        numbers={name: _numbers(path, name, columns[name]) for name in sorted(wanted.numbers)},
        texts={name: [_text(cell) for cell in _cells(columns[name])] for name in sorted(wanted.texts)},
    )


def _read_csv(path: Path, wanted: Wanted) -> dict[str, Any]:
    """Return each column as float64 where only numbers are wanted from it, else as a list of strings."""
    texts = wanted.texts | {name for name, unit in wanted.times if unit == ISO}
    parts: dict[str, list[Any]] = {name: [] for name in wanted.names()}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)
            file.seek(0)
            rows = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(rows, [])]
            check_first_line(path, header, parts)
            places = {name: _place(path, header, name) for name in parts}
            for start, chunk in _chunks(path, rows, len(header)):
                for name, place in places.items():
                    cells = chunk[place]
                    parts[name].append(cells if name in texts else _floats(path, name, cells, start, delimiter != ","))
    except (UnicodeDecodeError, csv.Error) as error:
        hint = "save it as CSV in UTF-8, one line of column names first"
        raise DataError(f"{path} is not a readable CSV file", got=str(error), hint=hint) from error
    return {
        name: list(itertools.chain(*part)) if name in texts else np.concatenate([np.empty(0), *part])
        for name, part in parts.items()
    }


def _chunks(path: Path, rows: Iterator[list[str]], width: int) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
    """Yield the number of the first data row (from 1) and the columns of up to `_CHUNK_ROWS` rows."""
    start = 1
    filled = (row for row in rows if row)
    while chunk := list(itertools.islice(filled, _CHUNK_ROWS)):
        for i, row in enumerate(chunk):
            if len(row) != width:
                hint = "mend or remove that row; a last line cut short is a recording that was interrupted"
                got = f"{len(row)} in data row {start + i}"
                raise DataError(f"{path} is uneven", expected=f"{width} cells in each row", got=got, hint=hint)
        yield start, list(zip(*chunk, strict=True))
        start += len(chunk)


def _floats(path: Path, name: str, cells: Sequence[str], start: int, decimal_comma: bool) -> NDArray[np.float64]:
    try:
        return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))
    except ValueError:
        return np.array([_float(path, name, cell, start + i, decimal_comma) for i, cell in enumerate(cells)])


def _float(path: Path, name: str, cell: str, row: int, decimal_comma: bool) -> float:
    if cell.strip().lower() in _MISSING:
        return float("nan")
    try:
        return float(cell.replace(",", ".") if decimal_comma else cell)
    except ValueError as error:
        got, hint = f"{cell[:40]!r} in data row {row}", number_hint(name, cell.strip(), row)
        raise DataError(f"{path}: column {name!r} is not numeric", expected="numbers", got=got, hint=hint) from error


def _read_parquet(path: Path, wanted: Wanted) -> dict[str, Any]:
    try:
        pa: Any = importlib.import_module("pyarrow")
        pq: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        hint = "pip install '.[host]' in a checkout of edge-cmcl, or export the recording as CSV"
        raise MissingExtraError("reading Parquet needs pyarrow", expected="pyarrow", got="none", hint=hint) from error
    try:
        with pq.ParquetFile(path) as file:
            for name in wanted.names():
                _place(path, file.schema_arrow.names, name)
            table = file.read(columns=wanted.names())
            return {name: _arrow_column(table.column(name), pa) for name in wanted.names()}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file", got=str(error)) from error


def _arrow_column(column: Any, pa: Any) -> Any:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("ns", tz=kind.tz)).to_numpy(zero_copy_only=False)
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return column.to_numpy(zero_copy_only=False) if numeric and not column.null_count else column.to_pylist()


def _read_npy(path: Path, wanted: Wanted) -> dict[str, Any]:
    try:
        # Mapped: a header that claims more than the file holds is refused instead of allocated.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is not a readable NumPy file", got=str(error)) from error
    if array.dtype.names:
        fields = list(array.dtype.names)
    elif array.ndim == 2:
        fields = [str(i) for i in range(array.shape[1])]
    else:
        raise DataError(f"{path} is no table", expected="fields, or two dimensions", got=f"shape {array.shape}")
    places = {name: _place(path, fields, name) for name in wanted.names()}
    return {name: array[name] if array.dtype.names else array[:, place] for name, place in places.items()}


def _read_npz(path: Path, wanted: Wanted) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    try:
        # Opened here, and by this class: `np.load` keeps a damaged file open, and takes a single array for an archive.
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            for name in archive.files:
                array = archive[name]
                if array.ndim == 1:
                    columns[name] = array
                elif array.ndim == 2:
                    columns.update({f"{name}.{i}": array[:, i] for i in range(array.shape[1])})
    except _NPZ_ERRORS as error:
        raise DataError(f"{path} is not a readable NumPy file", got=str(error)) from error
    for name in wanted.names():
        _place(path, list(columns), name)
    if len({len(columns[name]) for name in wanted.names()}) > 1:
        lengths = ", ".join(f"{name}: {len(columns[name])}" for name in wanted.names())
        raise DataError(f"{path}: the columns have different lengths", expected="one length", got=lengths)
    return {name: columns[name] for name in wanted.names()}


def _place(path: Path, header: Sequence[str], name: str) -> int:
    if not any(header):
        raise DataError(f"{path} is empty", expected="column names in its first line, then samples", got="nothing")
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise DataError(f"{path} has several columns {name!r}", expected="one", hint="rename the others")
    near = difflib.get_close_matches(name, header, n=3, cutoff=0.4)
    listed = ", ".join(header[:20]) + (", ..." if len(header) > 20 else "")
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    raise DataError(f"{path} has no column {name!r}", expected=f"one of {listed}", hint=hint)


def _cells(column: Any) -> Iterable[Any]:
    cells: Iterable[Any] = column.tolist() if isinstance(column, np.ndarray) else column
    return cells


def _text(cell: Any) -> str:
    if cell is None or cell != cell:  # a NaN is not equal to itself
        return ""
    text = f"{cell:g}" if isinstance(cell, float) else str(cell).strip()
    return "" if text.lower() in _MISSING else text


def _numbers(path: Path, name: str, column: Any) -> NDArray[np.float64]:
    """Return a column as float64 (t,); what CSV gives is one already unless it is wanted as text too."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "biuf":
        numbers: NDArray[np.float64] = column.astype(np.float64)
        return numbers
    if isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind not in "SU":
        raise DataError(f"{path}: column {name!r} is not numeric", expected="numbers", got=column.dtype.name)
    cells = ["" if cell is None else str(cell) for cell in _cells(column)]
    return _floats(path, name, cells, 1, decimal_comma=path.suffix.lower() not in (".parquet", ".pq"))


def _times(path: Path, name: str, unit: str, column: Any) -> NDArray[np.float64]:
    """Return a column as seconds (t,); a calendar type (datetime64, Parquet timestamp) needs no unit."""
    seconds: NDArray[np.float64]
    if isinstance(column, np.ndarray) and column.dtype.kind == "M":
        nanoseconds = column.astype("datetime64[ns]")
        seconds = np.multiply(nanoseconds.astype(np.int64), 1e-9, dtype=np.float64)
        seconds[np.isnat(nanoseconds)] = np.nan
    elif unit == ISO:
        cells = [_text(cell) for cell in _cells(column)]
        seconds = np.array([_iso_seconds(path, name, cell, i + 1) for i, cell in enumerate(cells)])
    else:
        seconds = TIME_UNITS[unit] * _numbers(path, name, column)
    empty = np.flatnonzero(~np.isfinite(seconds))
    if len(empty):
        got = f"none in data row {empty[0] + 1}"
        raise DataError(f"{path}: a row has no time", expected=f"a time in {name!r}", got=got, hint="remove such rows")
    return seconds


def _iso_seconds(path: Path, name: str, cell: str, row: int) -> float:
    """Return the seconds since 1970 of an ISO 8601 time; without a zone it counts as UTC."""
    match = ISO_TIME.fullmatch(cell)
    try:
        if match is None:
            raise ValueError(cell)
        base, fraction, _, sign, hours, minutes = match.groups()
        moment = datetime.fromisoformat(base).replace(tzinfo=timezone.utc)
    except ValueError as error:
        expected = f"ISO 8601 such as {ISO_EXAMPLE}"
        got = f"{cell[:40]!r} in data row {row}"
        hint = "write day, month and year the other way round" if OTHER_DATE.match(cell) else ""
        raise DataError(f"{path}: column {name!r} is no time", expected=expected, got=got, hint=hint) from error
    zone = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)).total_seconds()
    return moment.timestamp() + float(fraction or 0) - (-zone if sign == "-" else zone)
