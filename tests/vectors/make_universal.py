"""Golden vectors of the universal encoder: the normative recipe once more, from its text, in plain float64 NumPy.

Nothing here is imported from the encoder. `python tests/vectors/make_universal.py` writes universal.safetensors anew;
that is right only together with a new version of the recipe.

The recipe, version 1 (design.md section 2). For each dilation D of 1, 2, 4, 8 a legacy Mersenne Twister (NumPy's
RandomState) is seeded with the first four bytes, little endian, of SHA-256("edge-cmcl/universal/1/NAME/C/D"). Each of
the width / 12 kernels draws from it, in this order:

1. C x 7 weights from N(0, 1), channel by channel;
2. C numbers in [0, 1): the kernel sees a channel where its number is below 3 / C;
3. an integer below C: the one channel seen where step 2 chose none;
4. a number in [0, 1): below 0.7 the kernel's mean over time is taken away, channel by channel;
5. the bias, uniform in -0.3 to 0.3.

Steps 2 and 3 only count for C > 4; fewer channels are all seen. The weights are scaled to unit norm. Outputs come from
a convolution that is padded with 3 * D zeros on both sides, so there are as many as samples. A kernel with
9 * D > 2 * T gives zeros. Features: per dilation the shares of positive outputs, the maxima, and the mean absolute
outputs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PATH = Path(__file__).with_name("universal.safetensors")
MODALITIES = {"acc": 3, "emg": 8}
WIDTH = 252
LENGTHS = {"long": 64, "medium": 32, "short": 16}
"""Samples; 32 silences dilation 8, 16 dilations 4 and 8."""

MARGIN = 5e-6
"""No output may be nearer to zero, or single precision could count it on the other side."""


def draw_kernels(modality: str, channels: int, width: int) -> tuple[Floats, Floats]:
    """Return weights (4, K, C, 7) and biases (4, K)."""
    count = width // 12
    weights, biases = np.zeros((4, count, channels, 7)), np.zeros((4, count))
    for row, dilation in enumerate((1, 2, 4, 8)):
        digest = hashlib.sha256(f"edge-cmcl/universal/1/{modality}/{channels}/{dilation}".encode()).digest()
        stream = np.random.RandomState(digest[0] + (digest[1] << 8) + (digest[2] << 16) + (digest[3] << 24))
        for kernel in range(count):
            drawn = np.array([[stream.standard_normal() for _ in range(7)] for _ in range(channels)])
            seen = [stream.random_sample() < 3 / channels for _ in range(channels)]
            fallback = stream.randint(0, channels, dtype=np.int64)
            centred = stream.random_sample() < 0.7
            biases[row, kernel] = stream.uniform(-0.3, 0.3)
            if channels <= 4:
                seen = [True] * channels
            elif not any(seen):
                seen[fallback] = True
            for channel in range(channels):
                if not seen[channel]:
                    drawn[channel] = 0.0
                elif centred:
                    drawn[channel] -= sum(drawn[channel]) / 7
            weights[row, kernel] = drawn / np.sqrt((drawn**2).sum())
    return weights, biases


def outputs_of(window: Floats, weights: Floats, bias: float, dilation: int) -> Floats:
    """Return the outputs (T,) of one kernel (C, 7) on one window (T, C)."""
    samples = len(window)
    padded = np.concatenate([np.zeros((3 * dilation, len(weights))), window, np.zeros((3 * dilation, len(weights)))])
    outputs = np.full(samples, bias, dtype=np.float64)
    for time in range(samples):
        for tap in range(7):
            outputs[time] += padded[time + tap * dilation] @ weights[:, tap]
    return outputs


def features_of(windows: Floats, weights: Floats, biases: Floats) -> Floats:
    """Return features (n, 12 * K) of `windows` (n, T, C).

    Raises:
        ValueError: an output is too near to zero to be counted in single precision.
    """
    count = weights.shape[1]
    features = np.zeros((len(windows), 4, 3, count))
    for n, window in enumerate(windows):
        for row, dilation in enumerate((1, 2, 4, 8)):
            if 9 * dilation > 2 * len(window):
                continue
            for kernel in range(count):
                outputs = outputs_of(window, weights[row, kernel], biases[row, kernel], dilation)
                if np.abs(outputs).min() < MARGIN:
                    raise ValueError(f"window {n}, dilation {dilation}, kernel {kernel}: an output is nearly zero")
                features[n, row, 0, kernel] = sum(outputs > 0) / len(outputs)
                features[n, row, 1, kernel] = max(outputs)
                features[n, row, 2, kernel] = sum(abs(outputs)) / len(outputs)
    return features.reshape(len(windows), -1)


def windows_of(samples: int, channels: int) -> NDArray[np.float32]:
    """Return two float32 windows (2, samples, channels): slow and fast waves, no two channels alike."""
    time = np.arange(samples)[:, None]
    channel = np.arange(1, channels + 1)
    slow = np.sin(0.11 * channel * time + channel)
    fast = 1.5 * np.cos(0.7 * time + 0.3 * channel**2) * np.exp(-((time - samples / 2) ** 2) / samples)
    return np.stack([slow + 0.2 * fast, fast - 0.4]).astype(np.float32)


def golden() -> dict[str, NDArray[np.float32]]:
    """Return all vectors: per modality weights, biases, and per length windows and features."""
    tensors: dict[str, NDArray[np.float32]] = {}
    for modality, channels in MODALITIES.items():
        weights, biases = draw_kernels(modality, channels, WIDTH)
        # The device computes with kernels in single precision.
        tensors[f"{modality}.weights"] = weights.astype(np.float32)
        tensors[f"{modality}.biases"] = biases.astype(np.float32)
        exact = [tensors[f"{modality}.{name}"].astype(np.float64) for name in ("weights", "biases")]
        for name, samples in LENGTHS.items():
            windows = windows_of(samples, channels)
            tensors[f"{modality}.{name}.windows"] = windows
            features = features_of(windows.astype(np.float64), exact[0], exact[1])
            tensors[f"{modality}.{name}.features"] = features.astype(np.float32)
    return tensors


if __name__ == "__main__":
    from edge_cmcl import tensors

    tensors.write(PATH, golden(), {"recipe": "edge-cmcl/universal/1"})
    print(f"{PATH.name}: {PATH.stat().st_size} bytes")
