"""Golden vectors of the micro model: BLOB.md once more, from its text, number by number in plain Python.

Nothing here is imported from the bridge. `python tests/vectors/make_micro.py` writes micro.safetensors anew; that is
right only together with a new version of the format.

Per precision the file has a blob, windows in the recorded unit, and what they must give: embeddings, labels, cosines.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PATH = Path(__file__).with_name("micro.safetensors")
CHANNELS, SAMPLES, WIDTH, DIMENSIONS = 3, 19, 24, 10
DILATIONS = (1, 1, 2, 2, 4, 4, 8, 8)
SEEN = ((0, 1, 2), (1,), (0, 2), (2,), (0, 1, 2), (0,), (1, 2), (2,))
NAMES = ("idle", "läuft", "bearing fault")
SCALE = 2.5
INPUT_SHIFT = 11
F = np.float32

Numbers = dict[str, Any]


def numbers(precision: str) -> Numbers:
    """Return what the sections hold, drawn at random within the format's limits."""
    draw = np.random.RandomState(7)
    taps, kernels = sum(map(len, SEEN)), len(SEEN)
    weights = draw.standard_normal((taps, 7)) / 4
    labels = draw.standard_normal((len(NAMES), DIMENSIONS))
    labels /= np.linalg.norm(labels, axis=1, keepdims=True)
    # Means and deviations are those of such windows, roughly: share, maximum, mean of absolute outputs.
    mean = np.tile([0.5, 1.5, 0.6], kernels) + 0.1 * draw.standard_normal(WIDTH)
    head = draw.standard_normal((DIMENSIONS, WIDTH)) * np.geomspace(1, 20, DIMENSIONS)[:, None]
    bias = draw.uniform(-0.3, 0.3, kernels)
    if precision == "float32":
        factor = np.tile([8.0, 2.0, 4.0], kernels)
        found = {"weights": weights, "biases": bias, "means": mean, "factors": factor, "head": head, "labels": labels}
        return {**{name: array.astype(F) for name, array in found.items()}, "label_step": F(1)}
    step = 1 / (4000 * 2.0**INPUT_SHIFT)  # of an output
    units = np.tile([1 / (256 * SAMPLES), step, step * 32 / SAMPLES], kernels)
    wanted = np.tile([8.0, 2.0, 4.0], kernels) * units * 2048
    shifts = np.array([15 - math.floor(math.log2(each)) for each in wanted])
    return {
        "weights": np.rint(weights * 4000).astype(int),
        "biases": np.rint(bias / step).astype(int),
        "means": np.rint(mean / units).astype(int),
        "factors": np.rint(wanted * 2.0**shifts).astype(int),
        "shifts": shifts,
        "head": np.rint(127 * head / np.abs(head).max(axis=1, keepdims=True)).astype(int),
        "row_factors": np.rint(65535 * np.abs(head).max(axis=1) / np.abs(head).max()).astype(int),
        "labels": np.rint(labels * 127).astype(int),
        "label_step": F(1 / 127 / 32767),
    }


def blob_of(precision: str, n: Numbers) -> bytes:
    """Return the blob, section by section."""
    whole = precision == "int8"
    names = [name.encode() + b"\0" for name in NAMES]
    seen = [channel for channels in SEEN for channel in channels]
    real, weight, small, factor = ("i", "h", "b", "H") if whole else ("f", "f", "f", "f")
    sections = [
        b"".join(struct.pack("<BBH", d, 0, len(channels)) for d, channels in zip(DILATIONS, SEEN, strict=True)),
        packed("H", seen),
        packed(weight, n["weights"]),
        packed(real, n["biases"]),
        packed(real, n["means"]),
        packed(factor, n["factors"]),
        packed("B", n["shifts"]) if whole else b"",
        packed(small, n["head"]),
        packed("H", n["row_factors"]) if whole else b"",
        packed(small, n["labels"]),
        packed("I", [sum(map(len, names[: i + 1])) for i in range(len(names))]),
        b"".join(names),
    ]
    body = b"".join(section + b"\0" * (-len(section) % 4) for section in sections)
    head = b"ECMM" + struct.pack("<HBBI", 1, int(whole), 0, 108 + len(body) + 4)
    head += struct.pack("<HHHHIHhI", CHANNELS, SAMPLES, WIDTH, DIMENSIONS, len(seen), len(NAMES),
                        INPUT_SHIFT if whole else 0, sum(map(len, names)))  # fmt: skip
    head += struct.pack("<ff", SCALE, n["label_step"]) + b"gyro".ljust(36, b"\0") + bytes(range(32))
    return head + body + struct.pack("<I", zlib.crc32(head + body))


def packed(kind: str, values: Any) -> bytes:
    flat = np.asarray(values).reshape(-1).tolist()
    return struct.pack(f"<{len(flat)}{kind}", *flat)


def windows() -> NDArray[np.float32]:
    """Return five windows in the recorded unit; the last but one saturates samples, the last is zero."""
    draw = np.random.RandomState(8)
    found = SCALE * draw.standard_normal((5, SAMPLES, CHANNELS))
    found[3] *= 40
    found[4] = 0
    return found.astype(F)


def outputs(samples: Any, kernel: int, n: Numbers, zero: Any) -> list[Any]:
    """Return the outputs of a kernel at every time; `zero` is the 0 of the arithmetic, float32 or int."""
    first = sum(map(len, SEEN[:kernel]))
    found = []
    for t in range(SAMPLES):
        total = type(zero)(n["biases"][kernel])
        for place, channel in enumerate(SEEN[kernel]):
            for j in range(7):
                at = t + (j - 3) * DILATIONS[kernel]
                x = samples[at][channel] if 0 <= at < SAMPLES else zero
                total = total + type(zero)(n["weights"][first + place][j]) * x
        found.append(total)
    return found


def ordered_sum(values: Any) -> Any:
    total = None
    for value in values:
        total = value if total is None else total + value
    return total


def embed_float(window: NDArray[np.float32], n: Numbers) -> tuple[list[Any], int, Any]:
    samples = [[F(value) / F(SCALE) for value in row] for row in window]
    scores = []
    for kernel in range(len(SEEN)):
        found = outputs(samples, kernel, n, F(0))
        features = (
            F(sum(value > 0 for value in found)) / F(SAMPLES),
            max(found),
            ordered_sum(abs(value) for value in found) / F(SAMPLES),
        )
        for statistic, feature in enumerate(features):
            place = 3 * kernel + statistic
            scores.append(min(max((feature - n["means"][place]) * n["factors"][place], F(-8)), F(8)))
    rows = [ordered_sum(row[i] * scores[i] for i in range(WIDTH)) for row in n["head"]]
    norm = np.sqrt(ordered_sum(row * row for row in rows))
    embedding = [row / norm for row in rows] if norm > 0 else rows
    cosines = [ordered_sum(e * x for e, x in zip(embedding, label, strict=True)) for label in n["labels"]]
    best = cosines.index(max(cosines))
    return embedding, best, cosines[best]


def rounded(value: int, divisor: int) -> int:
    """Return value / divisor, rounded to nearest, halves away from zero."""
    size = (2 * abs(value) + divisor) // (2 * divisor)
    return size if value >= 0 else -size


def sample(value: F) -> int:
    scaled = value / F(SCALE) * F(2**INPUT_SHIFT)
    return int(min(max(math.copysign(math.floor(float(F(abs(scaled)) + F(0.5))), scaled), -32767), 32767))


def embed_int(window: NDArray[np.float32], n: Numbers) -> tuple[list[int], int, Any]:
    samples = [[sample(value) for value in row] for row in window]
    scores = []
    for kernel in range(len(SEEN)):
        found = outputs(samples, kernel, n, 0)
        features = (256 * sum(value > 0 for value in found), max(found), sum(map(abs, found)) >> 5)
        for statistic, feature in enumerate(features):
            place = 3 * kernel + statistic
            moved = (feature - int(n["means"][place])) * int(n["factors"][place])
            scores.append(min(max(rounded(moved, 2 ** int(n["shifts"][place])), -16384), 16384))
    sums = [sum(int(row[i]) * scores[i] for i in range(WIDTH)) for row in n["head"]]
    rows = [value * int(factor) for value, factor in zip(sums, n["row_factors"], strict=True)]
    largest = max(map(abs, rows))
    embedding = [0] * DIMENSIONS
    if largest:
        excess = largest.bit_length() - 15
        rows = [rounded(row, 2**excess) if excess > 0 else row * 2**-excess for row in rows]
        norm = math.isqrt(sum(row * row for row in rows))
        embedding = [rounded(32767 * row, norm) for row in rows]
    dots = [sum(e * int(x) for e, x in zip(embedding, label, strict=True)) for label in n["labels"]]
    best = dots.index(max(dots))
    return embedding, best, F(dots[best]) * F(n["label_step"])


def golden() -> dict[str, NDArray[Any]]:
    """Return all vectors by "PRECISION.NAME"."""
    tensors: dict[str, NDArray[Any]] = {"windows": windows()}
    for precision, embed, dtype in (("float32", embed_float, np.float32), ("int8", embed_int, np.int16)):
        n = numbers(precision)
        answers = [embed(window, n) for window in windows()]
        tensors[f"{precision}.blob"] = np.frombuffer(blob_of(precision, n), np.uint8)
        tensors[f"{precision}.embeddings"] = np.array([answer[0] for answer in answers]).astype(dtype)
        tensors[f"{precision}.labels"] = np.array([answer[1] for answer in answers], np.int64)
        tensors[f"{precision}.cosines"] = np.array([answer[2] for answer in answers], np.float32)
    return tensors


if __name__ == "__main__":
    from edge_cmcl import tensors

    tensors.write(PATH, golden(), {"format": "edge-cmcl/micro/1"})
    print(f"{PATH.name}: {PATH.stat().st_size} bytes")
