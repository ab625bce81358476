"""From prepared members to fitted adapters: closed-form starts, cross-validation, training, fold in place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_cmcl.continual.alignment import PENALTIES, canonical, ridge, unit_scale
from edge_cmcl.device.features import unit
from edge_cmcl.device.judging import Judge
from edge_cmcl.device.members import Member
from edge_cmcl.device.training import MAX_EPOCHS, Array, Problem, no_change, train
from edge_cmcl.progress import Progress, silent

FOLDS = 5
ENOUGH_JUDGED = 1000
"""Folds are cross-validated until this many pairs have been held out; more would only narrow the interval."""

PATIENCE = 5
"""A fold stops this many epochs after its best one."""

_JUDGING_SHARE = 0.6
"""Share of a time budget that cross-validation may take; the rest is for the fit on all pairs."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Start:
    """Adapters before training.

    Attributes:
        problem: base embeddings and inputs of every member.
        maps: (d, r) float32 per member, its start in reduced coordinates; None for a known modality.
    """

    problem: Problem
    maps: tuple[Array | None, ...]


@dataclass(frozen=True)
class CrossValidation:
    """What held-out pairs say, every pair judged by adapters that have not seen it.

    Attributes:
        penalty: chosen ridge penalty, in units of the mean eigenvalue; None where no adapter is new.
        epochs: chosen number of epochs, 0 where training after the closed-form start does not help.
        judge: held the scores of each pair of modalities before training and after the chosen epochs.
        scores: (MAX_EPOCHS + 1, pairs, n) float64 reciprocal ranks by epoch; NaN where not judged.
        gallery: per pair of modalities, the mean number of candidates that a held-out row was ranked among.
        complete: False where a time budget ended it early.
    """

    penalty: float | None
    epochs: int
    judge: Judge
    scores: NDArray[np.float64]
    gallery: tuple[float, ...]
    complete: bool


def start(members: Sequence[Member], ids: NDArray[np.int64], rows: Rows, penalty: float, dimensions: int) -> Start:
    """Return the adapters of all members before training, those of new modalities fitted on `rows` in closed form.

    A new modality starts from ridge regression onto the mean embedding of its known partners; where nothing is known
    yet, the anchor and its first partner start from their canonical correlations, and other partners follow by ridge.

    Args:
        members: the anchor first.
        ids: (S, n) int64, as in `Problem`.
        rows: rows to fit on.
        penalty: in units of the mean eigenvalue of the features.
        dimensions: d.
    """
    maps: list[Array | None] = [None] * len(members)
    base: list[Array | None] = [None if member.new else member.base for member in members]

    def set_map(index: int, map_: NDArray[np.float64], used: Rows) -> None:
        scaled = unit_scale(map_, members[index].reduced[used]).astype(np.float32)
        maps[index] = scaled
        base[index] = members[index].reduced @ scaled.T

    def strength(index: int, used: Rows) -> float:
        return float(penalty * len(used) / members[index].directions.shape[1])

    if base[0] is None:
        known = [index for index in range(1, len(members)) if base[index] is not None]
        if known:
            used, targets = _mean_embedding([base[i] for i in known], [ids[i - 1] >= 0 for i in known], rows)
            set_map(0, ridge(members[0].reduced[used], targets, strength(0, used)), used)
        else:
            used = rows[ids[0, rows] >= 0]
            both = canonical(members[0].reduced[used], members[1].reduced[used], strength(0, used), dimensions)
            set_map(0, both[0], used)
            set_map(1, both[1], used)
    for index in range(1, len(members)):
        if base[index] is None:
            used = rows[ids[index - 1, rows] >= 0]
            targets = unit(np.asarray(base[0])[used])
            set_map(index, ridge(members[index].reduced[used], targets, strength(index, used)), used)
    ready = [array for array in base if array is not None]
    return Start(Problem(ready, [member.inputs for member in members], ids), tuple(maps))


def cross_validate(
    session: ort.InferenceSession,
    members: Sequence[Member],
    ids: NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    dimensions: int,
    *,
    seed: int = 0,
    deadline: float = float("inf"),
    progress: Progress = silent,
) -> CrossValidation:
    """Choose penalty and epochs, and judge the update, on the held-out rows of `splits`.

    The judgement is that of the chosen epoch and penalty on the pairs they were chosen by: slightly optimistic.
    """
    began = time.monotonic()
    deadline = began + (deadline - began) * _JUDGING_SHARE
    judge = Judge(members, ids)
    splits = judged_splits(splits)
    penalty = choose_penalty(members, ids, splits, judge, dimensions, deadline=deadline)
    scores = np.full((MAX_EPOCHS + 1, len(judge.pairs), ids.shape[1]), np.nan)
    complete = True
    for done, (training, held_out) in enumerate(splits):
        started = start(members, ids, training, penalty or PENALTIES[0], dimensions)
        share = time.monotonic() + (deadline - time.monotonic()) / (len(splits) - done)
        complete &= _Fold(started.problem, training, held_out, judge, scores).run(session, seed, share)
        progress("cross-validate", done + 1, len(splits))
    epochs = int(np.nanmean(scores[:, judge.learned], axis=(1, 2)).argmax())
    gallery = judge.gallery([held_out for _, held_out in splits])
    return CrossValidation(penalty, epochs, judge, scores, gallery, complete)


def fit(
    session: ort.InferenceSession,
    members: Sequence[Member],
    ids: NDArray[np.int64],
    chosen: CrossValidation,
    dimensions: int,
    *,
    seed: int = 0,
    deadline: float = float("inf"),
    progress: Progress = silent,
) -> tuple[list[Array], int, int]:
    """Fit all members on every row as cross-validation chose.

    Returns:
        Adapters W + M N^T, training steps done, and whole epochs done: fewer than chosen where the deadline came first.
    """
    rows = np.arange(ids.shape[1])
    started = start(members, ids, rows, chosen.penalty or PENALTIES[0], dimensions)

    done = 0

    def after(epoch: int, changes: Array) -> bool:
        nonlocal done
        done = epoch
        progress("train", epoch, chosen.epochs)
        return True

    changes, steps = train(session, started.problem, rows, after, epochs=chosen.epochs, seed=seed, deadline=deadline)
    weights = [fold(member, map_, change) for member, map_, change in zip(members, started.maps, changes, strict=True)]
    return weights, steps, done


def fold(member: Member, map_: Array | None, changes: Array) -> Array:
    """Return the adapter W + M N^T (d, width) float32 (design.md section 2, step 4)."""
    base = member.weight if member.weight is not None else np.asarray(map_) @ member.directions
    return np.ascontiguousarray(base + changes[:, : member.space.shape[1]] @ member.space.T, dtype=np.float32)


@dataclass(frozen=True)
class _Fold:
    """One fold of cross-validation; fills its held-out rows of `scores` (MAX_EPOCHS + 1, pairs, n)."""

    problem: Problem
    training: Rows
    held_out: Rows
    judge: Judge
    scores: NDArray[np.float64]

    def run(self, session: ort.InferenceSession, seed: int, deadline: float) -> bool:
        """Train and score after every epoch; return whether the deadline left time for all of it."""
        best, best_epoch, last = -1.0, 0, 0

        def after(epoch: int, changes: Array) -> bool:
            nonlocal best, best_epoch, last
            self.scores[epoch][:, self.held_out] = self.judge.scores(self.problem, changes, self.held_out)
            last = epoch
            value = float(np.nanmean(self.scores[epoch][self.judge.learned][:, self.held_out]))
            if value > best:
                best, best_epoch = value, epoch
            return epoch - best_epoch < PATIENCE

        after(0, no_change(self.problem))
        train(session, self.problem, self.training, after, seed=seed, deadline=deadline)
        self.scores[last + 1 :][:, :, self.held_out] = self.scores[last][:, self.held_out]
        return time.monotonic() < deadline


def choose_penalty(
    members: Sequence[Member],
    ids: NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    judge: Judge,
    dimensions: int,
    *,
    deadline: float = float("inf"),
) -> float | None:
    """Return the largest penalty within one standard error of the best held-out MRR, None where no adapter is new.

    The rule of L. Breiman et al. (CART, 1984): between penalties that the folds cannot tell apart, the simpler fit.
    After the deadline no further fold is tried; the first one always is.
    """
    if not any(member.new for member in members):
        return None
    by_fold: list[list[float]] = []
    for training, held_out in splits:
        if by_fold and time.monotonic() >= deadline:
            break
        scores_of_fold = []
        for penalty in PENALTIES:
            problem = start(members, ids, training, penalty, dimensions).problem
            found = judge.scores(problem, no_change(problem), held_out)[judge.learned]
            scores_of_fold.append(float(np.nanmean(found)))
        by_fold.append(scores_of_fold)
    scores = np.array(by_fold).T
    means = scores.mean(axis=1)
    best = int(means.argmax())
    error = scores[best].std() / np.sqrt(len(by_fold))
    return PENALTIES[int(np.flatnonzero(means >= means[best] - error).max())]


def judged_splits(splits: Sequence[tuple[Rows, Rows]]) -> Sequence[tuple[Rows, Rows]]:
    """Return those of `splits` that cross-validation works through, see `ENOUGH_JUDGED`."""
    held_out = np.cumsum([len(rows) for _, rows in splits])
    return splits[: int(np.searchsorted(held_out, ENOUGH_JUDGED)) + 1]


def _mean_embedding(
    bases: Sequence[Array | None], present: Sequence[NDArray[np.bool_]], rows: Rows
) -> tuple[Rows, Array]:
    used = rows[np.any([flags[rows] for flags in present], axis=0)]
    parts = [unit(np.asarray(base)[used]) * flags[used, None] for base, flags in zip(bases, present, strict=True)]
    return used, unit(np.sum(parts, axis=0))
