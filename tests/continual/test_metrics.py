from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edge_cmcl.continual.metrics import (
    backward_transfer,
    bootstrap_interval,
    chance_mrr,
    classification,
    final_average,
    forgetting,
    mean_average_precision,
    mean_reciprocal_rank,
    plasticity,
    ranks,
    recall_at,
    retrieval,
)

Floats = NDArray[np.float64]

SIMILARITY = np.array(
    [
        [0.9, 0.1, 0.2, 0.3],  # rank 1
        [0.8, 0.5, 0.7, 0.1],  # rank 3
        [0.4, 0.4, 0.4, 0.9],  # one ahead, two level: rank 3
        [0.5, 0.5, 0.5, 0.5],  # three level: rank 2.5
    ]
)

# matrix[t, i]: score of pair i after step t; what stands above the diagonal was not learned yet.
STREAM = np.array([[0.8, 0.1, 0.0], [0.9, 0.6, 0.2], [0.5, 0.7, 0.4]])


def test_ranks_count_what_is_ahead_and_half_of_what_is_level() -> None:
    np.testing.assert_array_equal(ranks(SIMILARITY), [1.0, 3.0, 3.0, 2.5])


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.int8, st.integers(1, 8).map(lambda n: (n, n)), elements=st.integers(0, 3)))
def test_ranks_are_the_mean_over_all_ways_to_break_ties(similarity: NDArray[np.int8]) -> None:
    found = ranks(similarity.astype(np.float32))
    for query, row in enumerate(similarity):
        ahead = sum(int(value > row[query]) for value in row)
        level = sum(int(value == row[query]) for i, value in enumerate(row) if i != query)
        possible = range(ahead + 1, ahead + level + 2)
        assert found[query] == np.mean(possible)


def test_recall_and_reciprocal_rank_by_hand() -> None:
    rank = np.array([1.0, 3.0, 3.0, 2.5])
    assert recall_at(rank, 1) == 0.25
    assert recall_at(rank, 2) == 0.25
    assert recall_at(rank, 3) == 1.0
    assert mean_reciprocal_rank(rank) == pytest.approx((1 + 1 / 3 + 1 / 3 + 1 / 2.5) / 4)


def test_retrieval_reports_both_directions_and_their_mean() -> None:
    a = np.eye(4)
    b = np.array([[1.0, 0.0, 0.0, 0.0], [0.9, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    found = retrieval(a, b)
    # From a, every query finds its own first; from b, the second row is nearer to the first of a.
    assert found["recall_at_1_forward"] == 1.0
    assert found["recall_at_1_backward"] == 0.75
    assert found["recall_at_1"] == 0.875
    assert found["recall_at_5"] == found["recall_at_10"] == 1.0
    assert found["mrr"] == pytest.approx((1.0 + (1 + 0.5 + 1 + 1) / 4) / 2)
    assert found["n"] == 4
    assert found["chance_recall_at_10"] == 1.0
    assert found["chance_mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_chance_levels_are_what_random_embeddings_score() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.standard_normal((2, 60, 16)))
        found.append(retrieval(a, b))
    for k in (1, 5, 10):
        assert np.mean([f[f"recall_at_{k}"] for f in found]) == pytest.approx(k / 60, abs=0.02)
    assert found[0]["chance_recall_at_10"] == pytest.approx(10 / 60)
    assert np.mean([f["mrr"] for f in found]) == pytest.approx(found[0]["chance_mrr"], abs=0.01)


def test_embeddings_that_are_all_alike_are_not_perfect() -> None:
    alike = np.ones((30, 1))
    found = retrieval(alike, alike)
    assert found["recall_at_10"] == 0.0
    assert found["mrr"] == pytest.approx(1 / 15.5)
    assert found["mrr"] < found["chance_mrr"]


def test_broken_embeddings_score_last() -> None:
    a = np.eye(4)
    a[1] = np.nan
    similarity = a @ np.eye(4)
    assert ranks(similarity).tolist() == [1.0, 4.5, 1.0, 1.0]
    assert ranks(similarity.T).tolist() == [2.0, 4.5, 2.0, 2.0]


@pytest.mark.parametrize(("n", "expected"), [(1, 1.0), (2, 0.75), (10, 0.29289682539682538)])
def test_chance_mrr_by_hand(n: int, expected: float) -> None:
    assert chance_mrr(n) == pytest.approx(expected)


def test_mean_average_precision_by_hand() -> None:
    similarity = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4], [0.5, 0.4, 0.3, 0.2]])
    relevant = np.array([[True, False, True, False], [True, True, False, False], [False] * 4])
    # Query 1 finds its two at 1 and 3, query 2 at 3 and 4, query 3 has none and is left out.
    expected = ((1 / 1 + 2 / 3) / 2 + (1 / 3 + 2 / 4) / 2) / 2
    assert mean_average_precision(similarity, relevant) == pytest.approx(expected)
    assert mean_average_precision(similarity, np.zeros_like(relevant)) == 0.0


def test_classification_by_hand() -> None:
    labels = np.array([0, 1, 2, 0])
    embeddings = np.eye(3)[[0, 1, 0, 0]]
    found = classification(embeddings, np.eye(3), labels)
    assert found["n"] == 4
    assert found["accuracy"] == 0.75
    assert found["chance_accuracy"] == pytest.approx(1 / 3)
    # Label 0 finds windows 0, 2, 3 level, its own at places 1 and 3; label 1 is perfect; label 2 has its one at 3.
    assert found["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1 + 1 / 3) / 3)


def test_stream_metrics_by_hand() -> None:
    assert final_average(STREAM) == pytest.approx((0.5 + 0.7 + 0.4) / 3)
    assert backward_transfer(STREAM) == pytest.approx(((0.5 - 0.8) + (0.7 - 0.6)) / 2)
    # The second pair is best at the very end: it has gained, which counts against what the first one lost.
    assert forgetting(STREAM) == pytest.approx(((0.9 - 0.5) + (0.6 - 0.7)) / 2)
    assert plasticity(STREAM) == pytest.approx((0.8 + 0.6 + 0.4) / 3)


def test_what_was_not_learned_yet_does_not_count() -> None:
    unknown = STREAM.copy()
    unknown[np.triu_indices(3, 1)] = np.nan
    for metric in (final_average, backward_transfer, forgetting, plasticity):
        assert metric(unknown) == metric(STREAM)


def test_a_single_step_can_neither_forget_nor_transfer() -> None:
    one = np.array([[0.7]])
    assert (backward_transfer(one), forgetting(one)) == (0.0, 0.0)
    assert final_average(one) == plasticity(one) == 0.7


def test_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(150):
        low, high = bootstrap_interval(rng.exponential(size=40), level=0.9, draws=200, seed=trial)
        hits += low <= 1.0 <= high
    assert 0.8 <= hits / 150 <= 0.97


def test_bootstrap_interval_narrows_with_more_values_and_a_lower_level() -> None:
    values = np.random.default_rng(0).standard_normal(400)

    def width(part: Floats, level: float = 0.95) -> float:
        low, high = bootstrap_interval(part, level=level)
        return high - low

    assert width(values) == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert width(values) < width(values[:100]) < width(values[:25])
    assert width(values, 0.5) < width(values, 0.9)


def test_whole_groups_are_drawn_so_correlated_windows_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 50)
    values = rng.standard_normal(10)[groups] + 0.1 * rng.standard_normal(500)
    plain, clustered = bootstrap_interval(values), bootstrap_interval(values, groups)
    # Ten independent recordings, not five hundred windows: about sqrt(50) times wider.
    assert clustered[1] - clustered[0] > 4 * (plain[1] - plain[0])
    assert clustered[0] < values.mean() < clustered[1]


def test_one_group_alone_is_resampled_by_value() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    assert bootstrap_interval(values, np.zeros(50, np.int64)) == bootstrap_interval(values)


def test_bootstrap_repeats_itself_and_takes_any_statistic() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    low, high = bootstrap_interval(values, statistic=lambda drawn: float(np.median(drawn)))
    assert low <= np.median(values) <= high
    assert bootstrap_interval(np.full(9, 0.25)) == (0.25, 0.25)
