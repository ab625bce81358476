"""Golden vectors: synthetic windows and the embeddings they must give, so that a device can test itself."""

from __future__ import annotations

import hashlib
import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.bundle.payloads import Adapter, Golden
from edge_cmcl.device.features import standardise, unit
from edge_cmcl.device.model import statistics_of
from edge_cmcl.device.runtime import FP16, FP32, INT8, INT8_DYNAMIC

COUNT = 4
MAX_BYTES = 8 << 20
"""Of the windows in float32: every generation carries them, so large frames get fewer windows, but at least one."""

TOLERANCE = 1e-3
"""Largest difference of a golden embedding's numbers that the self-test accepts on another machine."""

TOLERANCES = {FP32: TOLERANCE, FP16: 1e-2, INT8: 5e-2, INT8_DYNAMIC: 5e-2}
"""The same by precision: processors with float16 or int8 instructions round where others compute in float32."""


class _Encode(Protocol):
    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]: ...


def golden_windows(modality: str, record: ModalityRecord, samples: int) -> NDArray[np.float32]:
    """Return (count, samples, ...) windows of `modality` in recorded units: sines and noise, never recorded data.

    `count` is 4, or as many as fit into `MAX_BYTES`, at least 1.
    """
    seed = int.from_bytes(hashlib.sha256(f"golden/{modality}".encode()).digest()[:4], "little")
    rng = np.random.RandomState(seed)
    shape = tuple(record.frame) if record.frame else (record.channels or 1,)
    count = max(1, min(COUNT, MAX_BYTES // (4 * samples * math.prod(shape))))
    time = np.linspace(0.0, 1.0, samples).reshape(1, samples, *[1] * len(shape))
    cycles, phase = (rng.uniform(low, high, (count, 1, *shape)) for low, high in ((1.0, 6.0), (0.0, 2 * np.pi)))
    waves = np.sin(2 * np.pi * cycles * time + phase) + 0.1 * rng.standard_normal((count, samples, *shape))
    return (record.scale * waves).astype(np.float32)


def make_golden(encode: _Encode, adapter: Adapter, windows: NDArray[np.float32]) -> Golden:
    """Return golden vectors: `windows` and their unit embeddings through `encode` and `adapter`."""
    features = standardise(encode(windows), statistics_of(adapter))
    return Golden({"windows": windows}, {"embeddings": unit(features @ adapter.weight.T)})
