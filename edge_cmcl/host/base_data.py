"""The base's training data: every project pair with its windows, rows in which both sides are there, and a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data import Pairs, open_pairs
from edge_cmcl.device.fits import LABELS_HINT, check_fit, check_holds
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import DataError
from edge_cmcl.host.carve import VALIDATION_FOLDS, Sides, carve, carve_each
from edge_cmcl.project import PairTable, Project

MIN_ROWS = 16
_MIN_SIDE = 2
"""One row of a pair can neither teach nor judge: it has nothing to be told apart from."""

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
    are groups; `seed` chooses which. It is the same for every pair that trains on those files (`carve`).

    Raises:
        ProjectError: a file is missing.
        DataError: a file does not fit the project, or a pair has too few rows.
    """
    project.check_files()
    opened: dict[Path, Pairs] = {}

    def parts_of(pair: PairTable, files: Sequence[str]) -> list[Part]:
        for path in map(project.path, files):
            if path not in opened:
                opened[path] = open_pairs(path)
        return [_part(project, pair, opened[project.path(file)]) for file in files]

    found = [(parts_of(pair, pair.train), parts_of(pair, pair.validation)) for pair in project.pair]
    for pair, (training, validation) in zip(project.pair, found, strict=True):
        _check_rows(pair, "training", training)
        if validation:
            _check_rows(pair, "validation", validation)
    carved = {pair.name: training for pair, (training, given) in zip(project.pair, found, strict=True) if not given}
    sides = _carve(carved, seed)
    return [_pair_data(pair, *parts, sides) for pair, parts in zip(project.pair, found, strict=True)]


def _carve(carved: Mapping[str, Sequence[Part]], seed: int) -> Mapping[Path, Sides]:
    """Return what is held out of each training file: the first fold from `seed` on that serves every carved pair."""
    files = {part.pairs.path: part.pairs for parts in carved.values() for part in parts}

    def lacking(sides: Mapping[Path, Sides]) -> list[str]:
        counts = {
            name: [len(_rows_of(parts, sides, side)) for side in ("training", "validation")]
            for name, parts in carved.items()
        }
        return [name for name, both in counts.items() if min(both) < _MIN_SIDE]

    for fold in range(seed, seed + VALIDATION_FOLDS):
        sides = carve(list(files.values()), fold)
        if not lacking(sides):
            return sides
    sides = {path: carve_each(pairs, _present(path, pairs.n, carved), seed) for path, pairs in files.items()}
    if lacking(sides):
        raise DataError(
            f"no rows of {', '.join(lacking(sides))} can be held out for validation",
            expected=f"at least {_MIN_SIDE} rows of every pair on either side that share no sample with the other",
            hint="name validation files for those pairs, or record longer",
        )
    return sides


def _present(path: Path, n: int, carved: Mapping[str, Sequence[Part]]) -> NDArray[np.bool_]:
    """Return which of the `n` rows of the file at `path` each carved pair uses, (pairs, n)."""
    used = [[part.rows for part in parts if part.pairs.path == path] for parts in carved.values()]
    return np.array([np.isin(np.arange(n), np.concatenate([np.zeros(0, np.int64), *rows])) for rows in used])


def _pair_data(
    pair: PairTable, training: Sequence[Part], validation: Sequence[Part], sides: Mapping[Path, Sides]
) -> PairData:
    parts = [*training, *validation]
    labels = tuple(dict.fromkeys(name for part in parts for name in part.pairs.label_names))
    n = sum(len(part.rows) for part in parts)
    ids = _label_ids(parts, labels) if pair.modalities[1] == TEXT else np.arange(n)
    train_rows = _rows_of(training, sides, "training")
    if validation:
        valid_rows = np.arange(sum(len(part.rows) for part in training), n)
    else:
        valid_rows = _rows_of(training, sides, "validation")
    return PairData(pair.modalities, tuple(parts), ids, _groups(parts), labels, train_rows, valid_rows, not validation)


def _rows_of(parts: Sequence[Part], sides: Mapping[Path, Sides], side: str) -> Rows:
    """Return which of the rows of `parts`, counted over all of them, are on `side`; all train where none is carved."""
    chosen = [
        np.isin(part.rows, getattr(sides[part.pairs.path], side))
        if part.pairs.path in sides
        else np.full(len(part.rows), side == "training")
        for part in parts
    ]
    return np.flatnonzero(np.concatenate(chosen))


def _check_rows(pair: PairTable, part: str, parts: Sequence[Part]) -> None:
    n = sum(len(each.rows) for each in parts)
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
                expected, hint = f"labels, for pair {pair.name}", f"{LABELS_HINT}, or remove that pair"
                raise DataError(f"{pairs.path} has no labels", expected=expected, got="none", hint=hint)
            rows &= pairs.labels >= 0
            continue
        table = project.modality[modality]
        check_holds(pairs, tensor)
        found, wanted = pairs.shape(tensor)[1:], table.window_shape[1:]
        if found != wanted:
            raise DataError(
                f"{pairs.path}: {tensor} has another shape than [modality.{modality}] declares",
                expected=str(wanted),
                got=str(found),
            )
        check_fit(pairs, tensor, modality, table)
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
