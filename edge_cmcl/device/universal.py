"""The universal encoder's kernels: a random convolutional feature map that any sensor gets without training.

Normative recipe, version 1 (design.md section 2). Per dilation 1, 2, 4, 8 there are width / 12 kernels of length 7.
Kernel i of one dilation depends on the modality's name, its channel count, the dilation and i alone, so a narrower
encoder is a prefix of a wider one and every device has the same. The recipe is frozen with golden vectors in
tests/vectors; in the spirit of ROCKET (A. Dempster et al., Data Min. Knowl. Discov. 34, 2020).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.errors import ModelError

DILATIONS = (1, 2, 4, 8)
LENGTH = 7
STATISTICS = 3  # share of positive outputs, maximum, mean absolute output
WIDTH_UNIT = len(DILATIONS) * STATISTICS
DEFAULT_WIDTH = 1800
MAX_CELLS = 10
"""Frames are pooled to at most this many cells along each side; each cell is then a channel."""

_CENTRED_SHARE = 0.7
_BIAS_RANGE = 0.3
_MEAN_CHANNELS = 3


@dataclass(frozen=True)
class Kernels:
    """Inputs of the universal encoder's graph beside the windows.

    Attributes:
        weights: (4, K, C, 7) float32, unit norm per kernel.
        biases: (4, K) float32.
    """

    weights: NDArray[np.float32]
    biases: NDArray[np.float32]

    def for_length(self, samples: int) -> Kernels:
        """Return the kernels with those of too long a reach (9 * dilation > 2 * samples) silenced.

        A silenced kernel has zero weights and bias, so its three features are exactly 0.
        """
        keep = np.array([9 * dilation <= 2 * samples for dilation in DILATIONS], dtype=np.float32)
        if keep.all():
            return self
        return Kernels(self.weights * keep[:, None, None, None], self.biases * keep[:, None])


def make_kernels(modality: str, channels: int, width: int = DEFAULT_WIDTH) -> Kernels:
    """Return the kernels of `modality` with `channels` input channels and `width` features.

    Raises:
        ModelError: `width` is not a positive multiple of 12.
    """
    if width <= 0 or width % WIDTH_UNIT:
        raise ModelError(
            f"the universal encoder of {modality} cannot have {width} features",
            expected=f"a positive multiple of {WIDTH_UNIT}",
            got=str(width),
        )
    count = width // WIDTH_UNIT
    weights = np.empty((len(DILATIONS), count, channels, LENGTH), dtype=np.float32)
    biases = np.empty((len(DILATIONS), count), dtype=np.float32)
    for row, dilation in enumerate(DILATIONS):
        # RandomState is the one NumPy stream that is guaranteed never to change.
        stream = np.random.RandomState(_seed(modality, channels, dilation))
        for kernel in range(count):
            weights[row, kernel], biases[row, kernel] = _draw_kernel(stream, channels)
    return Kernels(weights, biases)


def pool_frames(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n, T, H, W) `frames` as a series (n, T, h * w): means over at most 10 x 10 cells."""
    return _pool_axis(_pool_axis(frames, 2), 3).reshape(*frames.shape[:2], -1)


def _draw_kernel(stream: np.random.RandomState, channels: int) -> tuple[NDArray[np.float64], float]:
    weights = stream.standard_normal((channels, LENGTH))
    chosen = stream.random_sample(channels) < _MEAN_CHANNELS / channels
    fallback = stream.randint(channels, dtype=np.int64)
    centred = stream.random_sample() < _CENTRED_SHARE
    bias = stream.uniform(-_BIAS_RANGE, _BIAS_RANGE)
    if channels > _MEAN_CHANNELS + 1:
        chosen[fallback] |= not chosen.any()
        weights *= chosen[:, None]
    if centred:
        weights -= weights.mean(axis=1, keepdims=True)
    return weights / np.linalg.norm(weights), bias


def _seed(modality: str, channels: int, dilation: int) -> int:
    text = f"edge-cmcl/universal/1/{modality}/{channels}/{dilation}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def _pool_axis(frames: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    size = frames.shape[axis]
    if size <= MAX_CELLS:
        return frames
    edges = np.arange(MAX_CELLS + 1) * size // MAX_CELLS
    sums = np.add.reduceat(frames, edges[:-1], axis=axis)
    shape = [1] * frames.ndim
    shape[axis] = MAX_CELLS
    return np.asarray(sums / np.diff(edges).astype(np.float32).reshape(shape))
