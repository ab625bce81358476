from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_cmcl.data.machine import STATES
from edge_cmcl.data.pairs import open_pairs
from edge_cmcl.data.simulator import SENSORS, SimulatedMachine, simulate, write_simulated
from edge_cmcl.errors import UsageError


@pytest.fixture(scope="module")
def days() -> tuple[SimulatedMachine, SimulatedMachine]:
    return simulate(600, seed=0), simulate(200, seed=1)


def features(windows: np.ndarray) -> np.ndarray:
    """Level, spread and trend over time, and the logarithm of the spectrum."""
    signal = windows.astype(np.float64)
    n, samples, channels = signal.shape
    spectrum = np.abs(np.fft.rfft((signal - signal.mean(1, keepdims=True)) * np.hanning(samples)[:, None], axis=1))
    quarters = signal[:, : samples // 4 * 4].reshape(n, 4, -1, channels).mean(2)
    logs = np.log(spectrum[:, 1:] + 0.01 * spectrum.mean())
    return np.concatenate([quarters.reshape(n, -1), signal.std(1), logs.reshape(n, -1)], axis=1)


def recall_at_10(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Canonical correlation analysis on 40 principal components; retrieval from the first sensor to the second."""
    whitened = []
    for known, new in zip(train, test, strict=True):
        mean, spread = known.mean(0), known.std(0) + 1e-6
        known, new = (known - mean) / spread, (new - mean) / spread
        axes = np.linalg.svd(known, full_matrices=False)[2][:40].T
        energy, turn = np.linalg.eigh(axes.T @ known.T @ known @ axes / len(known))
        whiten = axes @ turn / np.sqrt(energy + 0.25 * energy.mean())
        whitened.append((known @ whiten, new @ whiten))
    (a, a_new), (b, b_new) = whitened
    left, strength, right = np.linalg.svd(a.T @ b)
    a_new, b_new = a_new @ left[:, :8] * strength[:8], b_new @ right[:8].T * strength[:8]
    a_new /= np.linalg.norm(a_new, axis=1, keepdims=True)
    b_new /= np.linalg.norm(b_new, axis=1, keepdims=True)
    likeness = a_new @ b_new.T
    return float(((likeness > likeness.diagonal()[:, None]).sum(1) < 10).mean())


@pytest.mark.parametrize("pair", list(itertools.combinations(SENSORS, 2)), ids="-".join)
def test_every_two_sensors_share_the_moment(
    days: tuple[SimulatedMachine, SimulatedMachine], pair: tuple[str, str]
) -> None:
    # Chance is 10 of 200, 5 %.
    train, test = (tuple(features(day.windows[name]) for name in pair) for day in days)
    floor = 0.12 if "temperature" in pair else 0.5
    assert recall_at_10((train[0], train[1]), (test[0], test[1])) > floor


def test_six_hundred_windows_of_all_sensors_take_less_than_three_seconds() -> None:
    start = time.process_time()
    simulate(600, seed=3)
    assert time.process_time() - start < 3


def test_windows_have_their_sensors_rates_and_order_one(days: tuple[SimulatedMachine, SimulatedMachine]) -> None:
    assert len(SENSORS) >= 6
    assert len({sensor.rate_hz for sensor in SENSORS.values()}) >= 4
    for name, windows in days[0].windows.items():
        assert windows.shape[:2] == (600, SENSORS[name].samples)
        assert windows.dtype == np.float32
        assert 0.1 < np.sqrt(np.square(windows).mean()) < 3


def test_every_state_has_the_same_share_and_every_run_one_state() -> None:
    made = simulate(240, ["current"], seed=5)
    assert np.bincount(made.labels).tolist() == [40] * len(STATES)
    for run in range(24):
        rows = made.groups == run
        assert rows.sum() == 10
        assert len(set(made.labels[rows])) == 1
    odd = made.labels[made.groups % 2 == 1]
    assert len(set(odd)) > 3


def test_the_seed_decides_every_bit_and_other_sensors_change_nothing() -> None:
    knobs: dict[str, Any] = {"noise": 0.2, "missing": 0.05, "drift": 0.1, "clock_offset_s": 0.1}
    first, again = simulate(20, seed=1, **knobs), simulate(20, seed=1, **knobs)
    alone, other = simulate(20, ["pressure"], seed=1, **knobs), simulate(20, seed=2, **knobs)
    for name in SENSORS:
        np.testing.assert_array_equal(first.windows[name], again.windows[name])
        assert not np.array_equal(first.windows[name], other.windows[name])
    np.testing.assert_array_equal(first.windows["pressure"], alone.windows["pressure"])


def test_shaft_speed_and_the_spectrum_of_an_imbalance_follow_the_true_speed() -> None:
    made = simulate(300, ["vibration", "shaft_speed"], seed=4)
    measured = made.windows["shaft_speed"].mean(axis=(1, 2)) * 400 / 60
    np.testing.assert_allclose(measured, made.speed_hz, rtol=0.03)
    rows = made.labels == STATES.index("imbalance")
    spectrum = np.abs(np.fft.rfft(made.windows["vibration"][rows][:, :, 0] * np.hanning(256), axis=1))
    peaks = np.fft.rfftfreq(256, 1 / 128.0)[spectrum[:, 2:40].argmax(axis=1) + 2]
    assert np.median(np.abs(peaks - made.speed_hz[rows])) < 0.5


def test_missing_samples_are_interpolated_or_the_window_is_marked() -> None:
    made = simulate(60, seed=1, missing=0.1)
    assert made.report.interpolated > 0
    for name, windows in made.windows.items():
        assert np.isfinite(windows).all()
        assert not windows[~made.valid[name]].any()
    share = made.report.interpolated / sum(60 * sensor.samples for sensor in SENSORS.values())
    assert 0.05 < share < 0.12
    assert 0 < sum(int((~valid).sum()) for valid in made.valid.values()) < 200
    whole = simulate(60, seed=1)
    assert whole.report.interpolated == 0
    assert all(valid.all() for valid in whole.valid.values())


def test_noise_drift_and_clock_offset_do_what_they_say() -> None:
    clean = simulate(60, seed=1).windows
    noisy = simulate(60, seed=1, noise=0.5).windows
    assert 0.4 < (noisy["current"] - clean["current"]).std() / clean["current"].std() < 0.6
    drifted = simulate(60, seed=1, drift=0.5).windows["pressure"]
    gain = [drifted[run].std() / clean["pressure"][run].std() for run in (slice(0, 10), slice(50, 60))]
    np.testing.assert_allclose(gain, [1 + 0.5 / 6, 1.5], rtol=1e-5)
    late = simulate(60, ["temperature"], seed=1, clock_offset_s=0.8)
    assert 0 < abs(late.clock_offset_s["temperature"]) <= 0.8
    assert not np.array_equal(late.windows["temperature"], clean["temperature"])


def test_a_simulated_pairs_file_opens_with_all_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "day.safetensors"
    made = write_simulated(path, 30, ["current", "pressure"], seed=2, missing=0.3)
    with open_pairs(path) as pairs:
        assert pairs.modalities == ("current", "pressure")
        assert pairs.label_names == STATES
        assert pairs.rate_hz == {"current": 100.0, "pressure": 80.0}
        assert pairs.units["pressure"] == "bar"
        assert pairs.valid("current").tolist() == made.valid["current"].tolist()
        np.testing.assert_array_equal(pairs.read("pressure"), made.windows["pressure"])
        np.testing.assert_array_equal(pairs.time, 2.0 * np.arange(30))
        assert pairs.window_s("pressure") == 2.0
    write_simulated(path, 30, ["current"], seed=2, labelled=False)
    with open_pairs(path) as pairs:
        assert pairs.labels is None
        assert pairs.groups is not None


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_windows": 0},
        {"sensors": ["radar"]},
        {"sensors": []},
        {"sensors": ["current", "current"]},
        {"missing": 1.0},
        {"noise": -1.0},
        {"clock_offset_s": 2.0},
    ],
)
def test_what_the_machine_cannot_do_is_a_usage_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        simulate(**{"n_windows": 10, "seed": 0, **arguments})
