"""Metrics of a generation on pairs files: retrieval for every two sensors, classification where labels were learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.metrics import classification, retrieval
from edge_cmcl.data import Pairs
from edge_cmcl.data.splits import evenly
from edge_cmcl.device.encoders import BATCH
from edge_cmcl.device.fits import check_fit
from edge_cmcl.device.model import Model
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import DataError
from edge_cmcl.progress import Progress, silent

MAX_GALLERY = 2000
"""Rows of one file that are ranked against each other; a larger file is thinned evenly, and the metrics say so."""

Array = NDArray[np.float32]
Watch = Callable[[str, Array], None]


def unwatched(modality: str, raw: Array) -> None:
    """Let an encoder's raw outputs pass unseen."""


@dataclass(frozen=True)
class PairMetrics:
    """Metrics of one pair of modalities in one file.

    Attributes:
        file: the pairs file.
        modalities: the pair; "text" stands for the labels.
        metrics: see `continual.metrics.retrieval` and `classification`.
        thinned: whether rows were left out to keep the gallery at `MAX_GALLERY`.
    """

    file: str
    modalities: tuple[str, str]
    metrics: dict[str, float]
    thinned: bool

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return vars(self).copy()


def evaluate(model: Model, pairs: Pairs, progress: Progress = silent) -> list[PairMetrics]:
    """Return the metrics of every pair of modalities that `model` knows and `pairs` holds.

    Raises:
        DataError: they have no pair in common.
    """
    known = [name for name in pairs.modalities if name in model.modalities]
    embeddings = {name: embed_all(model, pairs, name, progress) for name in known}
    found = []
    for a, b in combinations(known, 2):
        both = np.flatnonzero(pairs.valid(a) & pairs.valid(b))
        if len(both) > 1:
            rows = thinned(both)
            metrics = retrieval(embeddings[a][rows], embeddings[b][rows])
            found.append(PairMetrics(str(pairs.path), (a, b), metrics, len(rows) < len(both)))
    if pairs.labels is not None and TEXT in model.modalities:
        labels = model.embed_labels(pairs.label_names)
        for name in known:
            rows = np.flatnonzero(pairs.valid(name) & (pairs.labels >= 0))
            if len(rows):
                metrics = classification(embeddings[name][rows], labels, pairs.labels[rows])
                found.append(PairMetrics(str(pairs.path), (name, TEXT), metrics, False))
    if not found:
        raise DataError(
            f"{pairs.path} has no pair that this generation knows",
            expected=f"two of {', '.join(model.modalities)} in the same rows",
            got=", ".join(pairs.modalities),
        )
    return found


def overall(found: list[PairMetrics]) -> dict[str, float]:
    """Return the unweighted means over all pairs of the metrics that they share."""
    means = {}
    for name in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "accuracy", "map"):
        values = [each.metrics[name] for each in found if name in each.metrics]
        if values:
            means[name] = float(np.mean(values))
    return means


def embed_all(
    model: Model, pairs: Pairs, modality: str, progress: Progress = silent, watch: Watch = unwatched
) -> Array:
    """Return unit embeddings (n, d) of one modality of a file, in bounded memory beside the result.

    Args:
        model: the generation.
        pairs: the file.
        modality: a sensor of both.
        progress: told each batch.
        watch: given the encoder's raw outputs (rows, width) of each batch, of the rows in which it was recorded.

    Raises:
        DataError: the file does not fit the modality, or is so large in value that its embeddings are no numbers.
        ModelError: the modality is unknown.
    """
    check_fit(pairs, modality, modality, model.record(modality))
    valid = pairs.valid(modality)
    embeddings = np.zeros((pairs.n, model.generation.embedding_dim), np.float32)
    for start in range(0, pairs.n, BATCH):
        stop = min(start + BATCH, pairs.n)
        raw = model.encoder(modality)(pairs.read(modality, start, stop))
        embeddings[start:stop] = model.embed_outputs(modality, raw)
        if not np.isfinite(embeddings[start:stop]).all():
            raise DataError(
                f"{pairs.path}: windows of {modality} are beyond what its encoder can compute",
                expected="numbers of order 1 in the unit and scale that it was declared with",
                got=f"up to {np.abs(pairs.read(modality, start, stop)).max():g}",
            )
        watch(modality, raw[valid[start:stop]])
        progress(f"embed {modality}", stop, pairs.n)
    return embeddings


def thinned(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most `MAX_GALLERY` of `rows`, evenly spaced."""
    return rows[evenly(len(rows), MAX_GALLERY)]
