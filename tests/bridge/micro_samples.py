"""Micro models for tests: the golden vectors, models drawn at random, and blobs with one thing changed."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.tensors import TensorFile
from firmware_bridge.blob import MicroModel
from firmware_bridge.micro import float_model, quantised

PRECISIONS = ("float32", "int8")
VECTORS = Path(__file__).parent.parent / "vectors" / "micro.safetensors"


def vectors() -> dict[str, NDArray[Any]]:
    """Return the golden vectors by name; see tests/vectors/make_micro.py."""
    with TensorFile(VECTORS) as file:
        return {name: file.read_whole(name) for name in file.names}


def random_model(
    precision: str,
    *,
    seed: int = 0,
    channels: int = 3,
    samples: int = 128,
    width: int = 252,
    dimensions: int = 256,
    labels: int = 27,
    largest: float = 6.0,
) -> MicroModel:
    """Return a model whose statistics are roughly those of windows of standard normal values."""
    draw = np.random.default_rng(seed)
    kernels = width // 3
    weights = draw.standard_normal((kernels, channels, 7))
    weights *= draw.random((kernels, channels, 1)) < 3 / channels
    weights /= np.maximum(np.linalg.norm(weights, axis=(1, 2), keepdims=True), 1e-9)
    texts = draw.standard_normal((labels, dimensions))
    made = float_model(
        modality="gyro",
        generation=bytes(range(32)),
        samples=samples,
        scale=1.5,
        weights=weights.astype(np.float32),
        biases=draw.uniform(-0.3, 0.3, kernels).astype(np.float32),
        dilations=np.repeat([1, 2, 4, 8], kernels // 4).tolist(),
        mean=np.tile([0.5, 2.5, 0.8], kernels).astype(np.float32),
        std=np.tile([0.1, 0.5, 0.1], kernels).astype(np.float32),
        head=(draw.standard_normal((dimensions, width)) / 16).astype(np.float32),
        label_names=[f"label {index}" for index in range(labels)],
        labels=(texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32),
    )
    return made if precision == "float32" else quantised(made, largest)


def random_windows(model: MicroModel, n: int, *, seed: int = 1) -> NDArray[np.float32]:
    """Return windows (n, T, C) of standard normal values in the encoder's unit."""
    drawn = np.random.default_rng(seed).standard_normal((n, model.samples, model.channels))
    return (model.scale * drawn).astype(np.float32)


def resealed(data: bytes) -> bytes:
    """Return a blob with its size and CRC made right again."""
    sized = data[:8] + struct.pack("<I", len(data)) + data[12:-4]
    return sized + struct.pack("<I", zlib.crc32(sized))


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """Return a blob with `new` at the byte `at`, its CRC made right again."""
    return resealed(data[:at] + new + data[at + len(new) :])


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a blob with one to three bytes changed, cut out or put in, mostly sealed again."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        header = rng.random() < 0.5
        at = int(rng.integers(0, min(108, len(changed)) if header else len(changed)))
        kind = rng.random()
        if kind < 0.8:
            changed[at] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256), changed[at] ^ 1]))
        elif kind < 0.9:
            del changed[at : at + 4]
        else:
            changed[at:at] = rng.bytes(4)
    return resealed(bytes(changed)) if rng.random() < 0.95 and len(changed) > 16 else bytes(changed)
