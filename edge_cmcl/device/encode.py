"""The update's first pass: every window goes through its encoder once, into a cache on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data import Pairs
from edge_cmcl.device.encoders import Encoder
from edge_cmcl.device.features import RunningStatistics, Statistics, standardise
from edge_cmcl.durable import storage_errors
from edge_cmcl.errors import DataError, DeadSensorError
from edge_cmcl.progress import Progress, silent

_ROUNDING = 1e-6
"""Equal windows may differ by so much, relative, in what single precision makes of them."""

ENCODED_AT_ONCE = 16
"""Windows that an encoder takes at once. Measured: 4 to 64 take equally long, and more take more memory."""

CHUNK = 256
"""Rows that are standardised and multiplied at once; bounds memory whatever the number of windows."""


def cache_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a new float32 array of `shape` on disk at `path`, memory-mapped.

    Raises:
        StorageError: there is no room for it.
    """
    if 0 in shape:
        return np.zeros(shape, np.float32)
    with storage_errors(path):
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        # A sparse file that cannot be filled later would end the process with SIGBUS: take the room now.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


@dataclass(frozen=True)
class EncodedModality:
    """Raw encoder outputs of one modality, in the order of the recording.

    Attributes:
        raw: (n, width) float32 on disk; rows without the modality are zero.
        valid: (n,) bool.
        statistics: of the valid rows.
        paired: (n,) bool, rows that the update learns from, with the anchor and a partner; None for all.
    """

    raw: NDArray[np.float32]
    valid: NDArray[np.bool_]
    statistics: Statistics
    paired: NDArray[np.bool_] | None = None

    @property
    def learned(self) -> NDArray[np.bool_]:
        """Rows (n,) of the modality that the update learns from, and so has to remember."""
        return self.valid if self.paired is None else self.valid & self.paired

    def features(self, statistics: Statistics) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield (rows, unit features (rows, width)) chunk by chunk; rows without the modality are zero."""
        for start in range(0, len(self.raw), CHUNK):
            rows = slice(start, min(start + CHUNK, len(self.raw)))
            features = standardise(np.asarray(self.raw[rows]), statistics)
            features[~self.valid[rows]] = 0.0
            yield rows, features


class OutputCache:
    """Raw encoder outputs on disk; a row is encoded when it is first needed, and never again.

    Args:
        folder: where they go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]] = {}

    def outputs(
        self, pairs: Pairs, modality: str, encoder: Encoder, rows: NDArray[np.bool_], progress: Progress
    ) -> NDArray[np.float32]:
        """Return the outputs (n, width) float32 of `modality`, those of `rows` (n,) filled in.

        Raises:
            DataError: a window does not fit the modality, or an output is not finite.
            StorageError: there is no room for the cache.
        """
        if modality not in self._known:
            array = cache_array(self._folder / f"{modality}.raw.npy", (pairs.n, encoder.width))
            self._known[modality] = array, np.zeros(pairs.n, np.bool_)
        array, done = self._known[modality]
        for start in range(0, pairs.n, ENCODED_AT_ONCE):
            stop = min(start + ENCODED_AT_ONCE, pairs.n)
            wanted = (rows & ~done)[start:stop]
            if wanted.any():
                outputs = encoder(pairs.read(modality, start, stop)[wanted])
                _check_finite(pairs, modality, outputs, start, stop)
                array[start:stop][wanted] = outputs
            progress(f"encode {modality}", stop, pairs.n)
        done |= rows
        return array


def encode(
    pairs: Pairs,
    modality: str,
    encoder: Encoder,
    cache: OutputCache,
    progress: Progress = silent,
    paired: NDArray[np.bool_] | None = None,
    within: NDArray[np.bool_] | None = None,
) -> EncodedModality:
    """Encode every window of `modality` in `pairs` that `cache` does not have yet.

    Args:
        pairs: the recording.
        modality: the sensor.
        encoder: its encoder.
        cache: for the outputs.
        progress: told each batch.
        paired: see `EncodedModality`.
        within: (n,) bool, rows to encode; None for all.

    Raises:
        DataError: a window does not fit the modality or is not finite, no row has the modality, or it never changes.
        StorageError: there is no room for the cache.
    """
    valid = pairs.valid(modality)
    if within is not None:
        valid &= within
    if not valid.any():
        raise DataError(f"{pairs.path} has no valid window of {modality}", expected="at least one", got="none")
    raw = cache.outputs(pairs, modality, encoder, valid, progress)
    running = RunningStatistics(encoder.width)
    lowest, highest = np.full(encoder.width, np.inf), np.full(encoder.width, -np.inf)
    for start in range(0, pairs.n, CHUNK):
        there = raw[start : start + CHUNK][valid[start : start + CHUNK]]
        running.update(there)
        lowest = np.minimum(lowest, there.min(axis=0, initial=np.inf))
        highest = np.maximum(highest, there.max(axis=0, initial=-np.inf))
    _check_alive(pairs, modality, lowest, highest)
    return EncodedModality(raw, valid, running.statistics(), paired)


def _check_finite(pairs: Pairs, modality: str, outputs: NDArray[np.float32], start: int, stop: int) -> None:
    if not np.isfinite(outputs).all():
        raise DataError(
            f"the encoder of {modality} gives NaN or infinity for windows {start} to {stop - 1} of {pairs.path}",
            expected="finite outputs",
            hint="check the values' unit and scale: they should be of order of magnitude 1",
        )


def _check_alive(pairs: Pairs, modality: str, lowest: NDArray[np.float64], highest: NDArray[np.float64]) -> None:
    """Refuse a dead sensor: where no output of the encoder varies, there is nothing to align."""
    size = np.maximum(np.abs(lowest), np.abs(highest))
    if (highest - lowest <= _ROUNDING * size).all():
        raise DeadSensorError(
            f"{modality} never changes in {pairs.path}",
            expected="windows that vary",
            got="a constant: every window gives the same features",
            hint=f"check that {modality} is connected and records, or leave it out with --with",
        )
