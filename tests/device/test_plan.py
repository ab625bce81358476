from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_cmcl.bundle import ModalityRecord, Store
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.encoders import NO_BLOB
from edge_cmcl.device.golden import golden_windows
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.plan import Plan, make_plan, universal_record
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.update_report import UpdateReport
from edge_cmcl.errors import DataError

RATE_HZ, SAMPLES = 32.0, 64
WINDOW_S = SAMPLES / RATE_HZ


def noise(
    path: Path, n: int = 240, step_s: float = 0.25, sensors: tuple[str, ...] = ("left", "right"), **columns: Any
) -> Path:
    """Write overlapping windows of sensors that have nothing to do with each other."""
    rng = np.random.default_rng(0)
    step = round(step_s * RATE_HZ)
    windows = {}
    for name in sensors:
        record = rng.standard_normal((SAMPLES + step * n, 3)).astype(np.float32)
        windows[name] = np.stack([record[step * i : step * i + SAMPLES] for i in range(n)])
    columns = {"time": step_s * np.arange(n), "rate_hz": dict.fromkeys(sensors, RATE_HZ), **columns}
    write_pairs(path, windows, **columns)
    return path


def plan(store: Store, path: Path, anchor: str = "left", partners: tuple[str, ...] = ("right",)) -> Plan:
    with open_pairs(path) as pairs:
        return make_plan(Model(store.load(CURRENT)), pairs, anchor, partners)


def learn(store: Store, path: Path, anchor: str = "left", partners: tuple[str, ...] = ("right",)) -> UpdateReport:
    with open_pairs(path) as pairs:
        return update(store, pairs, anchor, partners=partners, dry_run=True)


def test_overlapping_windows_of_unrelated_sensors_are_judged_as_chance(store: Store, tmp_path: Path) -> None:
    (judged,) = learn(store, noise(tmp_path / "noise.safetensors")).judged
    assert judged.n == 240
    assert judged.after < 1.2 * judged.chance
    assert judged.interval[0] < judged.chance
    assert judged.no_better_than_chance
    assert judged.as_json()["no_better_than_chance"] is True


def test_they_are_too_where_one_partner_is_in_one_part_of_the_recording_only(store: Store, tmp_path: Path) -> None:
    there = {"third": np.arange(240) >= 200}
    path = noise(tmp_path / "noise.safetensors", sensors=("left", "right", "third"), valid=there)
    found = learn(store, path, partners=("right", "third")).judged
    assert [judged.n for judged in found] == [240, 40]
    for judged in found:
        assert judged.after < 1.3 * judged.chance
        assert judged.interval[0] < judged.chance


@pytest.mark.parametrize("scattered", [False, True])
def test_no_training_row_shares_samples_with_a_held_out_one(store: Store, tmp_path: Path, scattered: bool) -> None:
    there = np.arange(240) >= 200 if scattered else np.ones(240, np.bool_)
    path = noise(tmp_path / "noise.safetensors", sensors=("left", "right", "third"), valid={"third": there})
    splits = plan(store, path, partners=("right", "third")).splits
    assert sorted(np.concatenate([held_out for _, held_out in splits])) == list(range(240))
    for training, held_out in splits:
        assert 0.25 * np.abs(training[:, None] - held_out).min() >= WINDOW_S


def test_a_recording_of_which_every_window_overlaps_every_other_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"too short to judge|overlaps one that is held out") as raised:
        plan(store, noise(tmp_path / "noise.safetensors", n=20))
    assert "overlap less" in raised.value.hint


def test_the_scale_of_large_frames_is_found_in_a_small_part_of_them(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).standard_normal((40, 64, 60, 80)).astype(np.float32)
    write_pairs(tmp_path / "frames.safetensors", {"camera": 4000 * frames + 20000})
    del frames
    with open_pairs(tmp_path / "frames.safetensors") as pairs:
        tracemalloc.start()
        record = universal_record(pairs, "camera", 120)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert record.scale == 4000.0
    assert peak < 45e6


@pytest.mark.parametrize(("frame", "count"), [((60, 80), 4), ((120, 160), 1), ((240, 320), 1)])
def test_golden_windows_of_large_frames_are_fewer(frame: tuple[int, int], count: int) -> None:
    record = ModalityRecord(
        kind="frames", frame=frame, encoder="universal", encoder_blob=NO_BLOB, width=120, adapter_blob=NO_BLOB
    )
    assert golden_windows("camera", record, 64).shape == (count, 64, *frame)
