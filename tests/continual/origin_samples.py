"""Origins of random features, for the tests of this room."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.origin import Origin, Origins, moment_rows
from edge_cmcl.continual.sketch import FrequentDirections, Sketch

WIDTH = 24
DEVICE = "edge-7"

Floats = NDArray[np.float64]


@cache
def unit_rows(seed: int, n: int = 40) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((n, WIDTH)) * np.arange(1, WIDTH + 1) ** -0.5
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def sketch(rows: Floats, max_rows: int = 8) -> Sketch:
    directions = FrequentDirections(WIDTH, 16)
    directions.update(rows)
    return directions.sketch(max_rows)


def moment(rows: Floats) -> Floats:
    return np.asarray(rows.T @ rows / len(rows))


def origin(name: str, seed: int = 0, device: str = DEVICE, revision: int = 0, created: str = "", n: int = 40) -> Origin:
    created = created or f"2026-01-{seed + 1:02d}T00:00:00Z"
    return Origin(name, revision, device, "gyro", ("acc",), created, sketch(unit_rows(seed, n)), f"sha256:{seed}")


def still(origin: Origin) -> float:
    """Nothing moves."""
    return 0.0


def moment_of(origins: Origins) -> Floats:
    rows = moment_rows(origins, WIDTH)
    return np.asarray(rows.T @ rows)


def same(a: Origins, b: Origins) -> bool:
    """Whether two sets hold the same origins in the same order, whole."""
    return len(a) == len(b) and all(
        replace(x, sketch=y.sketch) == y and np.array_equal(x.sketch.rows, y.sketch.rows)
        for x, y in zip(a, b, strict=True)
    )


def stands_for(o: Origin) -> dict[str, int]:
    return dict(o.absorbed) or {o.id: o.revision}
