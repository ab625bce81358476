from __future__ import annotations

import hashlib
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_cmcl.device.text import WIDTH, label_features

GRAMS_OF_AB = ["a", "b", " ", " ", " a", "ab", "b ", " ab", "ab ", " ab "]


def test_features_follow_the_recipe_gram_by_gram() -> None:
    expected = np.zeros(WIDTH)
    for gram in GRAMS_OF_AB:
        digest = hashlib.sha256(b"edge-cmcl/text/1/" + gram.encode()).digest()
        place = (digest[0] + 256 * digest[1] + 2**16 * digest[2] + 2**24 * digest[3]) % 1024
        expected[place] += 1 if digest[4] % 2 else -1
    np.testing.assert_allclose(label_features(["Ab"])[0], expected / np.linalg.norm(expected), atol=1e-7)


GOLDEN = {
    "go": {57: 1, 87: -1, 210: -1, 550: -2, 562: -1, 638: -1, 952: -1, 979: -1, 981: 1},
    "Tür 7": {
        **{99: 1, 157: -1, 347: -1, 396: -1, 471: 1, 521: -1, 550: -3, 558: -1, 581: -1, 586: -1},
        **{605: 1, 612: -1, 643: 1, 666: 1, 690: -1, 777: -1, 785: -1, 823: -1, 877: 1, 1015: 1},
    },
}
"""Every place that is not zero, before scaling to unit norm."""


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_features_of_known_names_never_change(name: str) -> None:
    expected = np.zeros(WIDTH)
    expected[list(GOLDEN[name])] = list(GOLDEN[name].values())
    np.testing.assert_allclose(label_features([name])[0], expected / np.linalg.norm(expected), atol=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=5))
@example(["\N{KANGXI RADICAL ONE}"])
def test_every_name_has_unit_norm_or_is_zero(names: list[str]) -> None:
    features = label_features(names)
    assert features.shape == (len(names), WIDTH)
    assert features.dtype == np.float32
    normal = [unicodedata.normalize("NFKC", name.casefold()) for name in names]
    readable = [any(letter.isalnum() for letter in name) for name in normal]
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), np.array(readable, float), atol=1e-6)
    np.testing.assert_array_equal(features, label_features(names))


def test_similar_names_are_closer_than_different_ones() -> None:
    walking, upstairs, jogging, bearing = label_features(
        ["walking", "walking upstairs", "jogging", "bearing outer race fault"]
    )
    assert walking @ upstairs > walking @ jogging > walking @ bearing
    assert walking @ upstairs > 0.5
    assert walking @ bearing < 0.5 * (walking @ upstairs)


def test_the_order_of_words_matters_little_but_matters() -> None:
    a, b = label_features(["left arm swing", "swing left arm"])
    assert 0.7 < a @ b < 0.999


@pytest.mark.parametrize(
    ("name", "same"),
    [("Walking", "walking"), ("walk_up", "walk up"), ("  walk -- up ", "walk up"), ("STRASSE", "straße")],
)
def test_case_and_punctuation_do_not_matter(name: str, same: str) -> None:
    np.testing.assert_array_equal(*label_features([name, same]))


def test_names_in_other_scripts_are_told_apart() -> None:
    features = label_features(["歩く", "走る", "걷기", "चलना", "المشي"])
    similarity = features @ features.T
    np.testing.assert_allclose(np.diagonal(similarity), 1.0, atol=1e-6)
    assert np.abs(similarity[np.triu_indices(5, 1)]).max() < 0.6


def test_composed_and_decomposed_letters_are_the_same() -> None:
    np.testing.assert_array_equal(*label_features(["Fu\u00dfg\u00e4nger", "Fu\u00dfga\u0308nger"]))


@pytest.mark.parametrize("name", ["", "   ", "?!", "__"])
def test_a_name_without_letters_or_digits_is_zero(name: str) -> None:
    assert not label_features([name]).any()


def test_no_names_give_no_rows() -> None:
    assert label_features([]).shape == (0, WIDTH)
