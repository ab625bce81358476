"""The micro model in NumPy: what C computes, bit by bit, in float32 and in integers (BLOB.md, "Arithmetic").

Sums are done in the order of the C code, since float32 addition is not associative; integers are exact anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.blob import (
    FLOAT32,
    INPUT_SHIFTS,
    INT8,
    LENGTH,
    MAX_SHIFT,
    MAX_WEIGHT_SUM,
    STATISTICS,
    MicroModel,
)

CLIP = np.float32(8.0)
ONE_SCORE = 2048
"""An int8 model's score of one standard deviation."""
ONE_SHARE = 256
"""By which an int8 model multiplies its count of positive outputs, so that the mean keeps its fraction."""
FULL = 32767
"""The number 1 in an int8 model's embedding."""

_REACH = 24
"""Samples that the widest kernel sees on either side."""
_BLOCK = 4
"""Outputs that C computes at once."""
_MAX_SAMPLE = np.float32(32767.0)

Array = NDArray[np.float32]
Integers = NDArray[np.int64]


def float_model(
    modality: str,
    generation: bytes,
    samples: int,
    scale: float,
    weights: Array,
    biases: Array,
    dilations: Sequence[int],
    mean: Array,
    std: Array,
    head: Array,
    label_names: Sequence[str],
    labels: Array,
) -> MicroModel:
    """Return a float32 micro model of dense kernels.

    Args:
        modality: the sensor.
        generation: 32 bytes, SHA-256 of its manifest.
        samples: T.
        scale: the encoder sees value / scale.
        weights: (K, C, 7); channels that are all zero in a kernel are left out.
        biases: (K,).
        dilations: K of them.
        mean: (3 K,), kernel by kernel: share, maximum, mean absolute output.
        std: (3 K,), positive.
        head: (d, 3 K).
        label_names: L of them.
        labels: (L, d) unit embeddings.
    """
    seen = np.abs(weights).max(axis=2) > 0
    seen[~seen.any(axis=1), 0] = True  # a silenced kernel keeps one channel
    kernel, channel = np.nonzero(seen)
    return MicroModel(
        precision=FLOAT32,
        modality=modality,
        generation=generation,
        channels=weights.shape[1],
        samples=samples,
        scale=float(np.float32(scale)),
        input_shift=0,
        dilations=np.asarray(dilations, np.uint8),
        counts=seen.sum(axis=1).astype(np.uint16),
        taps=channel.astype(np.uint16),
        weights=weights[kernel, channel].astype(np.float32),
        biases=biases.astype(np.float32),
        means=mean.astype(np.float32),
        factors=(np.float32(1.0) / std).astype(np.float32),
        shifts=None,
        head=head.astype(np.float32),
        row_factors=None,
        label_step=1.0 if label_names else 0.0,
        label_names=tuple(label_names),
        labels=labels.astype(np.float32).reshape(len(label_names), len(head)),
    )


def quantised(model: MicroModel, largest: float) -> MicroModel:
    """Return the int8 form of a float32 model.

    Args:
        model: float32.
        largest: of the values that the encoder sees, normally; what is beyond the next power of two saturates.
    """
    shift = int(np.clip(15 - math.ceil(math.log2(largest)), *INPUT_SHIFTS)) if largest > 0 else INPUT_SHIFTS[1]
    starts = np.cumsum(model.counts.astype(np.int64)) - model.counts
    sums = np.add.reduceat(np.abs(model.weights, dtype=np.float64).sum(axis=1), starts)
    room = MAX_WEIGHT_SUM - LENGTH * model.counts / 2.0  # rounding adds up to a half per weight
    gain = np.where(sums > 0, room / np.where(sums > 0, sums, 1.0), 1.0)
    step = 1.0 / (gain * 2.0**shift)  # of an output
    length = model.samples
    unit = np.stack([np.full_like(step, 1.0 / (ONE_SHARE * length)), step, step * 2 ** _halvings(length) / length], 1)
    unit = unit.reshape(-1)
    factors, shifts = _fractions(unit * model.factors.astype(np.float64) * ONE_SCORE)
    rows = np.abs(model.head).max(axis=1).astype(np.float64)
    largest_label = float(np.abs(model.labels).max(initial=0.0))
    label_step = largest_label / 127.0
    return replace(
        model,
        precision=INT8,
        input_shift=shift,
        weights=np.rint(model.weights * np.repeat(gain, model.counts)[:, None]).astype(np.int16),
        biases=np.rint(model.biases / step).astype(np.int32),
        means=np.clip(np.rint(model.means / unit), -(2**31), 2**31 - 1).astype(np.int32),
        factors=factors,
        shifts=shifts,
        head=np.rint(model.head * (127.0 / np.where(rows > 0, rows, 1.0))[:, None]).astype(np.int8),
        row_factors=np.rint(65535.0 * rows / max(rows.max(), np.finfo(np.float64).tiny)).astype(np.uint16),
        label_step=float(np.float32(label_step / FULL)),
        labels=np.rint(model.labels / (label_step or 1.0)).astype(np.int8),
    )


def quantise(model: MicroModel, values: NDArray[np.floating]) -> NDArray[np.int16]:
    """Return samples as an int8 model takes them, int16, from `values` in the recorded unit, float32."""
    with np.errstate(over="ignore"):  # infinity saturates as any large value does
        scaled = values.astype(np.float32) / np.float32(model.scale) * np.float32(2.0**model.input_shift)
    clipped = np.where(np.isnan(scaled), np.float32(0), np.clip(scaled, -_MAX_SAMPLE, _MAX_SAMPLE))
    return np.asarray(np.trunc(clipped + np.copysign(np.float32(0.5), clipped)), dtype=np.int16)


def embed(model: MicroModel, windows: Array) -> NDArray[Any]:
    """Return embeddings of `windows` (n, T, C) float32 in the recorded unit: (n, d) float32 or, for int8, int16."""
    if model.precision == INT8:
        return embed_samples(model, quantise(model, windows))
    return _float_head(model, _float_scores(model, features(model, windows / np.float32(model.scale))))


def embed_samples(model: MicroModel, samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return an int8 model's embeddings (n, d) int16 of quantised windows (n, T, C)."""
    return _integer_head(model, _integer_scores(model, features(model, samples)))


def embed_outputs(model: MicroModel, source: MicroModel, outputs: Array) -> NDArray[Any]:
    """Return embeddings as `embed`, of raw outputs (n, w) float32 of the full model's kernels, kernel by kernel.

    For windows that nobody kept. Of an int8 model it leaves out what quantising samples and kernels does.

    Args:
        model: either precision.
        source: the float32 model that it is, or was made from.
        outputs: kernel by kernel share, maximum and mean absolute output.
    """
    scores = _float_scores(source, outputs)
    if model.precision == FLOAT32:
        return _float_head(model, scores)
    return _integer_head(model, np.rint(scores * np.float32(ONE_SCORE)).astype(np.int64))


def unit(embeddings: NDArray[Any]) -> Array:
    """Return embeddings of either precision as float32, of length 1 but for rounding."""
    scale = np.float32(1.0 / FULL) if embeddings.dtype == np.int16 else np.float32(1.0)
    return np.asarray(embeddings * scale, dtype=np.float32)


def nearest(model: MicroModel, embeddings: NDArray[Any]) -> tuple[NDArray[np.int64], Array]:
    """Return the nearest label (n,) of `embeddings` (n, d), as `embed` gives them, and its cosine (n,) float32."""
    if model.precision == INT8:
        sums = embeddings.astype(np.int64) @ model.labels.T.astype(np.int64)
        best = sums.argmax(axis=1)
        largest = np.take_along_axis(sums, best[:, None], axis=1)[:, 0]
        return best, largest.astype(np.float32) * np.float32(model.label_step)
    similarity = np.zeros((len(embeddings), len(model.labels)), np.float32)
    for place in range(model.dimensions):
        similarity += embeddings[:, place, None] * model.labels[None, :, place]
    best = similarity.argmax(axis=1)
    return best, np.take_along_axis(similarity, best[:, None], axis=1)[:, 0]


def features(model: MicroModel, samples: NDArray[Any]) -> NDArray[Any]:
    """Return raw features (n, w), kernel by kernel: share, maximum, mean absolute output.

    Args:
        model: either precision.
        samples: (n, T, C), float32 in the encoder's unit, or int16 as `quantise` gives them.
    """
    whole = model.precision == INT8
    padded = np.pad(samples, ((0, 0), (_REACH, _REACH), (0, 0))).astype(np.int64 if whole else np.float32)
    length = samples.shape[1]
    found: NDArray[Any] = np.empty((len(samples), STATISTICS * len(model.counts)), padded.dtype)
    tap = 0
    for kernel, (dilation, count) in enumerate(zip(model.dilations.tolist(), model.counts.tolist(), strict=True)):
        outputs = np.full((len(samples), length), model.biases[kernel], padded.dtype)
        for at in range(tap, tap + count):
            for place in range(LENGTH):
                start = _REACH + (place - LENGTH // 2) * dilation
                outputs += model.weights[at, place] * padded[:, start : start + length, model.taps[at]]
        tap += count
        found[:, STATISTICS * kernel : STATISTICS * (kernel + 1)] = _statistics(outputs, whole=whole)
    return found


def _statistics(outputs: NDArray[Any], *, whole: bool) -> NDArray[Any]:
    """Return the three features (n, 3) of one kernel's outputs (n, T)."""
    length = outputs.shape[1]
    positive, largest = (outputs > 0).sum(axis=1), outputs.max(axis=1)
    size = np.add.accumulate(np.abs(outputs), axis=1)[:, -1]  # in order, as C adds
    if whole:
        return np.stack([positive * ONE_SHARE, largest, size >> _halvings(length)], axis=1)
    share = positive.astype(np.float32) / np.float32(length)
    return np.stack([share, largest, size / np.float32(length)], axis=1)


def _float_scores(model: MicroModel, raw: Array) -> Array:
    return np.asarray(np.clip((raw - model.means) * model.factors, -CLIP, CLIP), dtype=np.float32)


def _float_head(model: MicroModel, scores: Array) -> Array:
    embeddings = np.zeros((len(scores), model.dimensions), np.float32)
    for place in range(model.width):
        embeddings += scores[:, place, None] * model.head[None, :, place]
    squares = np.add.accumulate(np.square(embeddings), axis=1)[:, -1]
    norms = np.sqrt(squares)[:, None]
    return np.asarray(embeddings / np.where(norms > 0, norms, np.float32(1.0)), dtype=np.float32)


def _integer_scores(model: MicroModel, raw: Integers) -> Integers:
    moved = (raw - model.means) * model.factors.astype(np.int64)
    return np.clip(_shifted(moved, np.asarray(model.shifts)), -8 * ONE_SCORE, 8 * ONE_SCORE)


def _integer_head(model: MicroModel, scores: Integers) -> NDArray[np.int16]:
    rows = (scores @ model.head.T.astype(np.int64)) * np.asarray(model.row_factors).astype(np.int64)
    found = np.zeros(rows.shape, np.int16)
    for index, row in enumerate(rows):
        largest = int(np.abs(row).max())
        if largest:
            excess = largest.bit_length() - 15
            small = _shifted(row, np.full(len(row), excess)) if excess > 0 else row << -excess
            norm = math.isqrt(int(np.square(small).sum()))
            found[index] = np.sign(small) * ((np.abs(small) * (2 * FULL) + norm) // (2 * norm))
    return found


def _shifted(values: Integers, shifts: NDArray[Any]) -> Integers:
    """Return values / 2^shift, rounded to nearest, halves away from zero."""
    shifts = shifts.astype(np.int64)
    half = np.where(shifts > 0, np.int64(1) << np.maximum(shifts - 1, 0), 0)
    return np.asarray(np.sign(values) * ((np.abs(values) + half) >> shifts))


def _fractions(values: NDArray[np.float64]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return factors and shifts with factor / 2^shift nearest to each of the positive `values`."""
    wanted = 15 - np.floor(np.log2(values))
    shifts = np.clip(wanted, 0, MAX_SHIFT)
    factors = np.clip(np.rint(values * 2.0**shifts), 0, 65535)
    return factors.astype(np.uint16), shifts.astype(np.uint8)


def _halvings(samples: int) -> int:
    """Return the least p with 2^p >= samples."""
    return (samples - 1).bit_length()


def scratch_bytes(model: MicroModel) -> int:
    """Return the bytes of scratch that the C library takes to embed one window."""
    window = model.channels * (model.samples + 2 * _REACH + _BLOCK)
    if model.precision == FLOAT32:
        return 4 * (model.width + window)
    return 4 * model.dimensions + 2 * (model.width + window)


def window_bytes(model: MicroModel) -> int:
    """Return the bytes of one window as the C library takes it, float32 or int16."""
    return model.channels * model.samples * (2 if model.precision == INT8 else 4)
