"""A project file that fits pairs files: which sensors they hold, of which kind, and which were recorded together."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

import numpy as np

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.data import Pairs, open_pairs
from edge_cmcl.device.fits import LABELS_HINT, check_fit
from edge_cmcl.device.plan import universal_record
from edge_cmcl.device.text import TEXT
from edge_cmcl.device.universal import DEFAULT_WIDTH
from edge_cmcl.errors import DataError, UsageError
from edge_cmcl.project import NAME_PATTERN, template

_MIN_ROWS = 16
"""Rows that hold both sides of a pair, below which `train` refuses it."""

_TRAINING = "# How the base model is trained."


def propose(files: Sequence[Path], folder: Path, name: str) -> str:
    """Return the text of a project file in `folder` that trains on `files`.

    Every sensor gets a table, every two that were recorded together a pair, and the labels, where there are at least
    two, a pair with the sensor that has most of them.

    Raises:
        UsageError: the name cannot name a project.
        DataError: a file cannot be read, two files differ in a sensor, or no two modalities occur together.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        expected = "a letter or digit, then at most 63 letters, digits and . _ -"
        raise UsageError(f"{name!r} cannot name a project", expected=expected, got=name)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_pairs(file)) for file in dict.fromkeys(files)]
        first = _first_of_each(opened)
        records = {sensor: universal_record(pairs, sensor, DEFAULT_WIDTH) for sensor, pairs in first.items()}
        for pairs in opened:
            for sensor in pairs.modalities:
                _check_alike(pairs, sensor, records[sensor], first[sensor])
        tables = [_modality(sensor, records[sensor], first[sensor]) for sensor in first]
        joined = [
            (pair, found)
            for pair in [*combinations(first, 2), *_text_pair(opened, first)]
            if (found := [pairs for pairs in opened if _rows(pairs, *pair) >= _MIN_ROWS])
        ]
        alone = set(first) - {sensor for pair, _ in joined for sensor in pair}
        if alone:
            raise DataError(
                f"{', '.join(sorted(alone))}: nothing to train with",
                expected=f"at least {_MIN_ROWS} rows with another sensor, or with at least two labels",
                got=", ".join(str(pairs.path) for pairs in opened),
                hint=f"import both sensors into one file, or {LABELS_HINT}",
            )
        pairs_of = [_pair(pair, [_relative(p.path, folder) for p in found]) for pair, found in joined]
    head = (
        "# A project of edge-cmcl, written by `edge-cmcl init --from`; `edge-cmcl init example.toml` explains every "
        f"key.\n# Paths are relative to this file.\n\nname = {_string(name)}\n"
    )
    return "\n".join([head, *tables, *pairs_of, _training()])


def _training() -> str:
    """Return the commented `[train]` table of the example."""
    text = template()
    return text[text.index(_TRAINING) :]


def _first_of_each(opened: Sequence[Pairs]) -> dict[str, Pairs]:
    """Return for each sensor the first file that has it in some row."""
    first: dict[str, Pairs] = {}
    for pairs in opened:
        for sensor in pairs.modalities:
            if pairs.valid(sensor).any():
                first.setdefault(sensor, pairs)
    return first


def _check_alike(pairs: Pairs, sensor: str, record: ModalityRecord, first: Pairs) -> None:
    check_fit(pairs, sensor, sensor, record)
    found, wanted = pairs.shape(sensor)[1:], first.shape(sensor)[1:]
    if found != wanted:
        raise DataError(f"{sensor} differs between {first.path} and {pairs.path}", expected=str(wanted), got=str(found))


def _text_pair(opened: Sequence[Pairs], sensors: Sequence[str] | dict[str, Pairs]) -> list[tuple[str, str]]:
    """Return the pair of the labels and the sensor with most of them; none where there are fewer than two labels."""
    used = {
        pairs.label_names[index]
        for pairs in opened
        if pairs.labels is not None
        for index in np.unique(pairs.labels[pairs.labels >= 0])
    }
    if len(used) < 2:
        return []
    return [(max(sensors, key=lambda sensor: sum(_rows(pairs, sensor, TEXT) for pairs in opened)), TEXT)]


def _rows(pairs: Pairs, a: str, b: str) -> int:
    """Return in how many rows both modalities are there; "text" is there where a row has a label."""
    there = np.ones(pairs.n, dtype=np.bool_)
    for name in (a, b):
        if name == TEXT:
            there &= pairs.labels >= 0 if pairs.labels is not None else False
        else:
            there &= pairs.valid(name) if name in pairs.modalities else False
    return int(there.sum())


def _modality(name: str, record: ModalityRecord, pairs: Pairs) -> str:
    shape = f"frame = {list(record.frame)}" if record.frame else f"channels = {record.channels}"
    samples = pairs.shape(name)[0]
    if record.rate_hz and record.window_s:
        window = f"rate_hz = {record.rate_hz!r}\nwindow_s = {record.window_s!r}"
    else:
        note = f"# {pairs.path.name!r} does not say its rate: correct both (their product is {samples} samples)"
        window = f"{note}\nrate_hz = {float(samples)}\nwindow_s = 1.0"
    unit = f"unit = {_string(record.unit)}\n" if record.unit else ""
    return f"[modality.{name}]\n{shape}\n{window}\n{unit}scale = {record.scale!r}\n"


def _pair(pair: tuple[str, str], files: Sequence[str]) -> str:
    listed = ", ".join(map(_string, files))
    return f"[[pair]]\nmodalities = {json.dumps(list(pair))}\ntrain = [{listed}]\n"


def _relative(file: Path, folder: Path) -> str:
    return os.path.relpath(file.resolve(), folder.resolve())


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
