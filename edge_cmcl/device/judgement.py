"""Judging a generation on the pairs that this device kept back (`held_out`): its own, or one that it is offered."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import Layout
from edge_cmcl.bundle.attested import JudgedPair
from edge_cmcl.bundle.limits import MAX_JUDGED
from edge_cmcl.continual.metrics import bootstrap_interval, ranks
from edge_cmcl.device.features import standardise, unit
from edge_cmcl.device.held_out import BLOCKS, HeldOut, HeldOutWarning, encoder_of, read, saved
from edge_cmcl.device.judging import label_ranks
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.text import TEXT, label_features
from edge_cmcl.errors import DataError

Array = NDArray[np.float32]
Ranks = NDArray[np.float64]
Rows = NDArray[np.int64]

LEVEL = 0.95
"""Of the intervals of all changes of one judgement together."""

MARGIN = 0.05
"""Share of its MRR that a pair may lose to a generation that is offered."""

MIN_JUDGED = 5
"""Fewer pairs say nothing."""


def kept_pairs(store: Layout) -> list[HeldOut]:
    """Return the pairs that the device kept back; files that cannot be read are left out, with a warning.

    Warns:
        HeldOutWarning: a file cannot be read.
    """
    found = []
    for path in saved(store).values():
        try:
            found.append(read(path))
        except DataError as error:
            warnings.warn(f"{error.message}: it is left out of the judgement", HeldOutWarning, stacklevel=2)
    return found


def judge(model: Model, kept: Iterable[HeldOut], against: Model | None = None) -> tuple[JudgedPair, ...]:
    """Return how well `model` finds the partners of pairs that were never trained on.

    A pair of modalities is left out where the model does not know both, encodes one in another way, or has too few;
    beyond `MAX_JUDGED` pairs the rest is. Intervals are of changes of all pairs together (Bonferroni): the more pairs
    there are, the wider each is.

    Args:
        model: to be judged.
        kept: the pairs.
        against: the generation in use, where another one is judged.
    """
    asked = [(held, pair) for held in kept for pair in combinations(held.members, 2)][:MAX_JUDGED]
    level = 1.0 - (1.0 - LEVEL) / max(len(asked), 1)
    found = [_judged(model, held, pair, against, level) for held, pair in asked]
    return tuple(judged for judged in found if judged is not None)


def worse(judged: Iterable[JudgedPair]) -> list[JudgedPair]:
    """Return the pairs that have surely lost more than `MARGIN` of their MRR, the worst first (non-inferiority).

    A merge knows more than a device did; what it costs for that may be a little, and few pairs say little.
    """
    compared = [pair for pair in judged if pair.change is not None and pair.before is not None]
    found = [pair for pair in compared if not (pair.change or (0, 0))[1] >= -MARGIN * (pair.before or 0.0)]
    return sorted(found, key=lambda pair: pair.change or (0.0, 0.0))


def _judged(
    model: Model, held: HeldOut, pair: tuple[str, str], against: Model | None, level: float
) -> JudgedPair | None:
    found = _ranks(model, held, pair)
    if found is None:
        return None
    after, gallery, rows = found
    before = _ranks(against, held, pair) if against is not None else None
    scores = (1.0 / after).mean(axis=0)
    runs = rows * BLOCKS // held.n  # rows of one run of the recording resemble each other
    earlier = None if before is None else (1.0 / before[0]).mean(axis=0)
    return JudgedPair(
        modalities=pair,
        origin=held.origin,
        n=after.shape[1],
        gallery=gallery,
        mrr=float(scores.mean()),
        recall_at_1=float((after <= 1).mean()),
        recall_at_10=float((after <= 10).mean()),
        before=None if earlier is None else float(earlier.mean()),
        change=None if earlier is None else bootstrap_interval(scores - earlier, runs, level=level),
    )


def _ranks(model: Model, held: HeldOut, pair: tuple[str, str]) -> tuple[Ranks, int, Rows] | None:
    """Return the ranks (directions, n) of true partners, the gallery's size and the rows (n,); None for no answer.

    Against the labels there is one direction: each window's label among all.
    """
    if not all(usable(model, held, name) for name in pair):
        return None
    if TEXT in pair:
        sensor = next(name for name in pair if name != TEXT)
        labels = np.asarray(held.labels)
        rows = np.flatnonzero(held.valid[sensor] & (labels >= 0))
        if len(rows) < MIN_JUDGED:
            return None
        texts = unit(label_features(held.label_names) @ model.adapter(TEXT).weight.T)
        similarity = embedded(model, held, sensor, rows) @ texts.T
        return label_ranks(similarity, labels[rows])[None], len(texts), rows
    rows = np.flatnonzero(held.valid[pair[0]] & held.valid[pair[1]])
    if len(rows) < MIN_JUDGED:
        return None
    similarity = embedded(model, held, pair[0], rows) @ embedded(model, held, pair[1], rows).T
    return np.stack([ranks(similarity), ranks(similarity.T)]), len(rows), rows


def usable(model: Model, held: HeldOut, name: str) -> bool:
    """Return whether `model` knows the member `name` and encodes it as it did when it was kept back."""
    if name not in model.modalities:
        return False
    if name == TEXT:
        return True
    record = model.record(name)
    return encoder_of(record) == held.encoders[name] and held.raw[name].shape[1] == record.width


def embedded(model: Model, held: HeldOut, name: str, rows: NDArray[np.int64]) -> Array:
    """Return unit embeddings (len(rows), d) of the sensor `name` in `rows`."""
    adapter = model.adapter(name)
    return unit(standardise(held.raw[name][rows], statistics_of(adapter)) @ adapter.weight.T)
