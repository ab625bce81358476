from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_cmcl.continual.metrics import chance_mrr
from edge_cmcl.continual.sketch import Sketch
from edge_cmcl.device.features import unit
from edge_cmcl.device.judging import MAX_GALLERY, Judge, label_scores, pair_scores
from edge_cmcl.device.members import Member
from edge_cmcl.device.training import Problem, no_change

Array = NDArray[np.float32]


def member(name: str, valid: NDArray[np.bool_], new: bool) -> Member:
    """A member as the judge sees it: its name, its rows, and whether it is new."""
    empty = np.zeros((0, 0), np.float32)
    weight = None if new else np.zeros((4, 8), np.float32)
    return Member(name, valid, weight, empty, empty, empty, np.zeros((8, 2), np.float32), empty, Sketch(empty, 1, 1, 0))


def problem(*embeddings: Array) -> Problem:
    n = len(embeddings[0])
    ids = np.tile(np.arange(n), (len(embeddings) - 1, 1))
    return Problem(embeddings, [np.zeros((n, 2), np.float32) for _ in embeddings], ids)


def test_pair_scores_by_hand() -> None:
    a = np.eye(3, dtype=np.float32)
    b = unit(np.array([[1, 0, 0], [2, 1, 0], [0, 0, 1]], np.float32))
    # From a: b_1 is best for a_1, a_2 and a_3 find theirs. From b: b_2 is nearer to a_1, so its own comes second.
    np.testing.assert_allclose(pair_scores(a, b), [1.0, (1.0 + 0.5) / 2, 1.0])


def test_pair_scores_of_equal_embeddings_are_those_of_the_middle_rank() -> None:
    alike = np.ones((5, 1), np.float32)
    np.testing.assert_allclose(pair_scores(alike, alike), 1 / 3)


def test_label_scores_by_hand() -> None:
    texts = unit(np.array([[0, 1], [1, 0], [-1, -1]], np.float32))
    labels = np.array([1, 0, 1, 2])
    windows = unit(np.array([[1, 0.1], [1, 0.5], [-1, -1.1], [-0.1, -1]], np.float32))
    # Window 2 is nearest to label 1, so its own label 0 comes second; window 3 is nearest to 2, then to 1 by a little:
    # its own, second; window 4 finds 2.
    np.testing.assert_allclose(label_scores(windows, texts, labels), [1.0, 0.5, 1 / 2, 1.0])


def test_label_scores_count_level_labels_half() -> None:
    windows, texts, labels = np.ones((4, 1), np.float32), np.ones((3, 1), np.float32), np.array([0, 1, 2, 2])
    np.testing.assert_allclose(label_scores(windows, texts, labels), 1 / 2)
    assert label_scores(windows[:0], texts, labels[:0]).shape == (0,)


def test_broken_embeddings_score_worse_than_chance() -> None:
    texts, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    assert label_scores(np.full((3, 3), np.nan, np.float32), texts, labels).max() < chance_mrr(3)


def test_broken_embeddings_of_a_pair_score_worse_than_chance() -> None:
    assert pair_scores(np.full((3, 3), np.nan, np.float32), np.eye(3, dtype=np.float32)).max() < chance_mrr(3)


def test_the_judge_ranks_the_anchor_with_everybody_and_known_partners_among_themselves() -> None:
    valid = np.ones(4, bool)
    members = [member("gyro", valid, True), member("acc", valid, False), member("emg", valid, True)]
    members += [member("depth", valid, False), member("text", valid, False)]
    judge = Judge(members, np.tile(np.arange(4), (4, 1)))
    assert judge.pairs == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4)]
    assert judge.learned == [0, 1, 2, 3]


def test_scores_are_ranks_among_the_rows_asked_for() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((10, 4)).astype(np.float32) for _ in range(2))
    valid = np.ones(10, bool)
    judge = Judge([member("gyro", valid, True), member("acc", valid, True)], np.arange(10)[None])
    rows = np.array([1, 3, 4, 8])
    found = judge.scores(problem(a, b), no_change(problem(a, b)), rows)
    np.testing.assert_allclose(found, pair_scores(unit(a[rows]), unit(b[rows]))[None])


def test_scores_follow_the_changes() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((10, 4)).astype(np.float32) for _ in range(2))
    valid, rows = np.ones(10, bool), np.arange(10)
    judge = Judge([member("gyro", valid, True), member("acc", valid, True)], rows[None])
    moving = Problem([a, b], [np.ones((10, 1), np.float32), np.zeros((10, 2), np.float32)], rows[None])
    changes = no_change(moving)
    changes[0, :, 0] = [3.0, 0.0, 0.0, 0.0]
    shifted = a + np.array([3.0, 0.0, 0.0, 0.0], np.float32)
    np.testing.assert_allclose(judge.scores(moving, changes, rows)[0], pair_scores(unit(shifted), unit(b)))


def test_rows_that_lack_one_of_the_two_are_not_judged_and_not_in_the_gallery() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((10, 4)).astype(np.float32) for _ in range(2))
    valid = np.ones(10, bool)
    valid[[2, 5]] = False
    judge = Judge([member("gyro", np.ones(10, bool), True), member("acc", valid, True)], np.arange(10)[None])
    found = judge.scores(problem(a, b), no_change(problem(a, b)), np.arange(10))[0]
    np.testing.assert_array_equal(np.isnan(found), ~valid)
    np.testing.assert_allclose(found[valid], pair_scores(unit(a[valid]), unit(b[valid])))


def test_a_pair_that_no_row_has_is_not_judged() -> None:
    a = np.eye(4, dtype=np.float32)
    none = np.zeros(4, bool)
    members = [member("gyro", ~none, True), member("acc", none, True), member("text", none, True)]
    ids = np.full((2, 4), -1)
    found = Judge(members, ids).scores(problem(a, a, a), no_change(problem(a, a, a)), np.arange(4))
    assert np.isnan(found).all()


@pytest.mark.parametrize("anchor_first", [True, False])
def test_against_labels_a_window_is_ranked_among_the_labels(anchor_first: bool) -> None:
    rng = np.random.default_rng(1)
    labels = np.array([0, 1, 2, 0, 1, -1])
    windows = rng.standard_normal((6, 4)).astype(np.float32)
    names = rng.standard_normal((3, 4)).astype(np.float32)
    texts = names[np.maximum(labels, 0)]
    labelled, everywhere = labels >= 0, np.ones(6, bool)
    expected = label_scores(unit(windows[labelled]), unit(names), labels[labelled])
    if anchor_first:
        members, embeddings, ids, place = [member("gyro", everywhere, True)], [windows], labels[None], 0
        members.append(member("text", labelled, True))
        embeddings.append(texts)
    else:
        # Text and a sensor that were both known before: the pair (1, 2) with the text first.
        members = [member("gyro", everywhere, True), member("text", labelled, False), member("acc", everywhere, False)]
        embeddings, ids, place = [windows, texts, windows], np.stack([labels, np.arange(6)]), 2
    judge = Judge(members, ids)
    found = judge.scores(problem(*embeddings), no_change(problem(*embeddings)), np.arange(6))[place]
    np.testing.assert_array_equal(np.isnan(found), ~labelled)
    np.testing.assert_allclose(found[labelled], expected)


def test_a_large_fold_is_ranked_in_parts() -> None:
    n = 2 * MAX_GALLERY + 1
    rng = np.random.default_rng(0)
    a = rng.standard_normal((n, 4)).astype(np.float32)
    b = a + 0.5 * rng.standard_normal((n, 4)).astype(np.float32)
    valid, rows = np.ones(n, bool), np.arange(n)
    found = Judge([member("gyro", valid, True), member("acc", valid, True)], rows[None]).scores(
        problem(a, b), no_change(problem(a, b)), rows
    )[0]
    first = rows[: -(-n // 3)]
    np.testing.assert_allclose(found[first], pair_scores(unit(a[first]), unit(b[first])))
    assert not np.isnan(found).any()
