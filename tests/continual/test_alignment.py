from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_cmcl.continual.alignment import canonical, ridge, unit_scale
from edge_cmcl.continual.metrics import retrieval

Floats = NDArray[np.float64]


def unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    inputs=st.integers(1, 12),
    outputs=st.integers(1, 5),
    penalty=st.floats(0.01, 100.0),
)
def test_ridge_is_least_squares_with_the_penalty_as_extra_rows(
    seed: int, n: int, inputs: int, outputs: int, penalty: float
) -> None:
    rng = np.random.default_rng(seed)
    features, targets = rng.standard_normal((n, inputs)), rng.standard_normal((n, outputs))
    padded = np.concatenate([features, np.sqrt(penalty) * np.eye(inputs)])
    expected = np.linalg.lstsq(padded, np.concatenate([targets, np.zeros((inputs, outputs))]), rcond=None)[0].T
    found = ridge(features, targets, penalty)
    assert found.shape == (outputs, inputs)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_ridge_of_single_precision_is_solved_in_double() -> None:
    rng = np.random.default_rng(0)
    features, targets = (rng.standard_normal((50, k)).astype(np.float32) for k in (8, 3))
    np.testing.assert_array_equal(
        ridge(features, targets, 0.5), ridge(features.astype(np.float64), targets.astype(np.float64), 0.5)
    )


def views(seed: int, n: int, shared: int = 6, noise: float = 0.05) -> tuple[Floats, Floats]:
    """Two sensors that see the same latent through different mixtures, each beside a stronger signal of its own."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, shared))
    mixing = np.random.default_rng(99)
    sides = []
    for width in (20, 30):
        mixed = latent @ mixing.standard_normal((shared, width))
        private = 3.0 * rng.standard_normal((n, 4)) @ mixing.standard_normal((4, width))
        sides.append(mixed + private + noise * rng.standard_normal((n, width)))
    return sides[0], sides[1]


def test_canonical_maps_find_what_two_sensors_share() -> None:
    a, b = views(0, 600)
    to_a, to_b = canonical(a, b, penalty=1.0, dimensions=16)
    a, b = views(1, 200)
    found = retrieval(unit(a @ to_a.T), unit(b @ to_b.T))
    assert found["recall_at_1"] > 0.95
    assert retrieval(unit(a[:, :16]), unit(b[:, :16]))["recall_at_1"] < 0.1


def test_canonical_directions_come_in_the_order_of_their_correlation() -> None:
    a, b = views(0, 600)
    to_a, to_b = canonical(a, b, penalty=1e-9, dimensions=16)
    embedded_a, embedded_b = a @ to_a.T, b @ to_b.T
    # Whitened directions weighted by their correlation: |column| = correlation, and a . b = correlation^3.
    correlations = np.linalg.norm(embedded_a, axis=0)
    assert (np.diff(correlations) <= 1e-9).all()
    assert (correlations[:6] > 0.95).all()
    assert (correlations[6:] < 0.6).all()
    np.testing.assert_allclose(np.linalg.norm(embedded_b, axis=0), correlations, atol=1e-6)
    np.testing.assert_allclose(embedded_a.T @ embedded_b, np.diag(correlations**3), atol=1e-6)


def test_canonical_rows_beyond_the_correlations_are_zero() -> None:
    rng = np.random.default_rng(0)
    to_a, to_b = canonical(rng.standard_normal((50, 3)), rng.standard_normal((50, 7)), 0.1, dimensions=5)
    assert (to_a.shape, to_b.shape) == ((5, 3), (5, 7))
    assert not to_a[3:].any()
    assert not to_b[3:].any()
    assert to_a[:3].any(axis=1).all()


def test_a_larger_penalty_trusts_weak_directions_less() -> None:
    # One shared direction is strong, one weak; both are noiseless.
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 2)) * [1.0, 0.1]
    ratios = []
    for penalty in (1e-6, 2.0, 200.0):
        norms = np.linalg.norm(rows @ canonical(rows, rows, penalty, 2)[0].T, axis=0)
        ratios.append(norms[1] / norms[0])
    assert ratios[0] == pytest.approx(1.0, abs=1e-3)
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[2] < 0.1


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_unit_scale_gives_embeddings_a_mean_norm_of_one(scale: float) -> None:
    rng = np.random.default_rng(0)
    map_, features = scale * rng.standard_normal((8, 20)), rng.standard_normal((50, 20))
    scaled = unit_scale(map_, features)
    assert np.linalg.norm(features @ scaled.T, axis=1).mean() == pytest.approx(1.0)
    np.testing.assert_allclose(scaled / np.linalg.norm(scaled), map_ / np.linalg.norm(map_))


def test_unit_scale_leaves_a_zero_map_zero() -> None:
    assert not unit_scale(np.zeros((3, 4)), np.ones((5, 4))).any()
