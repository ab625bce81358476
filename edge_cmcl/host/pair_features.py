"""The features of one base pair, and what its held-out rows say of adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.metrics import ranks, recall_at
from edge_cmcl.device.features import unit
from edge_cmcl.device.judging import MAX_GALLERY, label_scores, pair_scores
from edge_cmcl.device.text import TEXT

Array = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PairFeatures:
    """One base pair as frozen unit features.

    Attributes:
        modalities: both names; the second may be "text".
        features: (n, width) float32 of each.
        ids: (n,) int64, equal ids are positives.
        training: rows to train on.
        validation: rows to validate on.
        carved: whether validation was cut out of the training data, and joins it for the last fit.
    """

    modalities: tuple[str, str]
    features: tuple[Array, Array]
    ids: Rows
    training: Rows
    validation: Rows
    carved: bool


def validate(pairs: Sequence[PairFeatures], maps: Mapping[str, Array]) -> dict[str, float]:
    """Return the mean figures of an epoch over all pairs, from their held-out rows."""
    found = {"validation_mrr": float(np.mean([np.mean(scores(pair, maps)) for pair in pairs]))}
    recalls = [_recall(pair, maps) for pair in pairs if pair.modalities[1] != TEXT]
    return found | ({"validation_recall_at_10": float(np.mean(recalls))} if recalls else {})


def _embed(pair: PairFeatures, maps: Mapping[str, Array]) -> list[Array]:
    return [unit(side[pair.validation] @ maps[n].T) for side, n in zip(pair.features, pair.modalities, strict=True)]


def scores(pair: PairFeatures, maps: Mapping[str, Array]) -> NDArray[np.float64]:
    """Return the reciprocal rank of each held-out row (see `judging`)."""
    a, b = _embed(pair, maps)
    if pair.modalities[1] == TEXT:
        labels, rows = np.unique(pair.ids, return_index=True)
        texts = unit(pair.features[1][rows] @ maps[TEXT].T)
        return label_scores(a, texts, np.searchsorted(labels, pair.ids[pair.validation]))
    parts = np.array_split(np.arange(len(a)), max(1, -(-len(a) // MAX_GALLERY)))
    return np.concatenate([pair_scores(a[part], b[part]) for part in parts])


def figures(pair: PairFeatures, maps: Mapping[str, Array]) -> dict[str, float]:
    """Return recall among at most `MAX_GALLERY` others, mean over all held-out rows, or the accuracy against labels."""
    rows = len(pair.validation)
    if pair.modalities[1] == TEXT:
        return {"rows": rows, "accuracy": float(np.mean(scores(pair, maps) == 1.0))}
    a, b = _embed(pair, maps)
    parts = np.array_split(np.arange(rows), max(1, -(-rows // MAX_GALLERY)))
    hits = sum(len(part) * _both_ways(a[part], b[part]) for part in parts)
    return {"rows": rows, "recall_at_10": float(hits / rows)}


def _both_ways(a: Array, b: Array) -> float:
    similarity = a @ b.T
    return float(recall_at(ranks(similarity), 10) + recall_at(ranks(similarity.T), 10)) / 2


def _recall(pair: PairFeatures, maps: Mapping[str, Array]) -> float:
    a, b = (side[:MAX_GALLERY] for side in _embed(pair, maps))
    return _both_ways(a, b)
