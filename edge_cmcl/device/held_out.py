"""Pairs of each recording that are kept back: never trained on, and judged again whenever a model is to be trusted.

What is kept is the raw output of the frozen encoders, not windows: a model that comes later may have other adapters and
statistics, but has the same encoders. It stays in the store's own folder, is part of no generation, and leaves the
device only where its user shares it (`sync --share-heldout`). FORMAT.md, "Held-out pairs".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl import tensors
from edge_cmcl.bundle import Layout, ModalityRecord, State
from edge_cmcl.bundle.store_files import HELD_OUT_FOLDER
from edge_cmcl.data import Pairs
from edge_cmcl.data.splits import evenly, training_rows
from edge_cmcl.device.encode import OutputCache
from edge_cmcl.device.model import Model
from edge_cmcl.device.plan import Plan, within
from edge_cmcl.device.text import TEXT
from edge_cmcl.durable import make_folder, storage_errors, sync_folder, write_bytes
from edge_cmcl.errors import DataError, EdgeCmclWarning
from edge_cmcl.limits import HELD_BACK
from edge_cmcl.progress import silent

FORMAT, VERSION = "edge-cmcl/held-out", "1"

MIN_PAIRS, MAX_PAIRS = 20, 200
"""Fewer judge nothing, so they are learned from instead; more only narrow an interval."""

_ORIGIN = re.compile(r"[!-~]{1,128}")

BLOCKS = 10
"""Parts of a recording that the pairs kept back come from, so that they are of all of it."""


class HeldOutWarning(EdgeCmclWarning):
    """Pairs could not be kept back, or what was kept cannot be read."""


@dataclass(frozen=True)
class HeldOut:
    """Pairs that were kept back from one learned step.

    Attributes:
        origin: id of the step's origin.
        members: its modalities, "text" for the labels.
        raw: per sensor (n, width) float32 encoder outputs, before statistics.
        valid: per sensor (n,) bool, rows that have it.
        labels: (n,) int64 into `label_names`, -1 for none; None where labels are no member.
        label_names: names of all labels of the recording.
        encoders: per sensor what its encoder was (`encoder_of`).
    """

    origin: str
    members: tuple[str, ...]
    raw: Mapping[str, NDArray[np.float32]]
    valid: Mapping[str, NDArray[np.bool_]]
    labels: NDArray[np.int64] | None
    label_names: tuple[str, ...]
    encoders: Mapping[str, str]

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(next(iter(self.valid.values())))

    def first(self, count: int) -> HeldOut:
        """Return at most `count` rows of it, evenly spaced."""
        rows = evenly(self.n, count)
        return HeldOut(
            origin=self.origin,
            members=self.members,
            raw={name: raw[rows] for name, raw in self.raw.items()},
            valid={name: valid[rows] for name, valid in self.valid.items()},
            labels=None if self.labels is None else self.labels[rows],
            label_names=self.label_names,
            encoders=self.encoders,
        )


def usual_share(state: State) -> float:
    """Return the share of pairs that a device keeps back unless told otherwise: none where nobody asks it to judge."""
    return HELD_BACK if state.sync.remote else 0.0


def keep_back(plan: Plan, pairs: Pairs, share: float) -> tuple[Plan, NDArray[np.bool_]]:
    """Return `plan` without the rows that are kept back, and those rows (n,).

    They come from the middle of each tenth of the recording; windows that overlap one are not learned from either.
    Nothing is kept back where that would be fewer than `MIN_PAIRS`, or would leave too little to learn from.

    Args:
        plan: for the whole recording.
        pairs: the recording.
        share: of its pairs to keep back, 0 for none.
    """
    paired = np.flatnonzero(plan.paired)
    held, none = np.zeros(pairs.n, np.bool_), np.zeros(pairs.n, np.bool_)
    count = min(int(len(paired) * share), MAX_PAIRS)
    if count < MIN_PAIRS:
        return plan, none
    size = count // BLOCKS
    for block in np.array_split(paired, BLOCKS):
        start = (len(block) - size) // 2
        held[block[start : start + size]] = True
    learned = np.zeros(pairs.n, np.bool_)
    try:
        learned[training_rows(held, time=pairs.time, window_s=pairs.longest_window_s(plan.members))] = True
        return within(plan, pairs, learned), held
    except DataError:
        return plan, none


def collected(
    model: Model, pairs: Pairs, plan: Plan, rows: NDArray[np.bool_], origin: str, cache: OutputCache
) -> HeldOut:
    """Return the pairs in `rows` (n,), encoded.

    Args:
        model: whose encoders are used.
        pairs: the recording.
        plan: for the whole recording.
        rows: those that were kept back.
        origin: id of the step's origin.
        cache: for the encoder outputs.

    Raises:
        DataError, StorageError: as `OutputCache.outputs`.
    """
    sensors = [name for name in plan.members if name != TEXT]
    raw, valid = {}, {}
    for name in sensors:
        there = rows & pairs.valid(name)
        encoder = model.make_encoder(name, plan.records[name])
        raw[name] = np.array(cache.outputs(pairs, name, encoder, there, silent)[rows])
        valid[name] = there[rows]
    return HeldOut(
        origin=origin,
        members=plan.members,
        raw=raw,
        valid=valid,
        labels=pairs.labels[rows] if TEXT in plan.members and pairs.labels is not None else None,
        label_names=tuple(pairs.label_names) if TEXT in plan.members else (),
        encoders={name: encoder_of(plan.records[name]) for name in sensors},
    )


def encoder_of(record: ModalityRecord) -> str:
    """Return what makes two encoders give equal outputs for equal windows."""
    return f"{record.encoder_blob} {record.width} {record.scale!r}"


def save(store: Layout, held: HeldOut) -> None:
    """Write `held` in place of what was kept back from an earlier recording of the same step.

    Raises:
        StorageError: the file system refused.
    """
    folder = store.root / HELD_OUT_FOLDER
    make_folder(folder)
    write_bytes(folder / _name(held.origin), packed(held))


def saved(store: Layout) -> dict[str, Path]:
    """Return the files of pairs kept back, by name."""
    return {path.name: path for path in sorted((store.root / HELD_OUT_FOLDER).glob("*.safetensors"))}


def read(path: Path) -> HeldOut:
    """Read what `save` wrote.

    Raises:
        DataError: the file is damaged, or of another kind or version.
    """
    with tensors.TensorFile(path) as file:
        found = {key: file.metadata.get(key, "") for key in ("format", "version")}
        if found != {"format": FORMAT, "version": VERSION}:
            expected = f"{FORMAT} {VERSION}"
            raise DataError(
                f"{path} holds no held-out pairs", expected=expected, got=" ".join(found.values()) or "none"
            )
        try:
            return _unpacked(file)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged", expected="held-out pairs", got=str(error)[:200]) from error


def remove(store: Layout, origin: str) -> None:
    """Remove what was kept back of one step: all of its recording is learned from now.

    Raises:
        StorageError: the file system refused.
    """
    with storage_errors(store.root):
        (store.root / HELD_OUT_FOLDER / _name(origin)).unlink(missing_ok=True)


def drop(store: Layout, origins: Iterable[str]) -> None:
    """Remove what was kept back from steps other than `origins`: those that no generation here knows any more.

    Raises:
        StorageError: the file system refused.
    """
    kept = {_name(origin) for origin in origins}
    gone = [path for name, path in saved(store).items() if name not in kept]
    with storage_errors(store.root):
        for path in gone:
            path.unlink(missing_ok=True)
        if gone:
            sync_folder(store.root / HELD_OUT_FOLDER)


def _name(origin: str) -> str:
    return f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.safetensors"


def packed(held: HeldOut) -> bytes:
    """Return the bytes of the file that `read` reads."""
    arrays: dict[str, NDArray[Any]] = {f"raw.{name}": raw for name, raw in held.raw.items()}
    arrays |= {f"valid.{name}": valid.astype(np.uint8) for name, valid in held.valid.items()}
    if held.labels is not None:
        arrays["label"] = held.labels
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "origin": held.origin,
        "members": json.dumps(held.members),
        "labels": json.dumps(held.label_names),
        "encoders": json.dumps(dict(held.encoders)),
    }
    return tensors.to_bytes(arrays, metadata)


def _unpacked(file: tensors.TensorFile) -> HeldOut:
    members = tuple(str(name) for name in json.loads(file.metadata["members"]))
    sensors = [name for name in members if name != TEXT]
    raw = {name: _array(file, f"raw.{name}", "F32", 2) for name in sensors}
    valid = {name: _array(file, f"valid.{name}", "U8", 1) != 0 for name in sensors}
    labels = _array(file, "label", "I64", 1) if TEXT in members else None
    names = tuple(str(name) for name in json.loads(file.metadata["labels"]))
    lengths = {len(array) for array in (*raw.values(), *valid.values())} | (
        {len(labels)} if labels is not None else set()
    )
    if len(lengths) != 1 or len(sensors) == 0:
        raise ValueError(f"arrays of {sorted(lengths)} rows")
    if labels is not None and not ((labels >= -1) & (labels < len(names))).all():
        raise ValueError("a label without a name")
    if not all(np.isfinite(array).all() for array in raw.values()):
        raise ValueError("NaN or infinity")
    if not _ORIGIN.fullmatch(file.metadata["origin"]):
        raise ValueError("the origin's id")
    encoders = {name: str(json.loads(file.metadata["encoders"])[name]) for name in sensors}
    return HeldOut(file.metadata["origin"], members, raw, valid, labels, names, encoders)


def _array(file: tensors.TensorFile, name: str, dtype: str, rank: int) -> NDArray[Any]:
    if name not in file.names:
        raise KeyError(name)
    shape = file.shape(name)
    if file.dtype(name) != dtype or len(shape) != rank or shape[0] > MAX_PAIRS:
        raise ValueError(f"{name} is {file.dtype(name)} {shape}")
    return file.read(name)
