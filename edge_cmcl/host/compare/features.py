"""Frozen features of a stream, the same for every strategy; raw encoder outputs are cached by content.

A modality has one encoder and one set of statistics in the whole stream, as on a device: those of the step that it
first appears in (design.md section 2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.data import Pairs, file_digest, open_pairs
from edge_cmcl.device.encoders import BATCH, UniversalEncoder
from edge_cmcl.device.evaluate import thinned
from edge_cmcl.device.features import RunningStatistics, Statistics, standardise
from edge_cmcl.device.fits import check_holds
from edge_cmcl.device.plan import MIN_PAIRS, universal_record
from edge_cmcl.device.sessions import open_session
from edge_cmcl.device.text import label_features
from edge_cmcl.durable import make_folder, replacing
from edge_cmcl.errors import DataError
from edge_cmcl.host.compare.stream import StepTable, Stream
from edge_cmcl.host.graphs import universal_graph
from edge_cmcl.host.strategies import Step
from edge_cmcl.progress import Progress, silent
from edge_cmcl.project import TEXT

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Test:
    """The test part of one step.

    Attributes:
        a: (n, width) float32 unit features of the first modality.
        b: (n, width') of the second; for text (labels, width'), one row per label.
        labels: (n,) int64 row of `b` for text, None otherwise.
    """

    a: Array
    b: Array
    labels: NDArray[np.int64] | None


@dataclass(frozen=True)
class StreamData:
    """All steps of a stream, ready to learn and to judge."""

    steps: tuple[Step, ...]
    tests: tuple[Test, ...]

    def for_search(self, seed: int = 0) -> StreamData:
        """Return the stream with each test part replaced by validation pairs cut out of its training part.

        One of five folds, by group or blocks of time, as everywhere; the test parts are not touched.
        """
        halves = [_cut(step, seed) for step in self.steps]
        return StreamData(tuple(step for step, _ in halves), tuple(test for _, test in halves))


def load_data(stream: Stream, cache: Path, progress: Progress = silent) -> StreamData:
    """Check every file of `stream`, encode what the folder `cache` does not hold yet, and return all steps.

    Raises:
        DataError: a file is broken, lacks a modality or labels, has too few pairs, or shapes that differ between steps.
        StorageError: the cache cannot be written.
    """
    with _opened(stream) as files:
        records = _records(stream, files)
        for table in stream.step:
            _check_step(table, *(files[stream.path(file)] for file in table.files))
        raw = _RawFeatures(records, cache, progress)
        statistics: dict[str, Statistics] = {}
        steps, tests = [], []
        for place, table in enumerate(stream.step):
            train, test = (files[stream.path(file)] for file in table.files)
            rows = _rows(train, table.modalities)
            for name in table.modalities:
                if name not in statistics and name != TEXT:
                    statistics[name] = _statistics(raw.outputs(train, name)[np.flatnonzero(train.valid(name))])
            steps.append(_step(place, table, train, rows, raw, statistics))
            tests.append(_test(table, test, thinned(_rows(test, table.modalities)), raw, statistics))
    return StreamData(tuple(steps), tuple(tests))


@contextmanager
def _opened(stream: Stream) -> Iterator[dict[Path, Pairs]]:
    files: dict[Path, Pairs] = {}
    try:
        for table in stream.step:
            for file in table.files:
                path = stream.path(file)
                if path not in files:
                    files[path] = open_pairs(path)
        yield files
    finally:
        for pairs in files.values():
            pairs.close()


def _check_step(table: StepTable, train: Pairs, test: Pairs) -> None:
    for pairs, part, least in ((train, "training", MIN_PAIRS), (test, "test", 2)):
        n = len(_rows(pairs, table.modalities))
        if n < least:
            raise DataError(
                f"step {table.name}: {pairs.path} has too few {part} pairs of {' and '.join(table.modalities)}",
                expected=f"at least {least}",
                got=str(n),
            )
    if table.modalities[1] == TEXT:
        unknown = sorted(set(test.label_names) - set(train.label_names))
        if unknown:
            raise DataError(
                f"step {table.name}: {test.path} has labels that {train.path} does not teach",
                expected=", ".join(train.label_names),
                got=", ".join(unknown[:5]),
            )


def _rows(pairs: Pairs, modalities: tuple[str, str]) -> NDArray[np.int64]:
    """Return the rows that have both modalities."""
    present = np.ones(pairs.n, np.bool_)
    for name in modalities:
        check_holds(pairs, name)
        present &= np.asarray(pairs.labels) >= 0 if name == TEXT else pairs.valid(name)
    return np.flatnonzero(present)


def _records(stream: Stream, files: dict[Path, Pairs]) -> dict[str, ModalityRecord]:
    """Return each sensor's record, made from the training file that it first appears in, as on the device."""
    records: dict[str, ModalityRecord] = {}
    for table in stream.step:
        train, test = (files[stream.path(file)] for file in table.files)
        for name in table.modalities:
            if name == TEXT:
                continue
            check_holds(train, name)
            check_holds(test, name)
            if name not in records:
                if not train.valid(name).any():
                    raise DataError(f"{train.path} has no valid window of {name}", expected="at least one", got="none")
                records[name] = universal_record(train, name, stream.width)
            _check_shape(table, name, records[name], train, test)
    return records


def _check_shape(table: StepTable, name: str, record: ModalityRecord, *files: Pairs) -> None:
    wanted = record.frame or (record.channels,)
    for pairs in files:
        if pairs.shape(name)[1:] != wanted:
            raise DataError(
                f"step {table.name}: {name} has another shape in {pairs.path} than where the stream first has it",
                expected=str(wanted),
                got=str(pairs.shape(name)[1:]),
                hint="give it another name, or bring the recordings to the same channels",
            )


class _RawFeatures:
    """Raw outputs of the universal encoder for whole files, each file and modality encoded once."""

    def __init__(self, records: dict[str, ModalityRecord], cache: Path, progress: Progress) -> None:
        self._records = records
        self._cache = cache
        self._progress = progress
        self._digests: dict[Path, str] = {}
        make_folder(cache)

    def outputs(self, pairs: Pairs, name: str) -> Array:
        """Return raw outputs (n, width), memory-mapped; rows without the modality are zero.

        Raises:
            DataError: a window is not finite.
        """
        path = self._cache / f"{self._key(pairs, name)}.npy"
        if not path.exists():
            with replacing(path) as file:
                np.save(file, self._encode(pairs, name))
        return np.asarray(np.load(path, mmap_mode="r"))

    def _encode(self, pairs: Pairs, name: str) -> Array:
        record, valid = self._records[name], pairs.valid(name)
        encoder = UniversalEncoder(open_session(universal_graph(), "the universal encoder"), name, record)
        outputs = np.zeros((pairs.n, record.width), np.float32)
        for start in range(0, pairs.n, BATCH):
            stop = min(start + BATCH, pairs.n)
            outputs[start:stop] = encoder(pairs.read(name, start, stop)) * valid[start:stop, None]
            self._progress(f"encode {name} of {pairs.path.parent.name}/{pairs.path.name}", stop, pairs.n)
        return outputs

    def _key(self, pairs: Pairs, name: str) -> str:
        if pairs.path not in self._digests:
            self._digests[pairs.path] = file_digest(pairs.path)
        graph = hashlib.sha256(universal_graph()).hexdigest()
        text = "\n".join([self._digests[pairs.path], name, graph, self._records[name].model_dump_json()])
        return hashlib.sha256(text.encode()).hexdigest()[:40]


def _statistics(outputs: Array) -> Statistics:
    running = RunningStatistics(outputs.shape[1])
    running.update(outputs)
    return running.statistics()


def _side(name: str, pairs: Pairs, rows: NDArray[np.int64], raw: _RawFeatures, known: dict[str, Statistics]) -> Array:
    if name == TEXT:
        assert pairs.labels is not None
        return label_features(pairs.label_names)[pairs.labels[rows]]
    return standardise(raw.outputs(pairs, name)[rows], known[name])


def _step(
    place: int,
    table: StepTable,
    pairs: Pairs,
    rows: NDArray[np.int64],
    raw: _RawFeatures,
    known: dict[str, Statistics],
) -> Step:
    a, b = (torch.from_numpy(_side(name, pairs, rows, raw, known)) for name in table.modalities)
    labelled = table.modalities[1] == TEXT
    ids = np.asarray(pairs.labels)[rows] if labelled else np.arange(len(rows))
    groups = None if pairs.groups is None else pairs.groups[rows]
    time = None if pairs.time is None else pairs.time[rows]
    window_s = pairs.longest_window_s([name for name in table.modalities if name != TEXT])
    return Step(place, table.name, table.modalities, (a, b), torch.from_numpy(ids), groups, pairs.path, time, window_s)


def _test(
    table: StepTable, pairs: Pairs, rows: NDArray[np.int64], raw: _RawFeatures, known: dict[str, Statistics]
) -> Test:
    first = _side(table.modalities[0], pairs, rows, raw, known)
    if table.modalities[1] == TEXT:
        return Test(first, label_features(pairs.label_names), np.asarray(pairs.labels)[rows])
    return Test(first, _side(table.modalities[1], pairs, rows, raw, known), None)


def _cut(step: Step, seed: int) -> tuple[Step, Test]:
    splits = step.folds()
    training, held_out = splits[seed % len(splits)]
    a, b = step.features
    groups = None if step.groups is None else step.groups[training]
    time = None if step.time is None else step.time[training]
    kept = replace(step, features=(a[training], b[training]), ids=step.ids[training], groups=groups, time=time)
    if step.modalities[1] != TEXT:
        return kept, Test(a[held_out].numpy(), b[held_out].numpy(), None)
    labels, rows = np.unique(step.ids.numpy(), return_index=True)
    found = np.searchsorted(labels, step.ids[held_out].numpy())
    return kept, Test(a[held_out].numpy(), b[rows].numpy(), found)
