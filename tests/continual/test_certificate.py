from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_cmcl.continual.certificate import certify, displacement_bound, embedding_energy
from edge_cmcl.continual.sketch import FrequentDirections, Sketch

WIDTH = 48

Floats = NDArray[np.float64]


def unit_features(seed: int, n: int, rank: int, tail: float) -> NDArray[np.float32]:
    """Like encoder features: a few strong directions, a long weak tail, unit norm."""
    rng = np.random.default_rng(seed)
    strong = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, WIDTH)) / np.sqrt(rank)
    rows = strong + tail * rng.standard_normal((n, WIDTH))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def sketch(features: NDArray[np.float32], max_rows: int = 128, working_rows: int = 16) -> Sketch:
    directions = FrequentDirections(WIDTH, working_rows)
    directions.update(features)
    return directions.sketch(max_rows)


def displacement(features: NDArray[np.float32], change: NDArray[np.floating]) -> float:
    """Mean squared displacement as it is measured: embed everything before and after."""
    return float(np.square(features.astype(np.float64) @ change.T.astype(np.float64)).sum(1).mean())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 150),
    rank=st.integers(1, 12),
    tail=st.sampled_from([0.0, 0.05, 0.5, 3.0]),
    max_rows=st.integers(1, 20),
    kind=st.sampled_from(["random", "unseen", "seen", "tiny"]),
)
def test_certificate_is_never_below_the_displacement_measured(
    seed: int, n: int, rank: int, tail: float, max_rows: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    features = unit_features(seed, n, rank, tail)
    stored = sketch(features, max_rows)
    learned = rng.standard_normal((8, WIDTH)).astype(np.float32)
    change = rng.standard_normal((8, WIDTH))
    if kind in ("unseen", "seen"):
        # The worst a change can do: all of it along what the sketch knows least, or most.
        gap = features.T.astype(np.float64) @ features / n - (stored.rows.T @ stored.rows if kind == "unseen" else 0.0)
        change = np.outer(rng.standard_normal(8), np.linalg.eigh(gap)[1][:, -1])
    change *= 1e-6 if kind == "tiny" else 0.3
    now = (learned + change).astype(np.float32)
    measured = displacement(features, now.astype(np.float64) - learned.astype(np.float64))
    certificate = certify("gyro", "o", stored, now, learned)
    assert certificate.bound >= measured
    energy = displacement(features, learned)
    assert certificate.relative >= measured / energy * (1 - 2.0**-9)


def test_bound_is_met_where_the_change_lies_along_the_unseen() -> None:
    features = unit_features(0, 400, 4, 0.3)
    stored = sketch(features, max_rows=4, working_rows=WIDTH)
    unseen = np.linalg.eigh(features.T.astype(np.float64) @ features / 400 - stored.rows.T @ stored.rows)[1][:, -1]
    measured = displacement(features, unseen[None])
    assert measured <= displacement_bound(unseen[None], stored) <= 1.2 * measured


def test_more_rows_tighten_the_bound() -> None:
    features = unit_features(1, 400, 10, 0.2)
    change = 0.1 * np.random.default_rng(1).standard_normal((8, WIDTH))
    measured = displacement(features, change)
    bounds = [displacement_bound(change, sketch(features, rows, WIDTH)) for rows in (2, 8, 16, 32)]
    assert bounds == sorted(bounds, reverse=True)
    assert measured <= bounds[-1] <= 1.5 * measured


def test_no_change_is_certified_as_none() -> None:
    weight = np.random.default_rng(0).standard_normal((8, WIDTH)).astype(np.float32)
    certificate = certify("gyro", "o", sketch(unit_features(0, 50, 3, 0.1)), weight, weight)
    assert (certificate.bound, certificate.relative) == (0.0, 0.0)
    assert (certificate.modality, certificate.origin) == ("gyro", "o")


def test_relative_is_the_bound_over_the_mean_squared_embedding() -> None:
    features = unit_features(2, 30, 3, 0.1)
    stored = sketch(features)
    learned = np.random.default_rng(2).standard_normal((8, WIDTH)).astype(np.float32)
    certificate = certify("gyro", "o", stored, 1.1 * learned, learned)
    assert certificate.relative == certificate.bound / embedding_energy(learned, stored)
    assert embedding_energy(learned, stored) == pytest.approx(displacement(features, learned), rel=0.01)
    # Growing by a tenth moves everything by a tenth of itself.
    assert certificate.relative == pytest.approx(0.01, rel=0.3)


def test_carried_displacement_adds_up_as_norms_do() -> None:
    stored = sketch(unit_features(3, 30, 3, 0.1))
    learned = np.zeros((8, WIDTH), np.float32)
    now = np.random.default_rng(3).standard_normal((8, WIDTH)).astype(np.float32)
    own = certify("gyro", "o", stored, now, learned).bound
    both = certify("gyro", "o", stored, now, learned, carried=0.5).bound
    assert both == pytest.approx((np.sqrt(own) + np.sqrt(0.5)) ** 2)
    assert certify("gyro", "o", stored, learned, learned, carried=0.5).bound == pytest.approx(0.5)


def test_a_change_of_embeddings_that_were_zero_is_never_certified_as_small() -> None:
    stored = sketch(unit_features(4, 30, 3, 0.1))
    zero, now = np.zeros((8, WIDTH), np.float32), np.full((8, WIDTH), 1e-3, np.float32)
    assert certify("gyro", "o", stored, now, zero).relative == 1.0
    assert certify("gyro", "o", stored, zero, zero).relative == 0.0
