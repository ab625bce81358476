from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from vectors.exported import universal_session
from vectors.make_universal import LENGTHS, MODALITIES, PATH, WIDTH, golden

from edge_cmcl import tensors
from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.device.encoders import NO_BLOB, UniversalEncoder
from edge_cmcl.device.universal import DEFAULT_WIDTH, DILATIONS, MAX_CELLS, STATISTICS, make_kernels, pool_frames
from edge_cmcl.errors import DataError, ModelError

FROZEN = "sha256:f09465474f268a6ede61bc2286795210873d1fc22151460ee668f5037bff401b"

Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def vectors() -> dict[str, Array]:
    with tensors.TensorFile(PATH) as file:
        return {name: file.read(name) for name in file.names}


def encoder(
    modality: str, *, width: int = WIDTH, scale: float = 1.0, frame: tuple[int, int] | None = None
) -> UniversalEncoder:
    record = ModalityRecord(
        kind="frames" if frame else "series",
        channels=None if frame else MODALITIES[modality],
        frame=frame,
        scale=scale,
        encoder="universal",
        encoder_blob=NO_BLOB,
        width=width,
        adapter_blob=NO_BLOB,
    )
    return UniversalEncoder(universal_session(), modality, record)


def blocks(features: Array) -> Array:
    """Features as (n, dilation, statistic, kernel)."""
    return features.reshape(len(features), len(DILATIONS), STATISTICS, -1)


def test_the_vectors_are_those_frozen_with_the_recipe() -> None:
    # Changing them changes what every device in the field computes: that takes a new version of the recipe.
    assert f"sha256:{hashlib.sha256(PATH.read_bytes()).hexdigest()}" == FROZEN
    assert PATH.stat().st_size < 60_000


def test_the_vectors_are_what_the_recipe_gives_written_out_in_plain_numpy(vectors: dict[str, Array]) -> None:
    made = golden()
    assert sorted(made) == sorted(vectors)
    for name, values in made.items():
        np.testing.assert_allclose(vectors[name], values, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("modality", sorted(MODALITIES))
def test_kernels_match_the_golden_vectors(vectors: dict[str, Array], modality: str) -> None:
    kernels = make_kernels(modality, MODALITIES[modality], WIDTH)
    # Not bit by bit: the Gaussians go through the C library's logarithm and square root.
    np.testing.assert_allclose(kernels.weights, vectors[f"{modality}.weights"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(kernels.biases, vectors[f"{modality}.biases"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("length", sorted(LENGTHS))
@pytest.mark.parametrize("modality", sorted(MODALITIES))
def test_features_through_the_shipped_encoder_match_the_golden_vectors(
    vectors: dict[str, Array], modality: str, length: str
) -> None:
    found = encoder(modality)(vectors[f"{modality}.{length}.windows"])
    np.testing.assert_allclose(found, vectors[f"{modality}.{length}.features"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("length", "silent"), [("long", ()), ("medium", (3,)), ("short", (2, 3))])
def test_dilations_that_reach_too_far_for_the_window_are_exactly_silent(
    vectors: dict[str, Array], length: str, silent: tuple[int, ...]
) -> None:
    found = blocks(encoder("acc")(vectors[f"acc.{length}.windows"]))
    for row in range(len(DILATIONS)):
        assert bool(found[:, row].any()) == (row not in silent)


@pytest.mark.parametrize(("samples", "audible"), [(35, 3), (36, 4), (18, 3), (17, 2)])
def test_a_dilation_is_heard_from_nine_halves_of_it_in_samples(samples: int, audible: int) -> None:
    kernels = make_kernels("acc", 3, 48).for_length(samples)
    assert [bool(weights.any()) for weights in kernels.weights] == [True] * audible + [False] * (4 - audible)
    assert [bool(biases.any()) for biases in kernels.biases] == [True] * audible + [False] * (4 - audible)


def test_a_narrower_encoder_is_the_beginning_of_a_wider_one_per_dilation(vectors: dict[str, Array]) -> None:
    windows = vectors["emg.long.windows"]
    wide, narrow = blocks(encoder("emg", width=252)(windows)), blocks(encoder("emg", width=48)(windows))
    np.testing.assert_allclose(narrow, wide[..., :4], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(make_kernels("emg", 8, 48).weights, make_kernels("emg", 8, 252).weights[:, :4])
    np.testing.assert_array_equal(make_kernels("emg", 8, 48).biases, make_kernels("emg", 8, 252).biases[:, :4])


@settings(max_examples=20, deadline=None)
@given(modality=st.text(min_size=1, max_size=12), channels=st.integers(1, 100), count=st.integers(1, 20))
def test_every_kernel_has_unit_norm_and_sees_at_least_one_channel(modality: str, channels: int, count: int) -> None:
    kernels = make_kernels(modality, channels, 12 * count)
    assert kernels.weights.shape == (4, count, channels, 7)
    assert kernels.weights.dtype == kernels.biases.dtype == np.float32
    flat = kernels.weights.reshape(4 * count, channels, 7).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=(1, 2)), 1.0, atol=1e-6)
    assert flat.any(axis=(1, 2)).all()
    if channels <= 4:
        assert flat.any(axis=2).all()
    assert np.abs(kernels.biases).max() <= 0.3


def test_kernels_have_the_shares_of_the_recipe() -> None:
    weights = make_kernels("current", 30, DEFAULT_WIDTH).weights.reshape(600, 30, 7)
    seen = weights.any(axis=2).sum(axis=1)
    # 30 channels at 3 / 30 each, at least one.
    assert seen.min() == 1
    assert seen.mean() == pytest.approx(3.0 + 0.9**30, abs=0.3)
    centred = np.abs(weights.sum(axis=2)).max(axis=1) < 1e-6
    assert centred.mean() == pytest.approx(0.7, abs=0.06)


def test_kernels_depend_on_name_channels_and_dilation_alone() -> None:
    np.testing.assert_array_equal(make_kernels("acc", 3).weights, make_kernels("acc", 3).weights)
    assert not np.allclose(make_kernels("acc", 3).weights, make_kernels("gyro", 3).weights)
    assert not np.allclose(make_kernels("acc", 3, 48).weights[0], make_kernels("acc", 3, 48).weights[1])
    assert not np.allclose(make_kernels("acc", 3, 48).weights[:, :, :2], make_kernels("acc", 2, 48).weights)


@pytest.mark.parametrize("width", [0, -12, 10, 1801])
def test_a_width_that_the_recipe_does_not_have_is_refused(width: int) -> None:
    with pytest.raises(ModelError, match="acc cannot have") as caught:
        make_kernels("acc", 3, width)
    assert caught.value.expected == "a positive multiple of 12"


def test_windows_are_divided_by_the_declared_scale(vectors: dict[str, Array]) -> None:
    windows = vectors["acc.long.windows"]
    np.testing.assert_allclose(encoder("acc", scale=250.0)(250.0 * windows), encoder("acc")(windows), atol=1e-5)


def test_the_batch_does_not_matter(vectors: dict[str, Array]) -> None:
    windows = np.concatenate([vectors["acc.long.windows"]] * 40)
    many = encoder("acc")(windows)
    np.testing.assert_allclose(many, np.tile(encoder("acc")(windows[:2]), (40, 1)), rtol=0, atol=1e-6)
    assert encoder("acc")(windows[:0]).shape == (0, WIDTH)


def test_frames_are_encoded_as_the_series_of_their_pooled_cells() -> None:
    frames = np.random.default_rng(0).standard_normal((3, 20, 24, 4)).astype(np.float32)
    found = encoder("depth", frame=(24, 4), width=48)(frames)
    series = pool_frames(frames)
    record = ModalityRecord(
        kind="series", channels=40, encoder="universal", encoder_blob=NO_BLOB, width=48, adapter_blob=NO_BLOB
    )
    np.testing.assert_array_equal(found, UniversalEncoder(universal_session(), "depth", record)(series))


def test_windows_that_do_not_fit_or_are_not_finite_are_refused(vectors: dict[str, Array]) -> None:
    windows = vectors["acc.long.windows"].copy()
    for wrong in (windows[:, :15], windows[:, :, :2], windows[0]):
        with pytest.raises(DataError, match="another shape"):
            encoder("acc")(wrong)
    windows[1, 3, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        encoder("acc")(windows)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 43), width=st.integers(1, 43), seed=st.integers(0, 2**31))
def test_frames_are_pooled_to_the_means_of_their_cells(height: int, width: int, seed: int) -> None:
    frames = np.random.default_rng(seed).standard_normal((2, 3, height, width)).astype(np.float32)
    rows, columns = min(height, MAX_CELLS), min(width, MAX_CELLS)
    expected = np.zeros((2, 3, rows, columns))
    for i in range(rows):
        for j in range(columns):
            # Cell i of 10 takes the rows from floor(i * H / 10) up to the next cell's first.
            top, bottom = (i * height // 10, (i + 1) * height // 10) if height > 10 else (i, i + 1)
            left, right = (j * width // 10, (j + 1) * width // 10) if width > 10 else (j, j + 1)
            expected[:, :, i, j] = frames[:, :, top:bottom, left:right].astype(np.float64).mean(axis=(2, 3))
    pooled = pool_frames(frames)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, expected.reshape(2, 3, -1), rtol=0, atol=1e-6)
