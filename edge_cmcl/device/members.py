"""What training needs of each modality in an update, computed once before it (design.md section 2, steps 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.origin import Origins, mean_eigenvalue, moment_rows
from edge_cmcl.continual.sketch import FrequentDirections, Sketch, principal_rows
from edge_cmcl.continual.update_space import ALPHA, MAX_DIRECTIONS, Preconditioner, soft, update_space
from edge_cmcl.device.encode import EncodedModality, cache_array
from edge_cmcl.device.features import Statistics

MAX_REDUCED = 512
"""Principal directions in which the adapter of a new modality starts."""


@dataclass(frozen=True)
class Member:
    """One modality of an update, as training sees it.

    Attributes:
        name: the modality.
        valid: (n,) bool, rows that have it.
        weight: (d, width) float32, the adapter before the update; None for a new modality.
        base: (n, d) float32, embeddings W x before the update; empty for a new modality.
        reduced: (n, r) float32, features on their principal directions; empty for a known modality.
        directions: (r, width) float32, those directions; empty for a known modality.
        space: N (width, k) float32, the update space.
        inputs: (n, k) float32, N^T x.
        sketch: of the features in this recording.
    """

    name: str
    valid: NDArray[np.bool_]
    weight: NDArray[np.float32] | None
    base: NDArray[np.float32]
    reduced: NDArray[np.float32]
    directions: NDArray[np.float32]
    space: NDArray[np.float32]
    inputs: NDArray[np.float32]
    sketch: Sketch

    @property
    def new(self) -> bool:
        """Whether the modality has no adapter yet."""
        return self.weight is None


def known_member(
    name: str,
    encoded: EncodedModality,
    statistics: Statistics,
    weight: NDArray[np.float32],
    origins: Origins,
    folder: Path,
) -> Member:
    """Prepare a modality that has an adapter: it may move only where `origins` leave room."""
    directions = _sketch(encoded, statistics)
    width = weight.shape[1]
    space = update_space(directions.rows, guard(origins, width), MAX_DIRECTIONS)
    both = np.concatenate([weight.T, space], axis=1)
    columns = _project(encoded, statistics, both, folder / f"{name}.known.npy")
    base, inputs = columns[:, : len(weight)], columns[:, len(weight) :]
    empty = np.zeros((0, 0), np.float32)
    return Member(name, encoded.valid, weight, base, empty, empty, space, inputs, directions.sketch())


def guard(origins: Origins, width: int) -> Preconditioner:
    """Return what holds back the directions of features (width,) that `origins` have learned."""
    return soft(moment_rows(origins, width), ALPHA * mean_eigenvalue(origins, width))


def new_member(name: str, encoded: EncodedModality, statistics: Statistics, folder: Path) -> Member:
    """Prepare a modality without an adapter: all its directions are free, so its space is its leading ones."""
    seen = _sketch(encoded, statistics)
    directions = principal_rows(seen.rows)[1][:MAX_REDUCED].astype(np.float32)
    reduced = _project(encoded, statistics, directions.T, folder / f"{name}.new.npy")
    space = np.ascontiguousarray(directions[:MAX_DIRECTIONS].T)
    empty = np.zeros((0, 0), np.float32)
    inputs = reduced[:, : space.shape[1]]
    return Member(name, encoded.valid, None, empty, reduced, directions, space, inputs, seen.sketch())


def _sketch(encoded: EncodedModality, statistics: Statistics) -> FrequentDirections:
    directions = FrequentDirections(encoded.raw.shape[1])
    for rows, features in encoded.features(statistics):
        directions.update(features[encoded.learned[rows]])
    return directions


def _project(
    encoded: EncodedModality, statistics: Statistics, columns: NDArray[np.float32], path: Path
) -> NDArray[np.float32]:
    projected = cache_array(path, (len(encoded.raw), columns.shape[1]))
    for rows, features in encoded.features(statistics):
        projected[rows] = features @ columns
    return projected
