from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_cmcl.continual.sketch import FrequentDirections, Sketch, merge, noise_deviation, noisy, principal_rows
from edge_cmcl.errors import DataError

Floats = NDArray[np.float64]

FLOAT16_STEP = 2.0**-10
"""Half a unit in the last place of each of two factors: how far float16 rows may lift the moment above C."""


def features(seed: int, n: int, width: int, decay: float = 0.5) -> Floats:
    """Unit rows whose spectrum falls off like that of real features."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, width)) @ (np.diag(np.arange(1, width + 1) ** -decay) @ rotation(rng, width))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def rotation(rng: np.random.Generator, width: int) -> Floats:
    return np.asarray(np.linalg.qr(rng.standard_normal((width, width)))[0])


def moment(rows: Floats) -> Floats:
    return np.asarray(rows.T @ rows / len(rows))


def gap(true: Floats, sketch: Sketch) -> tuple[float, float]:
    """Smallest and largest eigenvalue of C - B^T B."""
    rows = sketch.rows.astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(true - rows.T @ rows)
    return float(eigenvalues[0]), float(eigenvalues[-1])


def sketched(rows: Floats, working_rows: int, chunk: int = 64, **options: float) -> Sketch:
    directions = FrequentDirections(rows.shape[1], working_rows)
    for start in range(0, len(rows), chunk):
        directions.update(rows[start : start + chunk])
    return directions.sketch(**options)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 120),
    width=st.integers(2, 40),
    working_rows=st.integers(1, 16),
    chunk=st.integers(1, 50),
    decay=st.floats(0.0, 3.0),
)
def test_what_streaming_loses_is_between_zero_and_the_bound(
    seed: int, n: int, width: int, working_rows: int, chunk: int, decay: float
) -> None:
    rows = features(seed, n, width, decay)
    directions = FrequentDirections(width, working_rows)
    for start in range(0, n, chunk):
        directions.update(rows[start : start + chunk])
    lost = np.linalg.eigvalsh(rows.T @ rows - directions.rows.T @ directions.rows)
    assert lost[0] >= -1e-9 * n
    assert lost[-1] <= directions.lost + 1e-9 * n
    assert len(directions.rows) <= 2 * working_rows


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 120),
    width=st.integers(2, 40),
    working_rows=st.integers(1, 16),
    max_rows=st.integers(1, 12),
    kept_energy=st.sampled_from([0.5, 0.9, 0.999, 1.0]),
)
def test_stored_sketch_bounds_the_moment_from_both_sides(
    seed: int, n: int, width: int, working_rows: int, max_rows: int, kept_energy: float
) -> None:
    rows = features(seed, n, width)
    sketch = sketched(rows, working_rows, max_rows=max_rows, kept_energy=kept_energy)
    low, high = gap(moment(rows), sketch)
    assert low >= -FLOAT16_STEP
    assert high <= sketch.delta + 1e-12
    assert sketch.n == n
    assert sketch.trace == pytest.approx(1.0, rel=1e-12)
    assert len(sketch.rows) <= max_rows


def rotating_energy(rounds: int) -> Floats:
    """A stream that a plain truncation would keep forgetting: each round the same four directions, just too weak."""
    first, later = np.eye(8)[:4], np.sqrt(0.9) * np.eye(8)[4:]
    return np.concatenate([first, *[later] * rounds])


@pytest.mark.parametrize(
    "rows", [features(3, 1000, 60, decay=1.0), features(4, 300, 30, decay=0.0), rotating_energy(40)]
)
@pytest.mark.parametrize("working_rows", [4, 20])
def test_loss_is_shared_among_the_rows_as_the_theorem_says(rows: Floats, working_rows: int) -> None:
    # Ghashami et al., theorem 1.1: lost <= |A - A_k|^2 / (l + 1 - k) for every k.
    directions = FrequentDirections(rows.shape[1], working_rows)
    directions.update(rows)
    eigenvalues = np.linalg.eigvalsh(rows.T @ rows)[::-1]
    for k in range(min(working_rows, len(eigenvalues)) + 1):
        assert directions.lost <= eigenvalues[k:].sum() / (working_rows + 1 - k) + 1e-9


@pytest.mark.parametrize("n", [7, 16, 32])
def test_up_to_twice_the_working_rows_nothing_is_lost(n: int) -> None:
    rows = features(0, n, 50)
    directions = FrequentDirections(50, working_rows=16)
    directions.update(rows)
    assert directions.lost == 0.0
    np.testing.assert_array_equal(directions.rows, rows)


def test_narrow_features_lose_nothing_however_many_stream_by() -> None:
    rows = features(0, 3000, 12, decay=0.0)
    directions = FrequentDirections(12, working_rows=512)
    directions.update(rows)
    assert directions.lost == 0.0
    np.testing.assert_allclose(directions.rows.T @ directions.rows, rows.T @ rows, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 5, 64, 1000])
def test_chunks_do_not_matter(chunk: int) -> None:
    rows = features(1, 300, 40)
    whole, parts = sketched(rows, 8, chunk=300), sketched(rows, 8, chunk=chunk)
    assert parts.trace == pytest.approx(whole.trace, rel=1e-12)
    assert parts.delta == pytest.approx(whole.delta, rel=1e-9)
    np.testing.assert_array_equal(parts.rows, whole.rows)


def test_delta_covers_the_rounding_to_float16() -> None:
    # All rows are kept, so rounding is the only loss.
    rows = features(2, 10, 30)
    sketch = sketched(rows, 16, kept_energy=1.0)
    assert len(sketch.rows) == 10
    assert 0.0 < sketch.delta <= FLOAT16_STEP
    assert gap(moment(rows), sketch)[1] <= sketch.delta + 1e-12


def test_rows_survive_float16_unchanged() -> None:
    sketch = sketched(features(4, 200, 40), 16)
    assert sketch.rows.dtype == np.float32
    np.testing.assert_array_equal(sketch.rows, sketch.rows.astype(np.float16).astype(np.float32))


def test_sketch_stops_at_the_kept_energy() -> None:
    rows = features(5, 400, 60, decay=1.5)
    sketch = sketched(rows, 64, kept_energy=0.9)
    cumulative = np.cumsum(np.linalg.eigvalsh(moment(rows))[::-1])
    assert len(sketch.rows) == int(np.searchsorted(cumulative, 0.9)) + 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_and_leave_no_trace(bad: float) -> None:
    directions = FrequentDirections(4, 8)
    rows = np.ones((3, 4))
    directions.update(rows)
    broken = rows.copy()
    broken[1, 2] = bad
    with pytest.raises(DataError, match="not finite"):
        directions.update(broken)
    assert directions.n == 3
    np.testing.assert_array_equal(directions.rows, rows)


def test_sketch_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="without features"):
        FrequentDirections(4).sketch()


def test_zero_features_give_an_empty_sketch() -> None:
    directions = FrequentDirections(4, 2)
    directions.update(np.zeros((9, 4)))
    sketch = directions.sketch()
    assert sketch.rows.shape == (0, 4)
    assert (sketch.n, sketch.trace, sketch.delta) == (9, 0.0, 0.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_dtype_counts_in_double(dtype: type[np.floating]) -> None:
    rows = features(6, 500, 20).astype(dtype)
    directions = FrequentDirections(20, 32)
    directions.update(rows)
    assert directions.squared_norm == pytest.approx(float(np.square(rows.astype(np.float64)).sum()), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.01, 4.0), min_size=4, max_size=4),
    max_rows=st.integers(1, 20),
)
def test_merge_bounds_the_weighted_sum_of_the_moments(
    seed: int, sizes: list[int], weights: list[float], max_rows: int
) -> None:
    parts = [features(seed + i, n, 24) for i, n in enumerate(sizes)]
    sketches = [sketched(rows, 8, max_rows=10) for rows in parts]
    weights = weights[: len(parts)]
    merged = merge(sketches, weights, max_rows)
    true = np.sum([w * moment(rows) for w, rows in zip(weights, parts, strict=True)], axis=0)
    low, high = gap(true, merged)
    assert low >= -2 * FLOAT16_STEP * sum(weights)
    assert high <= merged.delta + 1e-12
    assert merged.trace == pytest.approx(sum(weights), rel=1e-12)
    assert merged.n == sum(sizes)
    assert len(merged.rows) <= max_rows


def test_merge_refuses_unequal_numbers_of_sketches_and_weights() -> None:
    sketch = sketched(features(0, 5, 6), 4)
    with pytest.raises(ValueError, match="zip"):
        merge([sketch, sketch], [1.0])


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (9, 9)])
def test_principal_rows_are_the_spectrum_of_the_gram_matrix(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).standard_normal(shape)
    energies, directions = principal_rows(rows)
    assert (np.diff(energies) <= 0).all()
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(energies)), atol=1e-9)
    np.testing.assert_allclose((directions.T * energies) @ directions, rows.T @ rows, atol=1e-9)


@pytest.mark.parametrize("shape", [(0, 5), (3, 5), (5, 3)])
def test_principal_rows_of_nothing_are_none(shape: tuple[int, int]) -> None:
    energies, directions = principal_rows(np.zeros(shape))
    assert energies.shape == (0,)
    assert directions.shape == (0, shape[1])


@pytest.mark.parametrize("deviation", [1e-6, 1e-4, 1e-3])
def test_a_noisy_sketch_keeps_what_stands_out_of_the_noise_and_bounds_the_rest(deviation: float) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((400, 120)) * np.arange(1, 121) ** -1.0
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = noisy(moment(rows), len(rows), deviation, rng)
    high = gap(moment(rows), found)[1]
    assert 0.0 < high <= found.delta
    stand_out = int((np.linalg.eigvalsh(moment(rows)) > 4 * deviation * np.sqrt(120)).sum())
    assert stand_out <= len(found.rows) <= min(120, 128)
    assert (found.n, found.trace) == (400, 1.0)
    true, kept = np.linalg.eigvalsh(moment(rows))[-1], np.linalg.eigvalsh(found.rows.T @ found.rows)[-1]
    assert kept == pytest.approx(true, abs=4 * deviation * np.sqrt(120) + 1e-3)


def test_noise_alone_leaves_a_sketch_without_rows() -> None:
    found = noisy(np.zeros((60, 60)), 10, 0.01, np.random.default_rng(3))
    assert len(found.rows) <= 2  # the largest of its eigenvalues lies at the edge, now and then beyond
    assert found.delta >= 2 * 0.01 * np.sqrt(60)


def test_the_noise_is_that_of_the_gaussian_mechanism() -> None:
    assert noise_deviation(1000, 2.0) == pytest.approx(np.sqrt(2) / 1000 * np.sqrt(2 * np.log(1.25e5)) / 2.0)
    assert noise_deviation(2000, 2.0) == noise_deviation(1000, 4.0)
