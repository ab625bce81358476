"""Reading and writing safetensors: the only functions of the project that do it.

Writing makes every array C-contiguous first: safetensors 0.8 silently writes wrong bytes for the others (design.md
section 7). Reading leaves the checks of header length and layout to the library, which makes them before it
allocates, and turns its errors into ours.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from edge_cmcl.durable import write_bytes
from edge_cmcl.errors import DataError

Array = NDArray[Any]

MAX_HEADER_BYTES = 8 << 20
"""The library takes 100 MB; label names, the most that our files have in theirs, are below 5 MiB."""

_LENGTH = struct.Struct("<Q")
_CODES = {"float32": "F32", "float64": "F64", "int64": "I64", "uint8": "U8"}


def to_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialise `tensors` (any shapes and NumPy dtypes) with string `metadata` as one safetensors file.

    Equal content gives equal bytes: the library writes the header's keys in random order, so they are sorted here.
    """
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    data = save(contiguous, metadata=dict(metadata) if metadata else None)
    start = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    header = json.dumps(json.loads(data[_LENGTH.size : start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join([_LENGTH.pack(len(header)), header, memoryview(data)[start:]])


def from_bytes(data: bytes, name: str = "tensors") -> dict[str, Array]:
    """Parse one safetensors file held in memory.

    Raises:
        DataError: `data` is not a safetensors file; `name` says which in the message.
    """
    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise _unreadable(name, error) from error


def from_bytes_with_metadata(data: bytes, name: str = "tensors") -> tuple[dict[str, Array], dict[str, str]]:
    """Parse one safetensors file held in memory, and the string metadata in its header.

    Raises:
        DataError: `data` is not a safetensors file, or its header is too long; `name` says which in the message.
    """
    length = int.from_bytes(data[: _LENGTH.size], "little")
    _check_header_length(name, length, len(data))
    arrays = from_bytes(data, name)  # the library checks the header before anything else looks at it
    header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    return arrays, dict(header.get("__metadata__") or {})


def write(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write `tensors` to `path` durably (`edge_cmcl.durable`): a mapped older file stays readable.

    Raises:
        StorageError: the file system refused.
    """
    write_bytes(path, to_bytes(tensors, metadata))


class TensorFile:
    """A safetensors file opened for reading row ranges without loading the rest.

    Use it as a context manager, or `close` it.

    Raises:
        DataError: the file is missing or not a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"cannot read {self.path}", expected="a safetensors file", got="no such file")
        _check_header(self.path)
        try:
            self._file = safe_open(str(self.path), framework="np")
            self._file.__enter__()
            self.metadata: dict[str, str] = dict(self._file.metadata() or {})
            self.names: tuple[str, ...] = tuple(sorted(self._file.keys()))
        except (SafetensorError, ValueError, OSError) as error:
            raise _unreadable(str(self.path), error) from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of tensor `name`."""
        return tuple(self._file.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Return the safetensors dtype of tensor `name`, for instance "F32" or "I64"."""
        return str(self._file.get_slice(name).get_dtype())

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Return rows `start:stop` of tensor `name` as a new array."""
        rows = self._file.get_slice(name)
        return np.asarray(rows[start : rows.get_shape()[0] if stop is None else stop])

    def read_whole(self, name: str) -> Array:
        """Return tensor `name`, of any rank, as a new array."""
        return np.asarray(self._file.get_tensor(name))

    def close(self) -> None:
        """Release the file."""
        self._file.__exit__(None, None, None)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TensorArrays:
    """Arrays in memory that are read like a `TensorFile`.

    Args:
        name: what to call them in messages.
        arrays: the tensors.
        metadata: the metadata strings.
    """

    def __init__(self, name: str, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        self.path = Path(name)
        self.metadata = dict(metadata)
        self.names: tuple[str, ...] = tuple(sorted(arrays))
        self._arrays = dict(arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of tensor `name`."""
        return self._arrays[name].shape

    def dtype(self, name: str) -> str:
        """Return the dtype of tensor `name` as safetensors calls it, or as NumPy does where that has none."""
        return dtype_code(self._arrays[name])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Return rows `start:stop` of tensor `name` as a new array."""
        return np.array(self._arrays[name][start:stop])

    def close(self) -> None:
        """Let go of the arrays."""
        self._arrays = {}


def dtype_code(array: Array) -> str:
    """Return what safetensors calls the dtype of `array`, for instance "F32"; NumPy's name for those that it lacks."""
    name = str(array.dtype.name)
    return _CODES.get(name, name)


def _check_header(path: Path) -> None:
    """Refuse a header that takes far more memory than one of ours; whatever else is wrong is the library's to say."""
    try:
        with path.open("rb") as file:
            start = file.read(_LENGTH.size)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise _unreadable(str(path), error) from error
    _check_header_length(str(path), int.from_bytes(start, "little"), size)


def _check_header_length(name: str, length: int, size: int) -> None:
    if MAX_HEADER_BYTES < length <= size:
        expected = f"a header of at most {MAX_HEADER_BYTES} bytes"
        raise DataError(f"cannot read {name}", expected=expected, got=f"one of {length} bytes")


def _unreadable(name: str, error: Exception) -> DataError:
    header, reason = "Error while deserializing header: ", str(error)[:300]
    truncated = "incomplete" in reason.lower()
    return DataError(
        f"cannot read {name}",
        expected="a whole safetensors file",
        got=f"not a safetensors file ({reason.removeprefix(header)})" if header in reason and not truncated else reason,
        hint="the file is truncated, damaged or of another kind: make or copy it again",
    )
