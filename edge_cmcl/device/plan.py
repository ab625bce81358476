"""What an update would do, decided and checked before anything is computed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord, PairRecord
from edge_cmcl.data import Pairs, file_digest
from edge_cmcl.data.splits import Rows, folds, hold_out
from edge_cmcl.device.encoders import NO_BLOB
from edge_cmcl.device.fits import check_fit, check_holds
from edge_cmcl.device.fitting import FOLDS
from edge_cmcl.device.model import Model
from edge_cmcl.device.text import TEXT, WIDTH
from edge_cmcl.device.universal import DEFAULT_WIDTH
from edge_cmcl.errors import DataError, TooLittleDataError, UsageError

MIN_PAIRS = 16
"""Fewer pairs cannot be split into training and held-out parts that say anything."""

_MIN_FITTED = 8
"""Each part of cross-validation fits a new adapter on at least so many pairs."""

RECORDINGS = "recordings"
"""In a pair's metrics: digest of each file that the pair was learned from, and the counter of the generation."""

_TASK = re.compile(r"[A-Za-z0-9._-]{0,48}")
_ORDINARY = (0.05, 20.0)
_SAMPLED_ROWS, _SAMPLED_BYTES = 256, 16 << 20


Splits = list[tuple[Rows, Rows]]
"""(training rows, held-out rows) of each part of cross-validation."""


@dataclass(frozen=True)
class Plan:
    """One update: an anchor modality and its partners.

    Attributes:
        anchor: the modality to learn.
        partners: what it is aligned with; "text" stands for the labels.
        records: per member what the generation says of it, or will say of a new one.
        new: members without an adapter.
        ids: (S, n) int64: equal ids are positives of each other, -1 a missing partner (or anchor).
        groups: (n,) int64 or None, subject or run of each row.
        splits: rows to train on and rows to hold out, each time the update is judged; no window is on both sides.
        rows: number of rows that have the anchor and at least one partner.
        task: what the recording is of; the same modalities under another task are remembered beside each other.
        recording: "sha256:HEX" of the pairs file.
        learned_before: counter of the generation that learned the anchor from this very file, None where none did.
        within: (n,) bool, the part of the recording that a stage learns from; None for all of it.
    """

    anchor: str
    partners: tuple[str, ...]
    records: dict[str, ModalityRecord]
    new: frozenset[str]
    ids: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    splits: Splits
    rows: int
    task: str = ""
    recording: str = ""
    learned_before: int | None = None
    within: NDArray[np.bool_] | None = None

    @property
    def paired(self) -> NDArray[np.bool_]:
        """Rows (n,) that have the anchor and at least one partner."""
        return np.asarray((self.ids >= 0).any(axis=0))

    @property
    def members(self) -> tuple[str, ...]:
        """All modalities of the update, the anchor first."""
        return (self.anchor, *self.partners)


def make_plan(model: Model, pairs: Pairs, anchor: str, partners: Sequence[str] | None = None, task: str = "") -> Plan:
    """Decide what learning `anchor` from `pairs` involves.

    Args:
        model: the generation to continue.
        pairs: synchronised windows.
        anchor: the modality to learn; one that the generation knows is refined.
        partners: whom to align it with; by default every known modality in the data, and the labels.
        task: see `Plan`.

    Raises:
        UsageError: the anchor is "text", a partner is the anchor, or the task's name cannot be used.
        DataError: the data lack a modality, do not fit it, or have too few pairs.
    """
    if anchor == TEXT:
        raise UsageError("labels are learned with a sensor", expected="--modality SENSOR", got=TEXT)
    if not _TASK.fullmatch(task):
        expected = "at most 48 letters, digits and . _ -"
        raise UsageError(f"{task[:60]!r} cannot name a task", expected=expected, got=repr(task[:60]))
    known = set(model.modalities)
    check_holds(pairs, anchor)
    chosen = tuple(dict.fromkeys(partners)) if partners else _default_partners(pairs, anchor, known)
    for name in chosen:
        if name == anchor:
            raise UsageError(f"{anchor} cannot be its own partner", expected="--with ANOTHER", got=anchor)
        check_holds(pairs, name)
    ids = _ids(pairs, anchor, chosen)
    rows = int((ids >= 0).any(axis=0).sum())
    _check_counts(pairs, anchor, chosen, ids, rows)
    records = {
        name: model.record(name) if name in known else _new_record(model, pairs, name) for name in (anchor, *chosen)
    }
    for name in sorted({anchor, *chosen} & known - {TEXT}):
        check_fit(pairs, name, name, records[name])
    new = frozenset({anchor, *chosen} - known)
    splits = _splits(pairs, (anchor, *chosen), ids, _fitted(anchor, chosen, new, ids))
    recording = f"sha256:{file_digest(pairs.path)}"
    before = learned_from(model.generation.pairs, anchor).get(recording)
    return Plan(anchor, chosen, records, new, ids, pairs.groups, splits, rows, task, recording, before)


def within(plan: Plan, pairs: Pairs, rows: NDArray[np.bool_]) -> Plan:
    """Return `plan` for the part `rows` (n,) of its recording.

    Raises:
        DataError: there are too few pairs in it.
    """
    rows = rows if plan.within is None else rows & plan.within
    ids = np.where(rows, plan.ids, -1)
    count = int((ids >= 0).any(axis=0).sum())
    _check_counts(pairs, plan.anchor, plan.partners, ids, count)
    splits = _splits(pairs, plan.members, ids, _fitted(plan.anchor, plan.partners, plan.new, ids))
    return replace(plan, ids=ids, splits=splits, rows=count, within=rows)


def learned_from(pairs: Sequence[PairRecord], modality: str) -> dict[str, int]:
    """Return the recordings that `modality` was learned from, by digest, and which generation did: its counter."""
    found: dict[str, int] = {}
    for pair in pairs:
        recordings = pair.metrics.get(RECORDINGS)
        if modality in pair.modalities and isinstance(recordings, dict):
            for name, counter in recordings.items():
                if isinstance(counter, int):
                    found[name] = max(counter, found.get(name, 0))
    return found


def _default_partners(pairs: Pairs, anchor: str, known: set[str]) -> tuple[str, ...]:
    sensors = tuple(name for name in pairs.modalities if name in known and name != anchor)
    labelled = pairs.labels is not None and bool((pairs.labels >= 0).any())
    partners = sensors + ((TEXT,) if labelled else ())
    if not partners:
        raise DataError(
            f"{pairs.path} has nothing to align {anchor} with",
            expected=f"windows of a known modality ({', '.join(sorted(known))}) beside {anchor}, or labels",
            got=", ".join(pairs.modalities),
            hint="record both sensors together, or name a new partner with --with",
        )
    return partners


def _ids(pairs: Pairs, anchor: str, partners: Sequence[str]) -> NDArray[np.int64]:
    present = pairs.valid(anchor)
    ids = np.empty((len(partners), pairs.n), dtype=np.int64)
    for row, name in enumerate(partners):
        if name == TEXT and pairs.labels is not None:
            ids[row] = np.where(present, pairs.labels, -1)
        else:
            ids[row] = np.where(present & pairs.valid(name), np.arange(pairs.n), -1)
    return ids


def _check_counts(pairs: Pairs, anchor: str, partners: Sequence[str], ids: NDArray[np.int64], rows: int) -> None:
    for row, name in enumerate(partners):
        count = int((ids[row] >= 0).sum())
        if count < MIN_PAIRS:
            raise TooLittleDataError(
                f"{pairs.path} has too few pairs of {anchor} and {name}",
                expected=f"at least {MIN_PAIRS}",
                got=f"{count} of {pairs.n} rows have both",
                hint="record longer, or leave that partner out with --with",
            )
        if name == TEXT and len(np.unique(ids[row][ids[row] >= 0])) < 2:
            raise DataError(
                f"{pairs.path} has one label only",
                expected="windows of at least two labels, or --with SENSOR to leave the labels out",
                got=pairs.label_names[int(ids[row].max())],
            )


def _fitted(anchor: str, partners: Sequence[str], new: frozenset[str], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the rows that each closed-form start is fitted on, (starts, n); see `fitting.start`."""
    present = ids >= 0
    is_new = np.array([name in new for name in partners])
    masks = list(present[is_new])
    if anchor in new:
        masks.append(present[~is_new].any(axis=0) if not is_new.all() else present[0])
    return np.array(masks or [present.any(axis=0)])


def _splits(pairs: Pairs, members: Sequence[str], ids: NDArray[np.int64], fitted: NDArray[np.bool_]) -> Splits:
    """Return what is held out: groups, or blocks of time, where every part can fit each new adapter.

    Where they cannot, because the rarest partner occurs in one of them only, the moments with it and those without it
    are each cut into blocks of time.
    """
    paired = np.asarray((ids >= 0).any(axis=0))
    time, window_s = pairs.time, pairs.longest_window_s(members)

    def serves(splits: Splits) -> bool:
        return all(
            bool(fitted[:, training].sum(axis=1).min() >= _MIN_FITTED and paired[held_out].any())
            for training, held_out in splits
        )

    splits = folds(pairs.n, pairs.groups, FOLDS, time=time, window_s=window_s)
    if serves(splits):
        return splits
    rarest = fitted[fitted.sum(axis=1).argmin()]
    parts = np.zeros(pairs.n, dtype=np.int64)
    for rows in (np.flatnonzero(rarest), np.flatnonzero(~rarest)):
        parts[rows] = np.arange(len(rows)) * FOLDS // max(len(rows), 1)
    splits = hold_out(parts, time=time, window_s=window_s)
    if serves(splits):
        return splits
    if serves(hold_out(parts, guard=0)):
        raise TooLittleDataError(
            f"{pairs.path} is too short to judge what is learned from it",
            expected=f"at least {_MIN_FITTED} pairs that share no sample with those held out",
            got=f"{int(paired.sum())} windows that overlap",
            hint="record longer, or make windows that overlap less",
        )
    raise DataError(
        f"{pairs.path} has each partner in another part of the recording",
        expected="partners that occur throughout",
        got="no way to hold out pairs of one and still learn the other",
        hint="learn one partner after the other, each with its own --with",
    )


def _new_record(model: Model, pairs: Pairs, name: str) -> ModalityRecord:
    if name == TEXT:
        return ModalityRecord(kind="text", encoder="text", width=WIDTH, adapter_blob=NO_BLOB)
    generation = model.generation
    widths = [record.width for record in generation.modalities.values() if record.encoder == "universal"]
    return universal_record(pairs, name, max(widths, default=DEFAULT_WIDTH), generation.universal)


def universal_record(pairs: Pairs, name: str, width: int, encoder_blob: str = NO_BLOB) -> ModalityRecord:
    """Return what a generation says of a sensor that it first meets in `pairs`, and gives the universal encoder."""
    shape = pairs.shape(name)
    rate_hz = pairs.rate_hz.get(name)
    return ModalityRecord(
        kind="frames" if len(shape) == 3 else "series",
        channels=None if len(shape) == 3 else shape[1],
        frame=(shape[1], shape[2]) if len(shape) == 3 else None,
        rate_hz=rate_hz,
        window_s=shape[0] / rate_hz if rate_hz else None,
        unit=pairs.units.get(name, ""),
        scale=_scale(pairs, name),
        encoder="universal",
        encoder_blob=encoder_blob,
        width=width,
        adapter_blob=NO_BLOB,
    )


def _scale(pairs: Pairs, name: str) -> float:
    """Return what the encoder should see as 1: 1 where the values vary by that order already, else their own spread.

    The universal encoder's biases expect values of order of magnitude 1; a raw count of 4000 would drown them. What
    counts is how each channel varies, not its size: a pressure of 100000 Pa that varies by 100 must not vanish.
    """
    valid = pairs.valid(name)
    first = int(np.flatnonzero(valid)[0])
    count = max(1, min(_SAMPLED_ROWS, _SAMPLED_BYTES // (4 * math.prod(pairs.shape(name)))))
    rows = slice(first, first + count)
    windows = pairs.read(name, rows.start, rows.stop)[valid[rows]]
    mean = windows.mean(axis=(0, 1), dtype=np.float64)
    # Window by window: all of them in double precision would take several times the memory of the sample.
    squares = sum(np.square(window - mean).sum(axis=0) for window in windows)
    spread = float(np.sqrt(np.mean(squares / (len(windows) * windows.shape[1]))))
    low, high = _ORDINARY
    return 1.0 if spread == 0.0 or low <= spread <= high else float(f"{spread:.1g}")
