"""How well a sensor predicts a partner, and how much of it is new: from features to figures. No input or output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.dependence import Predictor, Shuffler, find_shuffler, permutation_test
from edge_cmcl.continual.metrics import bootstrap_interval, chance_mrr
from edge_cmcl.device.advice import SHUFFLES, Evidence
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import TooLittleDataError
from edge_cmcl.progress import Progress, silent

_PREDICTS_NOTHING = 0.95

Array = NDArray[np.float32]
Rows = NDArray[np.int64]
Splits = Sequence[tuple[Rows, Rows]]


def pair_evidence(
    partner: str,
    own: Array,
    theirs: Array,
    splits: Splits,
    groups: Rows | None,
    share: int = 1,
    progress: Progress = silent,
) -> Evidence:
    """Return how well a sensor predicts another one.

    Args:
        partner: the other's name.
        own: (n, width) unit features of the sensor, in order of time.
        theirs: (n, d) unit embeddings of the partner, or features of one that is new, row by row the same moments.
        splits: (training rows, held-out rows).
        groups: (n,) subject or run of each row, or None.
        share: partners that are tested side by side; each then needs a smaller p, and so more shuffles.
        progress: told each shuffled pairing.
    """
    gram, targets = own @ own.T, theirs @ theirs.T
    predictor = Predictor.fit(gram, splits, own.shape[1])
    shuffler = find_shuffler(gram, targets, groups)
    sizes = predictor.held_out_counts
    gallery = float(np.average(sizes, weights=sizes))
    score = partial(predictor.pair_scores, targets)
    return _tested(partner, score, shuffler, predictor.chance(), gallery, groups, share, progress)


def label_evidence(
    own: Array,
    names: Array,
    labels: Rows,
    splits: Splits,
    groups: Rows | None,
    share: int = 1,
    progress: Progress = silent,
) -> Evidence:
    """Return how well a sensor predicts labels.

    Args:
        own: as in `pair_evidence`.
        names: (c, d) unit embeddings, or features, of the labels that occur.
        labels: (n,) which of them each row has.
        splits: as in `pair_evidence`.
        groups: as in `pair_evidence`.
        share: as in `pair_evidence`.
        progress: as in `pair_evidence`.
    """
    gram, targets = own @ own.T, names @ names.T
    predictor = Predictor.fit(gram, splits, own.shape[1])
    shuffler = find_shuffler(gram, targets[np.ix_(labels, labels)], groups)
    chance = np.full(len(own), chance_mrr(len(names)))
    score = partial(predictor.label_scores, targets, labels)
    return _tested(TEXT, score, shuffler, chance, float(len(names)), groups, share, progress)


def new_share(own: Array, known: Sequence[Array], copy: Array, splits: Splits) -> float | None:
    """Return how much of a sensor is new beside `known` ones: 0 for a copy of one of them, 1 for an unrelated sensor.

    It is the share of the features' held-out variance that the known sensors leave open (`Predictor.unexplained`),
    between what a second encoding of the sensor itself leaves open, 0, and all of it, 1: however well a relation is
    known, so few pairs do not let it predict everything. Noise counts as new.

    Args:
        own: (n, width) unit features of the sensor.
        known: unit features (n, width) of each known sensor, row by row the same moments.
        copy: (n, width) unit features of the sensor's own windows, by another encoder.
        splits: as in `pair_evidence`.

    Returns:
        The share, or None where even a copy predicts next to nothing.
    """
    targets = own @ own.T
    left = _unexplained([copy], targets, splits)
    if left > _PREDICTS_NOTHING:
        return None
    return float(np.clip((_unexplained(known, targets, splits) - left) / (1.0 - left), 0.0, 1.0))


def _unexplained(known: Sequence[Array], targets: Array, splits: Splits) -> float:
    gram = np.mean([features @ features.T for features in known], axis=0)
    return Predictor.fit(gram, splits, max(features.shape[1] for features in known)).unexplained(targets)


def splits_among(splits: Splits, rows: Rows, n: int) -> list[tuple[Rows, Rows]]:
    """Return `splits` of n rows as places in `rows`, those that keep rows on both sides.

    Raises:
        TooLittleDataError: there are none.
    """
    place = np.full(n, -1)
    place[rows] = np.arange(len(rows))
    parts = [(place[training], place[held_out]) for training, held_out in splits]
    kept = [(training[training >= 0], held_out[held_out >= 0]) for training, held_out in parts]
    kept = [(training, held_out) for training, held_out in kept if len(training) > 1 and len(held_out) > 1]
    if not kept:
        raise TooLittleDataError("no pairs can be held out to judge by", expected="pairs all over the recording")
    return kept


def _tested(
    partner: str,
    score: Callable[..., NDArray[np.float64]],
    shuffler: Shuffler,
    chance: NDArray[np.float64],
    gallery: float,
    groups: Rows | None,
    share: int,
    progress: Progress,
) -> Evidence:
    shuffles = SHUFFLES // 2 * (share + 1) - 1
    tested = permutation_test(score, shuffler, shuffles, lambda done: progress(f"shuffle {partner}", done, shuffles))
    judged = ~np.isnan(tested.scores)
    gains = (tested.scores - chance)[judged]
    units = shuffler.membership(len(chance)) if groups is None or len(np.unique(groups)) < 2 else groups
    return Evidence(
        partner=partner,
        n=int(judged.sum()),
        gallery=gallery,
        mrr=float(tested.scores[judged].mean()),
        chance=float(chance[judged].mean()),
        shuffled=tested.shuffled,
        gain=float(gains.mean()),
        interval=bootstrap_interval(gains, units[judged]),
        p=tested.p,
        stretches=shuffler.stretches,
        pairings=shuffler.pairings,
    )
