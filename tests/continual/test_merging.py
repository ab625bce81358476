from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from origin_samples import WIDTH, origin, sketch, unit_rows

from edge_cmcl.continual.merging import (
    RIDGE,
    Lesson,
    Move,
    common_statistics,
    groups_of,
    merged_adapter,
    moved_displacement,
    moved_sketch,
)
from edge_cmcl.continual.sketch import FrequentDirections, Sketch

D = 6
CLIP = 8.0

Floats = NDArray[np.float64]


def exact(rows: Floats) -> Sketch:
    """A sketch that holds the whole second moment of `rows`, but for float16."""
    directions = FrequentDirections(WIDTH, WIDTH)
    directions.update(rows)
    return directions.sketch(WIDTH, kept_energy=1.0)


def adapter(seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((D, WIDTH))


def even(moment: Floats) -> Floats:
    """The ridge of one moment."""
    return np.asarray(RIDGE * np.trace(moment) / WIDTH * np.eye(WIDTH))


def moment_of(sketched: Sketch) -> Floats:
    rows = sketched.rows.astype(np.float64)
    return np.asarray(rows.T @ rows)


def move(seed: int) -> Move:
    random = np.random.default_rng(seed)
    return Move(random.uniform(0.2, 1.0, WIDTH), random.normal(0.0, 0.4, WIDTH), 1.3 / WIDTH)


def windows(seed: int, n: int = 60) -> tuple[Floats, Floats]:
    """Scores (n, width) that are not centred, and their lengths (n, 1), which differ and go with the scores."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal((n, WIDTH)) * random.uniform(0.5, 2.0, (n, 1)) + 0.3 * random.random(WIDTH)
    return scores, np.linalg.norm(scores, axis=1, keepdims=True)


def test_ridge_fits_on_parts_merge_into_the_ridge_fit_on_all_of_it() -> None:
    parts, targets = [unit_rows(seed) for seed in range(3)], [unit_rows(seed)[:, :D] for seed in (7, 8, 9)]
    crosses = [y.T @ x / len(x) for x, y in zip(parts, targets, strict=True)]
    moments = [x.T @ x / len(x) for x in parts]
    fits = [np.linalg.solve(moment + even(moment), cross.T).T for cross, moment in zip(crosses, moments, strict=True)]
    lessons = [Lesson(1.0, exact(x), fit, share=1.0) for x, fit in zip(parts, fits, strict=True)]
    all_of_it = np.sum(moments, axis=0) + even(np.mean(moments, axis=0))
    wanted = np.linalg.solve(all_of_it, np.sum(crosses, axis=0).T).T
    merged = merged_adapter(lessons, groups=3)
    assert merged.dtype == np.float32
    assert np.abs(merged - wanted).max() < 0.01 * np.abs(wanted).max()
    assert min(np.abs(fit - wanted).max() for fit in fits) > 0.2 * np.abs(wanted).max()


def test_no_other_adapter_moves_what_was_learned_less() -> None:
    weights = (1.0, 0.5, 2.0)
    lessons = [Lesson(w, sketch(unit_rows(seed)), adapter(seed), w / 3.5) for seed, w in enumerate(weights)]
    merged = merged_adapter(lessons).astype(np.float64)

    def moved(weight: Floats) -> float:
        total = 0.0
        for lesson in lessons:
            seen = moment_of(lesson.sketch)
            rest = (lesson.sketch.trace - np.trace(seen) + RIDGE / 3.5 * lesson.sketch.trace) / WIDTH
            change = weight - lesson.learned
            total += lesson.weight * float(np.trace(change @ (seen + rest * np.eye(WIDTH)) @ change.T))
        return total

    least = moved(merged)
    for seed in range(5):
        assert moved(merged + 0.01 * adapter(10 + seed)) > least


def test_devices_that_share_an_origin_are_one_group() -> None:
    a, b, c = (origin(name, seed) for seed, name in enumerate("abc"))
    archived = replace(origin("archive", 4), absorbed=(("a", 0), ("d", 0)))
    assert groups_of([(a,), (b,)], (a, b)) == [0, 1]
    assert groups_of([(a, b), (b, c)], (a, b, c)) == [0, 0, 0]
    assert groups_of([(a,), (b,), (a, c)], (a, b, c)) == [0, 1, 0]
    assert groups_of([(a,), (b,), (b, c), (a, c)], (a, b, c)) == [0, 0, 0]
    assert groups_of([(a,), (b,), (archived,)], (archived, b)) == [0, 1]


def test_what_all_agree_on_stays_and_the_order_does_not_matter() -> None:
    same = [Lesson(1.0, sketch(unit_rows(seed)), adapter(0), 1 / 3) for seed in range(3)]
    assert np.allclose(merged_adapter(same), adapter(0), atol=1e-5)
    lessons = [Lesson(1.0, sketch(unit_rows(seed)), adapter(seed), 1 / 3) for seed in range(3)]
    assert np.allclose(merged_adapter(lessons), merged_adapter(lessons[::-1]), atol=1e-5)


def test_a_merge_of_a_merge_is_the_merge_of_all() -> None:
    lessons = [Lesson(1.0, sketch(unit_rows(seed)), adapter(seed), share=1.0) for seed in range(3)]
    first = merged_adapter(lessons[:2], groups=2)
    again = [Lesson(1.0, lesson.sketch, first, share=0.5) for lesson in lessons[:2]]
    both = merged_adapter([*again, lessons[2]], groups=2)
    assert np.allclose(both, merged_adapter(lessons, groups=3), atol=1e-4)


def test_a_single_lesson_under_other_deviations_keeps_every_embedding() -> None:
    scaled = Move(np.linspace(0.1, 1.0, WIDTH), np.zeros(WIDTH), 0.0)
    merged = merged_adapter([Lesson(1.0, sketch(unit_rows(0)), adapter(0), 1.0, scaled)])
    assert np.allclose(merged * scaled.factors, adapter(0), atol=1e-4)


def test_a_moved_mean_is_fitted_better_than_it_is_carried_along() -> None:
    scores, lengths = windows(3)
    scores -= scores.mean(axis=0)
    other = Move(np.ones(WIDTH), np.full(WIDTH, 1.5), float((1 / lengths**2).mean()))
    x, moved = scores / lengths, (scores - other.shift) / lengths
    merged = merged_adapter([Lesson(1.0, exact(x), adapter(0), 1.0, other)])

    def lost(weight: Floats) -> float:
        return float(np.square(moved @ weight.T - x @ adapter(0).T).mean())

    assert lost(merged.astype(np.float64)) < 0.5 * lost(adapter(0))


def test_under_common_statistics_nothing_is_clipped_that_was_not_before() -> None:
    random = np.random.default_rng(0)
    means, deviations = random.normal(0, 3, (4, WIDTH)), 10.0 ** random.uniform(-3, 1, (4, WIDTH))
    mean, deviation = common_statistics(means, deviations, np.array([0.1, 0.2, 0.3, 0.4]), CLIP)
    assert np.allclose(mean, np.array([0.1, 0.2, 0.3, 0.4]) @ means, atol=1e-5)
    for own_mean, own_deviation in zip(means, deviations, strict=True):
        for score in (-CLIP, CLIP):
            assert (np.abs(own_mean + score * own_deviation - mean) / deviation <= CLIP * (1 + 1e-5)).all()
    alone = common_statistics(means[:1], deviations[:1], np.ones(1), CLIP)
    assert np.allclose(alone[0], means[0])
    assert np.allclose(alone[1], deviations[0])


@pytest.mark.parametrize("seed", range(4))
def test_a_moved_sketch_is_above_the_moment_of_the_moved_features(seed: int) -> None:
    scores, lengths = windows(seed)
    other = move(seed)
    other = Move(other.factors, other.shift, float((1 / lengths**2).mean()))
    moved = (scores / lengths - other.shift / lengths) * other.factors
    found = moved_sketch(sketch(scores / lengths), other)
    short = moment_of(found) + found.delta * np.eye(WIDTH) - moved.T @ moved / len(moved)
    assert np.linalg.eigvalsh(short)[0] > -1e-6
    assert found.n == len(scores)
    assert found.trace < 3.0 * float(np.square(moved).sum(axis=1).mean())


@pytest.mark.parametrize("seed", range(4))
def test_the_displacement_of_a_moved_origin_is_bounded_and_not_far_below_the_bound(seed: int) -> None:
    scores, lengths = windows(seed)
    other = Move(move(seed).factors, move(seed).shift, float((1 / lengths**2).mean()))
    learned = adapter(seed)
    now = (learned + 0.3 * adapter(seed + 20)) / other.factors
    moved = (scores / lengths - other.shift / lengths) * other.factors
    real = float(np.square(moved @ now.T - scores / lengths @ learned.T).sum(axis=1).mean())
    every = np.ones(WIDTH, np.bool_)
    few = np.arange(WIDTH) < 3
    bounds = [
        moved_displacement(learned, sketch(scores / lengths), now, other, clipped, outputs)
        for clipped, outputs in ((0.0, every), (0.01, ~every), (0.01, few), (0.01, every))
    ]
    assert real <= bounds[0] == bounds[1] < 5.0 * real
    assert bounds[1] < bounds[2] < bounds[3]
