"""Reading and writing pairs files: synchronised windows of several sensors, row i of each the same moment.

The format is design.md section 4; its rules stand in `pairs_format`. Opening validates everything but the windows
themselves, which `Pairs.read` checks as it reads them, a range of rows at a time, so memory stays bounded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_cmcl import tensors
from edge_cmcl.data.pairs_format import FORMAT, MIN_SAMPLES, VERSION, Layout, TensorLayout, check_layout, check_name
from edge_cmcl.errors import DataError

__all__ = ["FORMAT", "MIN_SAMPLES", "VERSION", "Pairs", "file_digest", "open_pairs", "pairs_in_memory", "write_pairs"]

_READ_BYTES = 1 << 20


class Pairs:
    """An opened, validated pairs file; a context manager. Made by `open_pairs` and `pairs_in_memory`.

    Attributes:
        path: the file.
        n: number of rows (moments).
        modalities: sorted names of the sensors.
        label_names: class names, () where the file has none.
        rate_hz: nominal sample rate per modality, where known.
        units: unit of the values per modality, where known.
        source: where the recording comes from, in words.
        labels: int64 (n,), index into `label_names` or -1 for unlabelled; None where the file has none.
        groups: int64 (n,), subject or run of each row; None where the file has none.
        time: float64 (n,), start of each window in s; None where the file does not say. It rises within a recording.
    """

    def __init__(self, file: tensors.TensorFile | tensors.TensorArrays, layout: Layout) -> None:
        self._file = file
        self._windows = layout.windows
        self.path: Path = file.path
        self.n: int = layout.n
        self.modalities: tuple[str, ...] = tuple(layout.windows)
        self.label_names: tuple[str, ...] = layout.label_names
        self.rate_hz: dict[str, float] = layout.rate_hz
        self.units: dict[str, str] = layout.units
        self.source: str = layout.source
        self.labels: NDArray[np.int64] | None = file.read("label") if "label" in file.names else None
        self.groups: NDArray[np.int64] | None = file.read("group") if "group" in file.names else None
        self.time: NDArray[np.float64] | None = file.read("time") if "time" in file.names else None
        self._valid: dict[str, NDArray[np.bool_]] = {
            name: _flags(str(self.path), name, file.read(f"valid.{name}"))
            for name in self.modalities
            if f"valid.{name}" in file.names
        }
        _check_labels(str(self.path), self.labels, self.label_names)
        _check_time(str(self.path), self.time)

    def shape(self, modality: str) -> tuple[int, ...]:
        """Return the shape of one window of `modality`: (T, C) for series, (T, H, W) for frames."""
        self._check_known(modality)
        return self._windows[modality]

    def valid(self, modality: str) -> NDArray[np.bool_]:
        """Return a bool (n,): the rows in which `modality` was recorded."""
        self._check_known(modality)
        flags = self._valid.get(modality)
        return np.ones(self.n, dtype=np.bool_) if flags is None else flags.copy()

    def window_s(self, modality: str) -> float | None:
        """Return the length of one window of `modality` in s, None where its rate is unknown."""
        rate_hz = self.rate_hz.get(modality)
        samples = self.shape(modality)[0]
        return samples / rate_hz if rate_hz else None

    def longest_window_s(self, modalities: Iterable[str]) -> float | None:
        """Return the length of the longest window among `modalities` in s, None where no rate is known.

        Rows whose starts are closer share samples. Names that are not in the file, as of the labels, are passed over.
        """
        lengths = [self.window_s(name) for name in modalities if name in self._windows]
        return max((length for length in lengths if length is not None), default=None)

    def read(self, modality: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return windows `start:stop` of `modality`, float32 (rows, T, C) or (rows, T, H, W), C-contiguous.

        Rows in which the modality is missing (`valid`) come as zeros, whatever the file holds there.

        Raises:
            DataError: the modality is not in the file, or a valid row holds NaN or infinity.
        """
        shape = self.shape(modality)
        start, stop, _ = slice(start, stop).indices(self.n)
        if stop <= start:
            return np.zeros((0, *shape), dtype=np.float32)
        windows: NDArray[np.float32] = np.ascontiguousarray(self._file.read(modality, start, stop))
        valid = self._valid.get(modality)
        if valid is not None:
            windows[~valid[start:stop]] = 0.0
        _check_finite(str(self.path), modality, windows, start)
        return windows

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def __enter__(self) -> Pairs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_known(self, modality: str) -> None:
        if modality not in self._windows:
            expected = f"one of {', '.join(self.modalities)}"
            raise DataError(f"{self.path} has no modality {modality!r}", expected=expected)


def open_pairs(path: Path | str) -> Pairs:
    """Open a pairs file and validate everything but the windows (design.md section 4).

    Raises:
        DataError: the file is missing, damaged, of another kind or version, or breaks a rule of the format.
    """
    return _opened(tensors.TensorFile(Path(path)))


def pairs_in_memory(name: str, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Pairs:
    """Validate what stands in a pairs file (design.md section 4) and is in memory already.

    Args:
        name: what to call it in messages, for instance "the request".
        arrays: the tensors of such a file.
        metadata: its metadata strings.

    Raises:
        DataError: as `open_pairs`.
    """
    return _opened(tensors.TensorArrays(name, arrays, metadata))


def _opened(file: tensors.TensorFile | tensors.TensorArrays) -> Pairs:
    try:
        layouts = {name: TensorLayout(file.shape(name), file.dtype(name)) for name in file.names}
        return Pairs(file, check_layout(str(file.path), layouts, file.metadata))
    except BaseException:
        file.close()
        raise


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a recording, in hexadecimal: what it is called where it must be known again."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def write_pairs(
    path: Path | str,
    windows: Mapping[str, NDArray[np.float32]],
    *,
    labels: ArrayLike | None = None,
    label_names: Sequence[str] = (),
    groups: ArrayLike | None = None,
    time: ArrayLike | None = None,
    valid: Mapping[str, ArrayLike] | None = None,
    rate_hz: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
    source: str = "",
) -> None:
    """Validate and durably write a pairs file; what is refused here is what `open_pairs` and `read` refuse.

    Args:
        path: the file, replaced atomically.
        windows: per modality float32 (n, T, C) or (n, T, H, W), T >= 16.
        labels: integers (n,), index into `label_names` or -1 for unlabelled.
        label_names: class names, different and not empty.
        groups: integers (n,), subject or run of each row.
        time: finite numbers (n,), start of each window in s; rows of one recording stand in order of time.
        valid: per modality booleans or 0/1 (n,), for modalities that are missing in some rows.
        rate_hz: nominal sample rate per modality.
        units: unit of the values per modality, for instance "g" or "A/10".
        source: where the recording comes from, in words.

    Raises:
        DataError: a rule of the format is broken, or a valid row holds NaN or infinity.
        StorageError: the file system refused.
    """
    where = str(path)
    for name in windows:
        check_name(where, name)
    arrays: dict[str, NDArray[Any]] = {name: np.asarray(rows) for name, rows in windows.items()}
    for name, column in (("label", labels), ("group", groups)):
        if column is not None:
            arrays[name] = _integers(where, name, column)
    if time is not None:
        arrays["time"] = _seconds(where, time)
    for name, column in (valid or {}).items():
        arrays[f"valid.{name}"] = _flags(where, name, np.asarray(column)).astype(np.uint8)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "labels": json.dumps(list(label_names)),
        "rate_hz": json.dumps({name: float(rate) for name, rate in (rate_hz or {}).items()}),
        "units": json.dumps(dict(units or {})),
        "source": json.dumps(source),
    }
    described = {name: TensorLayout(a.shape, tensors.dtype_code(a)) for name, a in arrays.items()}
    layout = check_layout(where, described, metadata)
    _check_labels(where, arrays.get("label"), layout.label_names)
    _check_time(where, arrays.get("time"))
    for name in layout.windows:
        flags = arrays.get(f"valid.{name}")
        _check_finite(where, name, arrays[name], 0, None if flags is None else flags != 0)
    tensors.write(Path(path), arrays, metadata)


def _integers(where: str, name: str, column: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(column)
    if array.dtype.kind not in "iu":
        raise DataError(f"{where}: {name!r} has the wrong dtype", expected="integers", got=array.dtype.name)
    return array.astype(np.int64)


def _seconds(where: str, column: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(column)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: 'time' has the wrong dtype", expected="seconds", got=array.dtype.name)
    return array.astype(np.float64)


def _flags(where: str, modality: str, column: NDArray[Any]) -> NDArray[np.bool_]:
    integers = column.dtype.kind in "bui"
    if not integers or (column.size and (column.min() < 0 or column.max() > 1)):
        got = f"{column.min()} to {column.max()}" if integers else column.dtype.name
        raise DataError(f"{where}: 'valid.{modality}' is wrong", expected="0 or 1 in each row", got=got)
    return column.astype(np.bool_)


def _check_labels(where: str, labels: NDArray[np.int64] | None, names: Sequence[str]) -> None:
    if labels is not None and (labels.min() < -1 or labels.max() >= len(names)):
        expected = f"-1 (unlabelled) to {len(names) - 1}, the last of the {len(names)} names"
        raise DataError(f"{where}: a label has no name", expected=expected, got=f"{labels.min()} to {labels.max()}")


def _check_time(where: str, time: NDArray[np.float64] | None) -> None:
    if time is not None and not np.isfinite(time).all():
        row = int(np.flatnonzero(~np.isfinite(time))[0])
        raise DataError(f"{where}: row {row} of 'time'", expected="finite seconds", got=str(time[row]))


def _check_finite(
    where: str, modality: str, windows: NDArray[Any], start: int, valid: NDArray[np.bool_] | None = None
) -> None:
    # A sum is not finite where a value is not; only then is it worth a mask as large as the windows.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = windows.reshape(len(windows), -1).sum(axis=1)
    suspects = ~np.isfinite(sums) if valid is None else ~np.isfinite(sums) & valid
    for row in np.flatnonzero(suspects):
        bad = np.size(windows[row]) - int(np.isfinite(windows[row]).sum())
        if bad:
            expected = "finite numbers"
            got = f"{bad} of {np.size(windows[row])} values are NaN or infinite"
            hint = f"mark rows without this sensor with 0 in 'valid.{modality}', or drop them"
            raise DataError(f"{where}: row {start + row} of {modality!r}", expected=expected, got=got, hint=hint)
