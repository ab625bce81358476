"""What an update would do, decided and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.data import Pairs
from edge_cmcl.data.splits import folds
from edge_cmcl.device.encoders import NO_BLOB
from edge_cmcl.device.fitting import FOLDS
from edge_cmcl.device.model import Model
from edge_cmcl.device.text import TEXT, WIDTH
from edge_cmcl.device.universal import DEFAULT_WIDTH
from edge_cmcl.errors import DataError, UsageError

MIN_PAIRS = 16
"""Fewer pairs cannot be split into training and held-out parts that say anything."""

_MIN_FITTED = 8
"""Each part of cross-validation fits a new adapter on at least so many pairs."""

_ORDINARY = (0.05, 20.0)
_SAMPLED_ROWS = 256


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
        blocks: (n,) int64, rows that are held out together when the update is judged; None for blocks of time.
        rows: number of rows that have the anchor and at least one partner.
    """

    anchor: str
    partners: tuple[str, ...]
    records: dict[str, ModalityRecord]
    new: frozenset[str]
    ids: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    blocks: NDArray[np.int64] | None
    rows: int

    @property
    def members(self) -> tuple[str, ...]:
        """All modalities of the update, the anchor first."""
        return (self.anchor, *self.partners)


def make_plan(model: Model, pairs: Pairs, anchor: str, partners: Sequence[str] | None = None) -> Plan:
    """Decide what learning `anchor` from `pairs` involves.

    Args:
        model: the generation to continue.
        pairs: synchronised windows.
        anchor: the modality to learn; one that the generation knows is refined.
        partners: whom to align it with; by default every known modality in the data, and the labels.

    Raises:
        UsageError: the anchor is "text", or a partner is the anchor.
        DataError: the data lack a modality, do not fit it, or have too few pairs.
    """
    if anchor == TEXT:
        raise UsageError("labels are learned with a sensor", expected="--modality SENSOR", got=TEXT)
    known = set(model.modalities)
    _require(pairs, anchor)
    chosen = tuple(dict.fromkeys(partners)) if partners else _default_partners(pairs, anchor, known)
    for name in chosen:
        if name == anchor:
            raise UsageError(f"{anchor} cannot be its own partner", expected="--with ANOTHER", got=anchor)
        _require(pairs, name)
    ids = _ids(pairs, anchor, chosen)
    rows = int((ids >= 0).any(axis=0).sum())
    _check_counts(pairs, anchor, chosen, ids, rows)
    records = {
        name: model.record(name) if name in known else _new_record(model, pairs, name) for name in (anchor, *chosen)
    }
    new = frozenset({anchor, *chosen} - known)
    blocks = _blocks(pairs, ids, _fitted(anchor, chosen, new, ids))
    return Plan(anchor, chosen, records, new, ids, pairs.groups, blocks, rows)


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


def _require(pairs: Pairs, name: str) -> None:
    if name == TEXT and pairs.labels is None:
        raise DataError(f"{pairs.path} has no labels", expected="a label per window", got="none")
    if name != TEXT and name not in pairs.modalities:
        raise DataError(
            f"{pairs.path} has no windows of {name}",
            expected=name,
            got=", ".join(pairs.modalities),
            hint="record it first, or correct the modality's name",
        )


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
            raise DataError(
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


def _blocks(pairs: Pairs, ids: NDArray[np.int64], fitted: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Return what is held out together: groups, or blocks of time, where every part can fit each new adapter.

    Where they cannot, because the rarest partner occurs in one of them only, the moments with it and those without it
    are each cut into blocks of time.
    """
    paired = np.asarray((ids >= 0).any(axis=0))

    def serves(blocks: NDArray[np.int64] | None) -> bool:
        return all(
            bool(fitted[:, training].sum(axis=1).min() >= _MIN_FITTED and paired[held_out].any())
            for training, held_out in folds(pairs.n, blocks, FOLDS)
        )

    if serves(pairs.groups):
        return pairs.groups
    rarest = fitted[fitted.sum(axis=1).argmin()]
    blocks = np.zeros(pairs.n, dtype=np.int64)
    for rows in (np.flatnonzero(rarest), np.flatnonzero(~rarest)):
        blocks[rows] = np.arange(len(rows)) * FOLDS // max(len(rows), 1)
    if not serves(blocks):
        raise DataError(
            f"{pairs.path} has each partner in another part of the recording",
            expected="partners that occur throughout",
            got="no way to hold out pairs of one and still learn the other",
            hint="learn one partner after the other, each with its own --with",
        )
    return blocks


def _new_record(model: Model, pairs: Pairs, name: str) -> ModalityRecord:
    generation = model.generation
    if name == TEXT:
        return ModalityRecord(kind="text", encoder="text", width=WIDTH, adapter_blob=NO_BLOB)
    shape = pairs.shape(name)
    rate_hz = pairs.rate_hz.get(name)
    widths = [record.width for record in generation.modalities.values() if record.encoder == "universal"]
    return ModalityRecord(
        kind="frames" if len(shape) == 3 else "series",
        channels=None if len(shape) == 3 else shape[1],
        frame=(shape[1], shape[2]) if len(shape) == 3 else None,
        rate_hz=rate_hz,
        window_s=shape[0] / rate_hz if rate_hz else None,
        unit=pairs.units.get(name, ""),
        scale=_scale(pairs, name),
        encoder="universal",
        encoder_blob=generation.universal,
        width=max(widths, default=DEFAULT_WIDTH),
        adapter_blob=NO_BLOB,
    )


def _scale(pairs: Pairs, name: str) -> float:
    """Return what the encoder should see as 1: 1 where the values vary by that order already, else their own spread.

    The universal encoder's biases expect values of order of magnitude 1; a raw count of 4000 would drown them. What
    counts is how each channel varies, not its size: a pressure of 100000 Pa that varies by 100 must not vanish.
    """
    valid = pairs.valid(name)
    first = int(np.flatnonzero(valid)[0])
    rows = slice(first, first + _SAMPLED_ROWS)
    windows = pairs.read(name, rows.start, rows.stop)[valid[rows]]
    spread = float(np.sqrt(windows.var(axis=(0, 1), dtype=np.float64).mean()))
    low, high = _ORDINARY
    return 1.0 if spread == 0.0 or low <= spread <= high else float(f"{spread:.1g}")
