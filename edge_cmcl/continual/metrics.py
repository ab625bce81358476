"""Retrieval, classification and continual-learning metrics.

Retrieval metrics are those of the CMCL paper (X. Liu et al., NeurIPS 2025, section 5); backward transfer and
forgetting follow D. Lopez-Paz and M. Ranzato (NeurIPS 2017) and A. Chaudhry et al. (ECCV 2018).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def ranks(similarity: Floats) -> NDArray[np.float64]:
    """Return the rank, from 1, of the true match of each query.

    Ties count as half before and half behind, so that embeddings which are all alike do not score perfection. Whatever
    is not behind counts as before, NaN too, so that broken embeddings score last.

    Args:
        similarity: (n, n), query i against gallery item j; the true match of query i is item i.
    """
    true = np.diagonal(similarity)[:, None]
    behind = (similarity < true).sum(axis=1)
    level = (similarity == true).sum(axis=1) - 1
    return np.asarray(len(similarity) - behind - level / 2.0)


def recall_at(rank: Floats, k: int) -> float:
    """Return the share of queries whose true match is among the first `k`."""
    return float((rank <= k).mean())


def mean_reciprocal_rank(rank: Floats) -> float:
    """Return the mean of 1 / rank."""
    return float((1.0 / rank).mean())


def mean_average_precision(similarity: Floats, relevant: NDArray[np.bool_]) -> float:
    """Return mAP of (n, m) `similarity`; `relevant` (n, m) marks right answers, queries without one are left out."""
    order = np.argsort(-similarity, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    answered = hits.any(axis=1)
    if not answered.any():
        return 0.0
    hits = hits[answered]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())


def retrieval(a: Floats, b: Floats) -> dict[str, float]:
    """Return R@1, R@5, R@10 and MRR, each the mean of both directions, with gallery size and chance level.

    Args:
        a: (n, d) unit embeddings of one modality.
        b: (n, d) unit embeddings of its partner, row by row the same moments.
    """
    similarity = a @ b.T
    forward, backward = ranks(similarity), ranks(similarity.T)
    n = len(a)
    result: dict[str, float] = {"n": n}
    for k in (1, 5, 10):
        result[f"recall_at_{k}"] = (recall_at(forward, k) + recall_at(backward, k)) / 2
        result[f"recall_at_{k}_forward"] = recall_at(forward, k)
        result[f"recall_at_{k}_backward"] = recall_at(backward, k)
    result["mrr"] = (mean_reciprocal_rank(forward) + mean_reciprocal_rank(backward)) / 2
    result["chance_recall_at_10"] = min(1.0, 10 / n)
    result["chance_mrr"] = chance_mrr(n)
    return result


def chance_mrr(n: int) -> float:
    """Return the expected MRR of random ranking in a gallery of `n`."""
    return float((1.0 / np.arange(1, n + 1)).mean())


def classification(embeddings: Floats, label_embeddings: Floats, labels: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy by nearest label embedding, and mAP of labels as queries over the windows.

    Args:
        embeddings: (n, d) unit embeddings of windows.
        label_embeddings: (c, d) unit embeddings of the label names.
        labels: (n,) index of the true label of each window.
    """
    similarity = embeddings @ label_embeddings.T
    relevant = labels[None, :] == np.arange(len(label_embeddings))[:, None]
    return {
        "n": len(labels),
        "accuracy": float((similarity.argmax(axis=1) == labels).mean()),
        "map": mean_average_precision(similarity.T, relevant),
        "chance_accuracy": 1.0 / len(label_embeddings),
    }


def bootstrap_interval(
    values: Floats,
    groups: NDArray[np.int64] | None = None,
    statistic: Callable[[Floats], float] = lambda drawn: float(drawn.mean()),
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of `statistic` over `values` (n,).

    With `groups` (n,) whole groups are drawn (cluster bootstrap), because windows of one recording are not independent.
    With fewer than two groups single values are drawn: where neighbours resemble each other, as overlapping windows do,
    the interval is then too narrow.
    """
    rng = np.random.default_rng(seed)
    if groups is None or len(np.unique(groups)) < 2:
        samples = [values[rng.integers(0, len(values), len(values))] for _ in range(draws)]
    else:
        members = [values[groups == group] for group in np.unique(groups)]
        samples = [
            np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))]) for _ in range(draws)
        ]
    tail = (1.0 - level) / 2.0
    low, high = np.quantile([statistic(sample) for sample in samples], [tail, 1.0 - tail])
    return float(low), float(high)


def final_average(matrix: Floats) -> float:
    """Return the mean of the last row of the T x T `matrix`: matrix[t, i] is the score of pair i after step t."""
    return float(matrix[-1].mean())


def backward_transfer(matrix: Floats) -> float:
    """Return BWT: mean over all but the last pair of its final score minus its score when just learned."""
    steps = len(matrix)
    return 0.0 if steps < 2 else float((matrix[-1] - np.diagonal(matrix))[:-1].mean())


def forgetting(matrix: Floats) -> float:
    """Return the mean over all but the last pair of its best score before the last step minus its final score.

    A. Chaudhry et al. (ECCV 2018), equation 3: the best is over the steps before the last, so that a pair that has
    never been better than in the end has a negative forgetting.
    """
    steps = len(matrix)
    if steps < 2:
        return 0.0
    best = [matrix[i:-1, i].max() for i in range(steps - 1)]
    return float(np.mean(np.asarray(best) - matrix[-1, :-1]))


def plasticity(matrix: Floats) -> float:
    """Return the mean score of each pair when just learned, the diagonal of the T x T `matrix`."""
    return float(np.diagonal(matrix).mean())
