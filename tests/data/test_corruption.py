from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.data.corruption import Corruption, corrupt_file, parse_corruption
from edge_cmcl.errors import UsageError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    time = np.linspace(0.0, 1.0, 64, dtype=np.float32)
    phases = np.linspace(0.0, 6.0, 200, dtype=np.float32)
    wave = np.sin(40.0 * time[None, :, None] + phases[:, None, None]) * np.array([1.0, 10.0], np.float32)
    path = tmp_path / "source.safetensors"
    starts = np.arange(200) * 0.5
    groups = np.arange(200) // 10
    write_pairs(path, {"acc": wave.astype(np.float32)}, groups=groups, time=starts, rate_hz={"acc": 64.0})
    return path


def damaged(source: Path, corruption: Corruption, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    target = source.with_name("damaged.safetensors")
    corrupt_file(source, target, corruption, seed)
    with open_pairs(source) as before, open_pairs(target) as after:
        np.testing.assert_array_equal(after.groups, before.groups)
        np.testing.assert_array_equal(after.time, before.time)
        assert after.rate_hz == before.rate_hz
        return before.read("acc"), after.read("acc")


@pytest.mark.parametrize("decibel", [0.0, 20.0])
def test_noise_has_the_ratio_asked_for_in_every_channel(source: Path, decibel: float) -> None:
    before, after = damaged(source, Corruption(noise=decibel))
    ratio = 10.0 * np.log10(before.var(axis=(0, 1)) / (after - before).var(axis=(0, 1)))
    np.testing.assert_allclose(ratio, decibel, atol=0.3)


def test_missing_samples_are_bridged_and_the_share_is_right(source: Path) -> None:
    before, after = damaged(source, Corruption(missing=0.3))
    changed = (before != after).any(axis=2)
    assert changed.mean() == pytest.approx(0.3, abs=0.02)
    assert not changed[:, [0, -1]].any()
    assert np.abs(after).max() <= np.abs(before).max()


def test_drift_moves_the_baseline_by_standard_deviations(source: Path) -> None:
    before, after = damaged(source, Corruption(drift=2.0))
    moved = (after - before).mean(axis=1)
    np.testing.assert_allclose(moved[0], 0.0, atol=1e-6)
    np.testing.assert_allclose(np.abs(moved[-1]), 2.0 * before.std(axis=(0, 1)), rtol=1e-4)


def test_equal_seeds_give_equal_files_and_others_do_not(source: Path) -> None:
    both = Corruption(noise=10.0, missing=0.1)
    first, again, other = (damaged(source, both, seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_option_is_read_and_named_alike() -> None:
    found = parse_corruption("noise=10,missing=0.2,drift=1.5")
    assert found == Corruption(10.0, 0.2, 1.5)
    assert parse_corruption(found.name) == found


@pytest.mark.parametrize("text", ["", "noise", "noise=loud", "missing=1.5", "noise=1,noise=2", "hum=3", "drift=nan"])
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="cannot corrupt"):
        parse_corruption(text)
