from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_cmcl.continual.alignment import ridge
from edge_cmcl.continual.dependence import (
    ENOUGH_EXCEEDED,
    PENALTIES,
    Comparison,
    Predictor,
    Shuffler,
    find_shuffler,
    permutation_test,
)
from edge_cmcl.data.splits import folds

Floats = NDArray[np.floating]
N, WIDTH, LATENT = 60, 40, 4


def unit(rows: Floats) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def sensor(latent: Floats, rng: np.random.Generator, noise: float = 0.5) -> NDArray[np.float32]:
    mixed = latent @ rng.standard_normal((latent.shape[1], WIDTH))
    return unit(mixed + noise * rng.standard_normal(mixed.shape))


def run(a: Floats, b: Floats, groups: NDArray[np.int64] | None = None, shuffler: Shuffler | None = None) -> Comparison:
    targets = (b @ b.T).astype(np.float32)
    predictor = Predictor.fit(a @ a.T, folds(len(a), groups, 5), WIDTH)
    chosen = shuffler or find_shuffler(a @ a.T, targets, groups)
    return permutation_test(lambda order=None: predictor.pair_scores(targets, order), chosen, 99)


def test_the_dual_form_ranks_as_ridge_regression_on_features_does() -> None:
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((N, LATENT))
    a, b = sensor(latent, rng), sensor(latent, rng)
    splits = folds(N, None, 5)
    scores = Predictor.fit(a @ a.T, splits, WIDTH).pair_scores(b @ b.T)
    for place, penalty in enumerate(PENALTIES):
        for training, held_out in splits:
            map_ = ridge(a[training], b[training], penalty * len(training) / WIDTH)
            similarity = a[held_out] @ map_.T @ b[held_out].T
            ranks = 1 + (similarity > np.diagonal(similarity)[:, None]).sum(axis=1)
            np.testing.assert_allclose(scores[place, held_out], 1.0 / ranks)


def test_labels_are_ranked_among_all_labels() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(N) % 3
    names = np.eye(3, dtype=np.float32)
    a = sensor(np.eye(3)[labels], rng, noise=0.1)
    predictor = Predictor.fit(a @ a.T, folds(N, None, 5), WIDTH)
    assert predictor.label_scores(names, labels).max(axis=0).mean() > 0.95
    shuffler = find_shuffler(a @ a.T, names[np.ix_(labels, labels)])
    tested = permutation_test(lambda order=None: predictor.label_scores(names, labels, order), shuffler, 99)
    assert tested.p <= 0.05
    assert 0.5 < tested.shuffled < 0.75  # by chance, of three: (1 + 1/2 + 1/3) / 3, and the best of three penalties


def test_sensors_of_one_latent_state_are_told_from_unrelated_ones_which_seldom_look_related() -> None:
    related, unrelated = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        latent = rng.standard_normal((N, LATENT))
        a = sensor(latent, rng)
        related.append(run(a, sensor(latent, rng)).p)
        unrelated.append(run(a, sensor(rng.standard_normal((N, LATENT)), rng)).p)
    assert max(related) == 0.01
    assert np.mean(np.array(unrelated) <= 0.05) <= 0.1
    assert 0.35 < np.mean(unrelated) < 0.65


def slow(rng: np.random.Generator, n: int = 160, memory: float = 0.9) -> NDArray[np.float64]:
    steps = rng.standard_normal((n, LATENT))
    for row in range(1, n):
        steps[row] += memory * steps[row - 1]
    return steps


def test_two_slow_sensors_that_have_nothing_to_do_with_each_other_do_not_look_related() -> None:
    singly = Shuffler([[np.array([row]) for row in range(160)]], 1)
    naive, ours = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        a, b = sensor(slow(rng), rng), sensor(slow(rng), rng)
        naive.append(run(a, b, shuffler=singly).p)
        ours.append(run(a, b).p)
    assert np.mean(np.array(naive) <= 0.05) > 0.2  # what the rotation is for
    assert np.mean(np.array(ours) <= 0.05) <= 0.1


def test_which_group_a_moment_is_of_is_no_evidence() -> None:
    groups = np.repeat(np.arange(4), 15)
    found = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        own = rng.standard_normal((4, LATENT))[groups]
        found.append(run(sensor(own, rng), sensor(own, rng), groups).p)
    assert np.mean(np.array(found) <= 0.05) <= 0.15


def test_the_pairing_is_shuffled_by_rows_groups_or_in_time() -> None:
    rng = np.random.default_rng(3)
    gram = np.eye(N, dtype=np.float32)
    single = find_shuffler(gram, gram)
    assert (single.length, single.stretches, single.pairings) == (1, N, 1e9)
    assert sorted(single.draw(rng)) == list(range(N))

    steady = np.kron(np.eye(6), np.ones((10, 10))).astype(np.float32)  # six states of ten rows each
    rotated = find_shuffler(steady, steady)
    assert (rotated.length > 1, rotated.pairings) == (True, N)
    order = rotated.draw(rng)
    assert set(np.diff(order) % N) == {1}

    states = np.kron(np.eye(12), np.ones((5, 5))).astype(np.float32)
    whole = find_shuffler(states, states, np.repeat(np.arange(12), 5))
    assert whole.stretches == 12
    assert {tuple(part % 5) for part in whole.draw(rng).reshape(12, 5)} == {(0, 1, 2, 3, 4)}

    few = np.repeat(np.arange(3), 20)
    within = find_shuffler(gram, gram, few)
    assert (few[within.draw(rng)] == few).all()


def test_a_pairing_that_is_no_better_is_not_shuffled_to_the_end() -> None:
    shuffler = Shuffler([[np.array([row]) for row in range(N)]], 1)
    tested = permutation_test(lambda order=None: np.full((1, N), 0.5), shuffler, 199)
    assert (tested.shuffles, tested.p) == (ENOUGH_EXCEEDED, 1.0)


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 0.0, 0.05), (1e3, 0.9, 1.0)])
def test_what_is_left_unexplained_is_nothing_of_a_linear_image_and_all_of_noise(
    noise: float, low: float, high: float
) -> None:
    rng = np.random.default_rng(4)
    latent = rng.standard_normal((200, LATENT))
    seen = unit(latent)
    other = (seen @ rng.standard_normal((LATENT, WIDTH)) + noise * rng.standard_normal((200, WIDTH))).astype(np.float32)
    predictor = Predictor.fit(seen @ seen.T, folds(200, None, 5), LATENT, penalties=(1e-3, 1.0))
    assert low <= predictor.unexplained(other @ other.T) <= high
