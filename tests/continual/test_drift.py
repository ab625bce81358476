from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from edge_cmcl.continual.drift import (
    FALSE_ALARMS,
    SIZES,
    batch_figures,
    outside,
    range_of,
    residuals,
    student,
    threshold_for,
    thresholds,
)
from edge_cmcl.continual.update_space import hard

WIDTH = 40


def part(random: np.random.Generator, n: int = 128) -> NDArray[np.float64]:
    """Residuals of one subject: its own offset, and windows that vary around it with an energy of their own each."""
    own = 0.3 * random.standard_normal(WIDTH)
    lengths = np.exp(0.3 * random.standard_normal((n, 1)))
    return own + lengths * random.standard_normal((n, WIDTH))


@pytest.mark.parametrize("p", [0.95, 0.99, 0.995])
@pytest.mark.parametrize("df", [1.0, 2.0, 3.0, 4.0, 7.5, 30.0, 1000.0])
def test_student_is_within_three_percent_of_the_quantile(p: float, df: float) -> None:
    assert student(p, df) == pytest.approx(stats.t.ppf(p, df), rel=0.03)


def test_student_between_the_exact_degrees_of_freedom_is_no_smaller_than_the_quantile() -> None:
    for df in (1.5, 2.5):
        assert student(0.99, df) >= stats.t.ppf(0.99, df)


def test_nothing_of_what_was_learned_is_outside_and_all_of_the_rest_is() -> None:
    random = np.random.default_rng(0)
    directions = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0]
    held = hard(directions[:5])
    inside, other = random.standard_normal((7, 5)) @ directions[:5], 3.0 * directions[5:7]
    assert outside(residuals(inside, held).mean(axis=0)) == pytest.approx(0.0, abs=1e-10)
    assert outside(residuals(other, held)[0]) == pytest.approx(9.0 / WIDTH, rel=1e-5)


def test_figures_of_batches_are_those_of_the_mean_of_consecutive_rows() -> None:
    rows = part(np.random.default_rng(1), 20)
    found = batch_figures(rows, 4)
    assert len(found) == 17
    for start in (0, 5, 16):
        assert found[start] == pytest.approx(outside(rows[start : start + 4].mean(axis=0)))


def test_of_parts_never_seen_about_as_many_batches_are_beyond_the_threshold_as_it_says() -> None:
    random = np.random.default_rng(2)
    beyond = dict.fromkeys((1, 8, 32), 0.0)
    for _ in range(25):
        found = thresholds([part(random) for _ in range(5)])
        for size in beyond:
            new = [batch_figures(part(random), size) for _ in range(5)]
            beyond[size] += float(np.mean([(figures > found[size]).mean() for figures in new])) / 25
    for size, rate in beyond.items():
        assert rate <= 2.5 * FALSE_ALARMS, size
    assert beyond[1] >= 0.2 * FALSE_ALARMS, "a threshold that nothing exceeds detects nothing"


def test_what_moves_every_window_is_told_from_normal_ones_and_the_better_the_more_there_are() -> None:
    random = np.random.default_rng(3)
    found = thresholds([part(random) for _ in range(5)])
    moved = np.full(WIDTH, 0.7)
    rates = []
    for size in (1, 8, 32):
        figures = [batch_figures(part(random) + moved, size) for _ in range(20)]
        rates.append(float(np.mean([(each > found[size]).mean() for each in figures])))
    assert rates == sorted(rates)
    assert rates[0] < 0.5
    assert rates[-1] > 0.95


def test_larger_batches_are_allowed_less_and_sizes_end_with_the_shortest_part() -> None:
    random = np.random.default_rng(4)
    found = thresholds([part(random, n) for n in (128, 100, 35)])
    assert list(found) == [size for size in SIZES if size <= 35]
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_one_part_or_single_windows_say_nothing_of_other_parts() -> None:
    random = np.random.default_rng(5)
    assert thresholds([part(random)]) == {}
    assert thresholds([part(random), part(random, 1)]) == {}


def test_a_batch_takes_the_threshold_of_the_next_smaller_size() -> None:
    known = {1: 0.5, 2: 0.4, 4: 0.3}
    assert [threshold_for(known, n) for n in (0, 1, 3, 4, 1000)] == [None, 0.5, 0.4, 0.3, 0.3]
    assert threshold_for({}, 3) is None


def test_the_range_of_a_figure_holds_those_of_new_parts() -> None:
    random = np.random.default_rng(6)
    outside_of_it = 0
    for _ in range(500):
        low, high = range_of(np.exp(random.standard_normal(5)).tolist())
        outside_of_it += not low <= float(np.exp(random.standard_normal())) <= high
    assert 1 <= outside_of_it <= 500 * 2 * FALSE_ALARMS * 2
