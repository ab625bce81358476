"""The base's training data: every project pair with its windows, rows in which both sides are there, and a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data import Pairs, open_pairs
from edge_cmcl.data.splits import folds
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import DataError
from edge_cmcl.project import PairTable, Project

VALIDATION_FOLDS = 5
MIN_ROWS = 16

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """The usable rows of one pairs file for one project pair.

    Attributes:
        pairs: the opened file.
        tensors: names of both tensors in it.
        rows: rows in which both sides are there.
    """

    pairs: Pairs
    tensors: tuple[str, str]
    rows: Rows


@dataclass(frozen=True)
class PairData:
    """One project pair.

    Attributes:
        modalities: names of both modalities; the second may be "text".
        parts: its files, those of validation last.
        ids: (n,) int64 over all parts: equal ids are positives of each other (labels for text).
        groups: (n,) int64 or None.
        labels: label names that the ids of a text pair point to.
        training: rows to train on.
        validation: rows to validate on.
        carved: whether validation was cut out of the training files.
    """

    modalities: tuple[str, str]
    parts: tuple[Part, ...]
    ids: Rows
    groups: Rows | None
    labels: tuple[str, ...]
    training: Rows
    validation: Rows
    carved: bool

    @property
    def name(self) -> str:
        """ "a-b", as tables show it."""
        return "-".join(self.modalities)


def load_pairs(project: Project, seed: int) -> list[PairData]:
    """Open every pairs file of `project` and check it against the project.

    Where a pair names no validation files, one of five folds is cut out of its training files, by group where there
    are groups; `seed` chooses which.

    Raises:
        ProjectError: a file is missing.
        DataError: a file does not fit the project, or a pair has too few rows.
    """
    project.check_files()
    opened: dict[Path, Pairs] = {}
    return [_load_pair(project, pair, seed, opened) for pair in project.pair]


def _load_pair(project: Project, pair: PairTable, seed: int, opened: dict[Path, Pairs]) -> PairData:
    def parts_of(files: Sequence[str]) -> list[Part]:
        parts = []
        for path in map(project.path, files):
            if path not in opened:
                opened[path] = open_pairs(path)
            parts.append(_part(project, pair, opened[path]))
        return parts

    training, validation = parts_of(pair.train), parts_of(pair.validation)
    parts = training + validation
    labels = tuple(dict.fromkeys(name for part in parts for name in part.pairs.label_names))
    n_training = sum(len(part.rows) for part in training)
    n = sum(len(part.rows) for part in parts)
    _check_rows(pair, "training", n_training)
    if validation:
        _check_rows(pair, "validation", n - n_training)
    ids = _label_ids(parts, labels) if pair.modalities[1] == TEXT else np.arange(n)
    groups = _groups(parts)
    train_rows, valid_rows = np.arange(n_training), np.arange(n_training, n)
    if not validation:
        split = folds(n_training, groups, VALIDATION_FOLDS)
        train_rows, valid_rows = split[seed % len(split)]
    return PairData(pair.modalities, tuple(parts), ids, groups, labels, train_rows, valid_rows, not validation)


def _check_rows(pair: PairTable, part: str, n: int) -> None:
    if n < MIN_ROWS:
        raise DataError(
            f"the {part} files of pair {pair.name} have too few rows with both sides",
            expected=f"at least {MIN_ROWS}",
            got=str(n),
        )


def _part(project: Project, pair: PairTable, pairs: Pairs) -> Part:
    rows = np.ones(pairs.n, dtype=np.bool_)
    for modality, tensor in zip(pair.modalities, pair.tensor_names, strict=True):
        if modality == TEXT:
            if pairs.labels is None:
                raise DataError(f"{pairs.path} has no labels", expected=f"labels, for pair {pair.name}", got="none")
            rows &= pairs.labels >= 0
            continue
        table = project.modality[modality]
        found, wanted = pairs.shape(tensor)[1:], table.window_shape[1:]
        if found != wanted:
            raise DataError(
                f"{pairs.path}: {tensor} has another shape than [modality.{modality}] declares",
                expected=str(wanted),
                got=str(found),
            )
        rows &= pairs.valid(tensor)
    return Part(pairs, pair.tensor_names, np.flatnonzero(rows))


def _label_ids(parts: Sequence[Part], labels: tuple[str, ...]) -> Rows:
    place = {name: index for index, name in enumerate(labels)}
    ids = []
    for part in parts:
        own = np.array([place[name] for name in part.pairs.label_names])
        ids.append(own[np.asarray(part.pairs.labels)[part.rows]])
    return np.concatenate(ids).astype(np.int64)


def _groups(parts: Sequence[Part]) -> Rows | None:
    """Return the groups of all rows; the same number in two files is the same group. None where a file has none."""
    found = [part.pairs.groups for part in parts]
    known = [groups[part.rows] for groups, part in zip(found, parts, strict=True) if groups is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
