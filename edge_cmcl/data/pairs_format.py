"""The rules of the pairs file (design.md section 4), as a policy without input or output.

    tensors   NAME        float32 (n, T, C) for series or (n, T, H, W) for frames; one per modality
              label       int64 (n,), -1 for unlabelled, else an index into the names        optional
              group       int64 (n,), subject or run, for splits that do not leak             optional
              time        float64 (n,), start of each window in s, finite; rows of one        optional
                          recording stand in order, so where it does not rise another begins
              valid.NAME  uint8 (n,), 0 where the modality is missing in that row             optional
    metadata  format "edge-cmcl/pairs", version "1", and as JSON text: labels (list of names),
              rate_hz (object of numbers), units (object of strings), source (string)

The same check runs when a file is opened and before one is written, so what is written can be read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_cmcl import limits
from edge_cmcl.errors import DataError

FORMAT = "edge-cmcl/pairs"
VERSION = "1"
MIN_SAMPLES = 16
MAX_RATE_HZ = 1e9

COLUMNS = {"label": "I64", "group": "I64", "time": "F64"}
"""Tensors that are not windows, but for `valid.NAME`."""

RESERVED = frozenset({"text", "valid", *COLUMNS})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class TensorLayout:
    """Shape and safetensors dtype ("F32", "F64", "I64", "U8") of one tensor."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Layout:
    """What a pairs file says about itself before any window is read."""

    n: int
    windows: dict[str, tuple[int, ...]]
    label_names: tuple[str, ...]
    rate_hz: dict[str, float]
    units: dict[str, str]
    source: str


def check_layout(where: str, tensors: Mapping[str, TensorLayout], metadata: Mapping[str, str]) -> Layout:
    """Check the tensors' names, shapes and dtypes and the metadata of a pairs file.

    Args:
        where: the file, for the messages.
        tensors: layout of every tensor in the file.
        metadata: the file's metadata strings.

    Raises:
        DataError: a rule of design.md section 4 is broken.
    """
    _check_version(where, metadata)
    modalities = sorted(name for name in tensors if name not in COLUMNS and not name.startswith("valid."))
    if not modalities:
        raise DataError(f"{where} holds no modality", expected="at least one float32 tensor of windows", got="none")
    for name in modalities:
        check_name(where, name)
        _check_windows(where, name, tensors[name])
    n = tensors[modalities[0]].shape[0]
    for name in modalities[1:]:
        if tensors[name].shape[0] != n:
            got = f"{n} of {modalities[0]}, {tensors[name].shape[0]} of {name}"
            hint = "row i of every modality must be the same moment; mark missing ones with valid.NAME"
            raise DataError(f"{where}: window counts differ", expected="one count", got=got, hint=hint)
    for name in sorted(set(tensors) - set(modalities)):
        _check_column(where, name, tensors[name], n, modalities)
    windows = {name: tensors[name].shape[1:] for name in modalities}
    return Layout(
        n=n,
        windows=windows,
        label_names=_label_names(where, metadata, "label" in tensors),
        rate_hz=_rates(where, metadata, modalities),
        units=_units(where, metadata, modalities),
        source=_source(where, metadata),
    )


def check_name(where: str, name: str) -> None:
    """Check that `name` can name a modality.

    Raises:
        DataError: it is reserved or has other characters than [a-z][a-z0-9_]{0,31}.
    """
    expected = "a lower-case letter, then up to 31 lower-case letters, digits or underscores"
    if name in RESERVED:
        raise DataError(f"{where}: a modality cannot be called {name!r}", expected=expected, got="a reserved name")
    if not _NAME.fullmatch(name):
        raise DataError(f"{where}: {name[:80]!r} cannot name a modality", expected=expected, hint="rename the tensor")


def _check_version(where: str, metadata: Mapping[str, str]) -> None:
    form = metadata.get("format")
    if form != FORMAT:
        hint = "make pairs files with `edge-cmcl data import` or `edge-cmcl data prepare`"
        got = repr(form) if form else "no format in the metadata"
        raise DataError(f"{where} is not a pairs file", expected=f"format {FORMAT!r}", got=got, hint=hint)
    version = metadata.get("version")
    if version != VERSION:
        hint = "update edge-cmcl, or make the file again with this version"
        raise DataError(f"{where} has another format version", expected=VERSION, got=repr(version), hint=hint)


def _check_windows(where: str, name: str, tensor: TensorLayout) -> None:
    if tensor.dtype != "F32":
        raise DataError(f"{where}: modality {name!r} has the wrong dtype", expected="F32", got=tensor.dtype)
    if len(tensor.shape) not in (3, 4):
        expected = "(n, T, C) for series or (n, T, H, W) for frames"
        raise DataError(f"{where}: modality {name!r} has the wrong rank", expected=expected, got=str(tensor.shape))
    n, samples, *rest = tensor.shape
    if n < 1 or samples < MIN_SAMPLES or min(rest) < 1:
        expected = f"at least 1 window of at least {MIN_SAMPLES} samples and 1 channel"
        raise DataError(f"{where}: modality {name!r} is too small", expected=expected, got=str(tensor.shape))
    most = limits.MAX_CHANNELS if len(rest) == 1 else limits.MAX_FRAME_SIDE
    if max(rest) > most or math.prod(tensor.shape[1:]) > limits.MAX_WINDOW_VALUES:
        what = "channels" if len(rest) == 1 else "cells on a side"
        expected = f"at most {most} {what} and {limits.MAX_WINDOW_VALUES} values in one window"
        raise DataError(f"{where}: modality {name!r} is too large", expected=expected, got=str(tensor.shape))


def _check_column(where: str, name: str, tensor: TensorLayout, n: int, modalities: list[str]) -> None:
    if name.startswith("valid.") and name.removeprefix("valid.") not in modalities:
        raise DataError(f"{where}: {name!r} belongs to no modality", expected=f"valid. and one of {modalities}")
    dtype = COLUMNS.get(name, "U8")
    if tensor.dtype != dtype or tensor.shape != (n,):
        got = f"{tensor.dtype} {tensor.shape}"
        raise DataError(f"{where}: {name!r} has the wrong dtype or shape", expected=f"{dtype} ({n},)", got=got)


def _json(where: str, metadata: Mapping[str, str], key: str, missing: str) -> Any:
    try:
        return json.loads(metadata.get(key, missing))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: metadata {key!r} is not JSON", expected=missing, got=str(error)) from error


def _label_names(where: str, metadata: Mapping[str, str], labelled: bool) -> tuple[str, ...]:
    names = _json(where, metadata, "labels", "[]")
    expected = "a list of different, non-empty names"
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{where}: metadata 'labels' is wrong", expected=expected, got=_short(names))
    long = [name for name in names if len(name) > limits.MAX_LABEL_LENGTH or not _is_text(name)]
    if long or len(names) > limits.MAX_LABELS:
        expected = f"at most {limits.MAX_LABELS} names of at most {limits.MAX_LABEL_LENGTH} Unicode characters"
        got = _short(long[0]) if long else f"{len(names)} names"
        raise DataError(f"{where}: metadata 'labels' is beyond the limits", expected=expected, got=got)
    if len(set(names)) != len(names):
        raise DataError(f"{where}: metadata 'labels' repeats a name", expected=expected, got=_short(names))
    if labelled and not names:
        raise DataError(f"{where} has labels without names", expected="metadata 'labels'", got="none")
    return tuple(names)


def _object(where: str, metadata: Mapping[str, str], key: str, modalities: list[str]) -> dict[str, Any]:
    value = _json(where, metadata, key, "{}")
    expected = f"an object with keys among {modalities}"
    if not isinstance(value, dict) or not set(value) <= set(modalities):
        raise DataError(f"{where}: metadata {key!r} is wrong", expected=expected, got=_short(value))
    return value


def _rates(where: str, metadata: Mapping[str, str], modalities: list[str]) -> dict[str, float]:
    rates = _object(where, metadata, "rate_hz", modalities)
    for name, rate in rates.items():
        number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if not number or not 0 < rate <= MAX_RATE_HZ:
            expected = f"a number above 0, up to {MAX_RATE_HZ:.0e}"
            raise DataError(f"{where}: rate_hz of {name!r} is wrong", expected=expected, got=_short(rate))
    return {name: float(rate) for name, rate in rates.items()}


def _units(where: str, metadata: Mapping[str, str], modalities: list[str]) -> dict[str, str]:
    units = _object(where, metadata, "units", modalities)
    for name, unit in units.items():
        if not isinstance(unit, str) or len(unit) > limits.MAX_UNIT_LENGTH or not _is_text(unit):
            expected = f"a string of at most {limits.MAX_UNIT_LENGTH} Unicode characters"
            raise DataError(f"{where}: unit of {name!r} is wrong", expected=expected, got=_short(unit))
    return units


def _source(where: str, metadata: Mapping[str, str]) -> str:
    source = _json(where, metadata, "source", '""')
    if not isinstance(source, str):
        raise DataError(f"{where}: metadata 'source' is wrong", expected="a string", got=_short(source))
    return source


def _is_text(value: str) -> bool:
    """Return whether a string from JSON can be written as UTF-8: a lone surrogate cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
