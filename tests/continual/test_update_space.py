from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_cmcl.continual.update_space import MAX_DIRECTIONS, Preconditioner, hard, soft, update_space

Floats = NDArray[np.float64]


def unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def dense(preconditioner: Preconditioner, width: int) -> Floats:
    return preconditioner(np.eye(width))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(4, 80),
    protected=st.integers(1, 60),
    decay=st.floats(0.0, 2.5),
    size=st.integers(1, 20),
)
def test_hard_space_with_all_directions_leaves_old_features_where_they_were(
    seed: int, width: int, protected: int, decay: float, size: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((protected, width)) * np.arange(1, width + 1) ** -decay)
    space = update_space(unit(rng.standard_normal((50, width))), hard(rows), size)
    assert np.abs(rows @ space).max(initial=0.0) <= 1e-6
    # Fold in place, in float32, as the device does.
    weight = (0.2 * rng.standard_normal((16, width))).astype(np.float32)
    changes = (0.2 * rng.standard_normal((16, space.shape[1]))).astype(np.float32)
    folded = weight + changes @ space.T
    assert np.abs(rows @ folded.T - rows @ weight.T).max() <= 1e-5


def test_hard_space_protects_mixtures_of_what_it_saw() -> None:
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((20, 60)))
    space = update_space(rng.standard_normal((50, 60)), hard(rows))
    mixtures = unit(rng.standard_normal((100, 20)) @ rows)
    assert space.shape[1] == 40
    assert np.abs(mixtures @ space).max() <= 1e-6


def test_hard_space_still_lets_new_directions_move() -> None:
    protected, new = np.eye(6)[:2], np.eye(6)[1:4]
    space = update_space(new, hard(protected))
    np.testing.assert_allclose(space @ space.T, np.diag([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), atol=1e-7)


@pytest.mark.parametrize(("kept_energy", "count"), [(0.5, 1), (0.75, 2), (0.99, 4), (1.0, 4)])
def test_hard_space_keeps_the_directions_that_hold_the_energy(kept_energy: float, count: int) -> None:
    rows = np.diag(np.sqrt([6.0, 3.0, 0.8, 0.2, 0.0]))
    wanted = np.diag([0.0] * count + [1.0] * (5 - count))
    np.testing.assert_allclose(dense(hard(rows, kept_energy), 5), wanted, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 30),
    count=st.integers(1, 40),
    alpha=st.floats(1e-4, 10.0),
)
def test_soft_space_is_the_inverse_root_computed_densely(seed: int, width: int, count: int, alpha: float) -> None:
    rows = np.random.default_rng(seed).standard_normal((count, width))
    values, vectors = np.linalg.eigh(np.eye(width) + rows.T @ rows / alpha)
    np.testing.assert_allclose(dense(soft(rows, alpha), width), (vectors / np.sqrt(values)) @ vectors.T, atol=1e-9)


def test_soft_space_damps_each_direction_by_its_energy() -> None:
    energies = np.array([4.0, 1.0, 0.01, 0.0])
    found = np.diag(dense(soft(np.diag(np.sqrt(energies)), alpha=0.5), 4))
    np.testing.assert_allclose(found, (1 + energies / 0.5) ** -0.5)


@pytest.mark.parametrize("preconditioner", [soft(np.zeros((0, 9)), 0.1), hard(np.zeros((0, 9)))])
def test_without_origins_everything_may_move(preconditioner: Preconditioner) -> None:
    np.testing.assert_array_equal(dense(preconditioner, 9), np.eye(9))
    space = update_space(np.random.default_rng(0).standard_normal((30, 9)), preconditioner)
    np.testing.assert_allclose(space.T @ space, np.eye(9), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(2, 40),
    origins=st.integers(0, 30),
    new=st.integers(1, 60),
    size=st.integers(1, 50),
)
def test_update_space_is_that_of_a_dense_computation(seed: int, width: int, origins: int, new: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    old_rows, new_rows = rng.standard_normal((origins, width)), rng.standard_normal((new, width))
    preconditioner = soft(old_rows, 0.3)
    space = update_space(new_rows, preconditioner, size)
    full = dense(preconditioner, width)
    _, singular, right = np.linalg.svd(new_rows @ full, full_matrices=False)
    count = min(size, int((singular > singular[0] * 1e-6).sum()))
    assert space.shape == (width, count)
    assert space.dtype == np.float32
    assert space.flags.c_contiguous
    # Columns are known up to their sign only.
    wanted = full @ right[:count].T
    cosines = (space * wanted).sum(0) / np.linalg.norm(wanted, axis=0) ** 2
    gaps = np.diff(np.append(singular, 0.0))[:count]
    clear = (np.abs(gaps) > 1e-3) & (np.abs(np.append(1.0, gaps[:-1])) > 1e-3)
    np.testing.assert_allclose(np.abs(cosines[clear]), 1.0, atol=1e-4)


def test_update_space_takes_its_directions_from_what_is_left_after_damping() -> None:
    # The new features' strongest direction is the one protected, so the second comes first.
    new_rows = np.diag([3.0, 2.0, 0.0])
    space = update_space(new_rows, soft(np.array([[5.0, 0.0, 0.0]]), 0.1), size=1)
    np.testing.assert_allclose(np.abs(space[:, 0]), [0.0, 1.0, 0.0], atol=1e-6)


def test_update_space_has_no_more_columns_than_the_new_features_span() -> None:
    rng = np.random.default_rng(0)
    low_rank = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 300))
    assert update_space(low_rank, soft(np.zeros((0, 300)), 1.0)).shape == (300, 5)
    assert update_space(rng.standard_normal((200, 300)), soft(np.zeros((0, 300)), 1.0)).shape == (300, MAX_DIRECTIONS)
