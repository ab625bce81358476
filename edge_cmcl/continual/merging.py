"""Several adapters of one modality, learned apart, become one; only sketches and adapters are needed, no data.

Each origin o asks that its features keep the embedding that they had when they were learned, W_o x. So the merged
adapter is the one that moves all of them least, the minimum over W of

    sum over origins of  w_o * tr((W - W_o) (C_o + r_o I) (W - W_o)^T),

which is, up to the ridges r_o, the weighted sum of the certificates' displacements. It has a closed form,

    W = (sum w_o W_o (C_o + r_o I)) (sum w_o (C_o + r_o I))^-1,

and no common ancestor is asked for: a base that two devices share is one origin, and counts once. C_o is the sketch
B^T B, with what the sketch does not hold of the trace spread evenly. Cost: one product of (rows, width) per origin and
one solution of (width, width) in all.

**The ridge counts once.** A device fits a new sensor from nothing, with a ridge: W_o = R_o (C_o + r I)^-1, R_o being
the cross-moment of features and partner embeddings. So W_o (C_o + r I) is R_o itself, and all recordings together
would have given (sum R_o) (sum C_o + r I)^-1, with the ridge of one. Therefore origins are taken in groups, those of
devices that share one and so went on from a common adapter: a group has one ridge in the first sum, all groups
together have one in the second. With a common base there is one group, and what all agree on stays as it is.

Least squares on second moments to merge networks: X. Jin et al., "Dataless knowledge fusion by merging weights of
language models", ICLR 2023. There the moments are whole, of the inputs of the tuned models alone, and the pull towards
the diagonal is tuned by task.

**Other statistics.** Features of a sensor that two devices met by themselves were standardised differently. With mean
and standard deviation m_o, s_o of an origin and m, s in common, its scores z become D (z - h), D = s_o / s and
h = (m - m_o) / s_o. A window keeps the length that it had, so a feature x = z / |z| becomes D (x - t h), t = 1 / |z|.
Then C_o turns into D (C_o + T h h^T) D and W_o C_o into W_o C_o D, with T the mean of t^2 over windows; the mean of
t z is taken as 0, which it nearly is under an origin's own statistics. A constant W_o h that an adapter without bias
cannot carry is thereby fitted as well as it can be.

An origin that has moved refers to the merged adapter from then on, and carries how far that has displaced it at most:
W_o in common scores, W_o D^-1, would be huge where an output hardly varied on one device. Nothing is lost for a later
merge: the origins are one group from then on, and W times their second sum is what their first sum was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.certificate import displacement_bound
from edge_cmcl.continual.origin import Origins
from edge_cmcl.continual.sketch import Sketch, merge, rescale

RIDGE = 1.0
"""In units of the mean eigenvalue of an origin's second moment; flat from 0.3 to 3 (tests/bench/merging.md)."""

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Move:
    """How the features of an origin change with their statistics: x becomes D (x - t h).

    Attributes:
        factors: diagonal of D, (width,) positive, s_o / s.
        shift: h, (width,), the common mean in scores of the origin's own statistics.
        inverse_energy: T, mean over windows of 1 / |z|^2.
    """

    factors: NDArray[np.float64]
    shift: NDArray[np.float64]
    inverse_energy: float


@dataclass(frozen=True)
class Lesson:
    """What one origin asks of the merged adapter.

    Attributes:
        weight: w_o.
        sketch: of its features, under its own statistics.
        learned: W_o, (d, width), under its own statistics.
        share: of the ridge of its group; those of a group add up to 1.
        move: to the common statistics; None where they are its own.
    """

    weight: float
    sketch: Sketch
    learned: Floats
    share: float
    move: Move | None = None


def merged_adapter(lessons: Iterable[Lesson], groups: int = 1, ridge: float = RIDGE) -> NDArray[np.float32]:
    """Return the adapter (d, width) that moves the features of all `lessons` least.

    Holds one (width, width) matrix of float64, however many lessons there are; each is looked at once. A result beyond
    the range of float32 comes back as infinity.

    Args:
        lessons: at least one, of equal shapes, with a sketch whose trace is positive.
        groups: how many groups they form.
        ridge: positive, in units of the mean eigenvalue of each lesson's second moment.
    """
    moment, cross = np.zeros((0, 0)), np.zeros((0, 0))
    for lesson in lessons:
        d, width = lesson.learned.shape
        if not moment.size:
            moment, cross = np.zeros((width, width)), np.zeros((d, width))
        factors = lesson.move.factors if lesson.move else np.ones(width)
        rows = np.sqrt(lesson.weight) * lesson.sketch.rows.astype(np.float64)
        even = lesson.weight * _unseen(lesson.sketch) / width
        pull = ridge * lesson.share * lesson.sketch.trace / width
        cross += ((lesson.learned @ rows.T) @ rows + (even + pull) * lesson.learned) * factors
        if lesson.move:
            constant = np.sqrt(lesson.weight * lesson.move.inverse_energy) * lesson.move.shift
            rows = np.concatenate([rows, constant[None]]) * factors
        moment += rows.T @ rows
        moment[np.diag_indices(width)] += (even + pull / groups) * factors**2
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(np.linalg.solve(moment, cross.T).T, dtype=np.float32)


def groups_of(sets: Iterable[Origins], origins: Origins) -> list[int]:
    """Return the group, from 0, of each of `origins`: devices that share an origin have gone on from one adapter.

    Args:
        sets: the origins of each device.
        origins: their union.
    """
    groups: list[set[str]] = []
    for found in sets:
        names = {name for origin in found for name in (origin.id, *dict(origin.absorbed))}
        apart = [group for group in groups if group.isdisjoint(names)]
        groups = [*apart, names.union(*(group for group in groups if not group.isdisjoint(names)))]
    of = {name: place for place, group in enumerate(groups) for name in group}
    order = {place: number for number, place in enumerate(dict.fromkeys(of[origin.id] for origin in origins))}
    return [order[of[origin.id]] for origin in origins]


def common_statistics(
    means: Floats, deviations: Floats, shares: Floats, clip: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and standard deviation (width,) to which several statistics of one sensor are brought.

    The mean is pooled; the deviation is the smallest under which no score leaves +-`clip` that did not before: the
    largest of s_o + |m - m_o| / clip. How large it is does not matter otherwise, since embeddings have no length.

    Args:
        means: (k, width).
        deviations: (k, width), positive.
        shares: (k,), adding up to 1.
        clip: where scores are cut off.
    """
    mean = (shares[:, None] * means.astype(np.float64)).sum(axis=0).astype(np.float32)
    reach = deviations.astype(np.float64) + np.abs(means.astype(np.float64) - mean) / clip
    return mean, np.asarray(reach.max(axis=0), dtype=np.float32)


def moved_sketch(sketch: Sketch, move: Move) -> Sketch:
    """Return a sketch of M, at least the second moment of D (x - t h) in the positive semidefinite order.

    Whatever x and t have to do with each other, M = (1 + e) D C D + (1 + 1 / e) T D h h^T D will do for every e > 0; it
    is that of the smallest trace. A bound may be too large; `merged_adapter` takes what is likely instead.
    """
    scaled = rescale(sketch, move.factors)
    row = np.sqrt(move.inverse_energy) * move.factors * move.shift
    energy = float(np.square(row).sum())
    if energy == 0.0 or scaled.trace == 0.0:
        return scaled
    e = float(np.sqrt(energy / scaled.trace))
    constant = Sketch(row[None].astype(np.float32), 0, energy, 0.0)
    return merge([scaled, constant], [1.0 + e, 1.0 + 1.0 / e])


def moved_displacement(
    learned: Floats, sketch: Sketch, now: Floats, move: Move, clipped: float, outputs: NDArray[np.bool_]
) -> float:
    """Return a bound on the mean squared displacement of an origin whose adapter and statistics both change.

    That is E |W D (x - t h) - W_o x|^2, by the triangle inequality from |(W D - W_o) x|, |W D h| t and |W D| times what
    clipping took of x and takes less of now, W D of those outputs that it took it from.

    Args:
        learned: W_o (d, width), under the origin's own statistics.
        sketch: of its features under these.
        now: W (d, width), the adapter under the common ones, under which nothing is clipped that was not before.
        move: from its own to the common statistics.
        clipped: share of the features' energy that clipping took.
        outputs: (width,), where it took any.
    """
    back = now * move.factors
    fitted = np.sqrt(displacement_bound(back - learned, sketch))
    constant = np.linalg.norm(back @ move.shift) * np.sqrt(move.inverse_energy)
    # W_o as well, so that it still holds of an adapter that will have moved from W by as much as W_o is large.
    norms = [np.linalg.norm(weight[:, outputs], 2) for weight in (back, learned)] if outputs.any() else [0.0]
    return float((fitted + constant + sum(norms) * np.sqrt(clipped)) ** 2)


def _unseen(sketch: Sketch) -> float:
    """Return what the rows do not hold of the trace."""
    return max(0.0, sketch.trace - float(np.square(sketch.rows, dtype=np.float64).sum()))
