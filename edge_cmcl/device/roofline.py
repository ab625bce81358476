"""How fast the matrix products of a model could be here: the same products in plain BLAS, in the same run.

What a graph computes beside products (normalisation, maxima, counting) is not in them, so no encoder reaches 100 %.
Convolutions count as the products they can be written as; BLAS is given the unrolled input for nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.device.encoders import series_channels
from edge_cmcl.device.providers import nominal_samples
from edge_cmcl.device.runtime import Products, runtime_of
from edge_cmcl.device.universal import DILATIONS, LENGTH, STATISTICS

_MAX_VALUES = 1 << 23
"""Columns of the right side are multiplied in parts of at most so many numbers, as every BLAS does inside."""

_REPEATS = 7


def encoder_products(record: ModalityRecord) -> Products:
    """Return (m, k, n) of the products that one window takes; () where the bundle does not say."""
    if record.encoder != "universal":
        return runtime_of(record).products
    kernels = record.width // (len(DILATIONS) * STATISTICS)
    product = (kernels, series_channels(record) * LENGTH, nominal_samples(record))
    return (product,) * len(DILATIONS)


def step_products(batch: int, dimensions: int, directions: int, partners: int = 1) -> Products:
    """Return the products of one training step: embeddings, similarities, and both their gradients."""
    sides = ((batch, directions, dimensions), (dimensions, batch, directions)) * (1 + partners)
    return sides + ((batch, dimensions, batch), (batch, batch, dimensions), (batch, batch, dimensions)) * partners


def operations(products: Products) -> int:
    """Return the multiplications and additions of `products`."""
    return sum(2 * m * k * n for m, k, n in products)


def blas_seconds(products: Products, batch: int = 1) -> float:
    """Return the median time that BLAS takes for `products` of `batch` windows, in float32."""
    random = np.random.default_rng(0)
    return sum(_seconds(random, m, k, n * batch) for m, k, n in products)


def _seconds(random: np.random.Generator, m: int, k: int, n: int) -> float:
    parts = _parts(n, max(1, _MAX_VALUES // max(k, m)))
    left = random.standard_normal((m, k), dtype=np.float32)
    right = random.standard_normal((k, parts[0]), dtype=np.float32)
    out = np.empty((m, parts[0]), np.float32)
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        for part in parts:
            np.matmul(left, right[:, :part], out=out[:, :part])
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _parts(n: int, most: int) -> Sequence[int]:
    whole, rest = divmod(n, most)
    return [most] * whole + ([rest] if rest else [])
