"""Readers of the public data sets, on tiny data sets in the published formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import published
import pytest

from edge_cmcl.data.pairs import open_pairs
from edge_cmcl.data.prepare import catalogue, prepare
from edge_cmcl.data.prepare.utd_depth import block_means
from edge_cmcl.errors import DataError


def _read(path: Path, *modalities: str) -> list[np.ndarray]:
    with open_pairs(path) as pairs:
        return [pairs.read(modality) for modality in modalities]


def test_the_catalogue_covers_the_eleven_steps_of_the_stream() -> None:
    entries = catalogue()
    assert [e.name for e in entries] == ["utd_mhad", "sisfall", "isl_myo", "sp_sw_har", "borealtc", "hydraulic"]
    assert sum(len(entry.steps) for entry in entries) == 11
    assert all(entry.url.startswith("http") and entry.licence and entry.citation for entry in entries)


def test_utd_trials_become_whole_windows_in_g_radians_and_metres(tmp_path: Path) -> None:
    for subject in (1, 2, 3):
        published.utd_trial(tmp_path / "utd", subject, action=subject)
    report = prepare("utd_mhad", tmp_path / "utd", tmp_path / "out")
    assert [(f.path.name, f.windows) for f in report.files] == [("train.safetensors", 2), ("test.safetensors", 1)]
    with open_pairs(tmp_path / "out" / "train.safetensors") as pairs:
        assert pairs.groups is not None
        assert pairs.groups.tolist() == [1, 3]
        assert pairs.labels is not None
        assert [pairs.label_names[i] for i in pairs.labels] == ["right arm swipe to the left", "right hand wave"]
        assert len(pairs.label_names) == 27
        acc, gyro, skeleton, depth = (pairs.read(m) for m in ("acc", "gyro", "skeleton", "depth"))
    assert acc.shape == (2, 128, 3)
    np.testing.assert_allclose(acc[0], np.linspace(0, 1, 128)[:, None] + [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(gyro[0, -1], np.pi, atol=1e-6)
    # Joint j holds 3 j + axis, moving by +-0.5; the third joint's mean is 6 + axis.
    expected = np.arange(60) // 3 * 3 - 6 + np.linspace(-0.5, 0.5, 64)[:, None]
    np.testing.assert_allclose(skeleton[0], expected, atol=1e-5)
    assert depth.shape == (2, 64, 30, 40)
    np.testing.assert_allclose(depth[0, 0, 10:20, 13:25], 2.0, atol=1e-6)  # rows 80..160, columns 104..200
    np.testing.assert_allclose(depth[0, -1, 10:20, 13:25], 2.0 - 0.06, atol=1e-6)  # every second of 8 frames
    assert depth[0, :, :10].max() == 0


def test_utd_small_depth_gives_what_the_published_videos_give(tmp_path: Path) -> None:
    for folder, depth in (("videos", True), ("small", False)):
        for subject in (1, 2):
            published.utd_trial(tmp_path / folder, subject, depth=depth)
    small = (np.rint(block_means(published.utd_depth_video()) / 8) * 8).astype(np.uint16)
    np.savez_compressed(tmp_path / "small" / "depth_60x80.npz", a1_s1_t1=small, a1_s2_t1=small)
    frames = []
    for folder in ("videos", "small"):
        prepare("utd_mhad", tmp_path / folder, tmp_path / f"{folder}-out")
        frames += _read(tmp_path / f"{folder}-out" / "test.safetensors", "depth")
    assert frames[0].max() > 1.9
    np.testing.assert_allclose(frames[0], frames[1], atol=0.0041)


def test_a_depth_block_needs_eight_readings() -> None:
    video = np.zeros((240, 320, 3), dtype=np.uint16)
    video[:2, :4, 0] = 1000  # 8 readings
    video[4:6, :4, 0] = 1000
    video[4, 0, 0] = 0  # 7 readings
    means = block_means(video)
    assert means.shape == (2, 60, 80)
    assert means[0, 0, 0] == 1000
    assert means[0, 1, 0] == 0


def test_utd_without_depth_files_is_prepared_without_depth_and_says_so(tmp_path: Path) -> None:
    for subject in (1, 2):
        published.utd_trial(tmp_path / "utd", subject, depth=False)
    report = prepare("utd_mhad", tmp_path / "utd", tmp_path / "out")
    assert sorted(report.files[0].shapes) == ["acc", "gyro", "skeleton"]
    assert any("depth" in note for note in report.notes)


def test_utd_trials_that_lack_a_file_are_dropped_and_counted(tmp_path: Path) -> None:
    for subject in (1, 2, 3):
        published.utd_trial(tmp_path / "utd", subject, depth=subject != 3)
    published.utd_trial(tmp_path / "utd", 5)
    (tmp_path / "utd" / "Skeleton" / "a1_s5_t1_skeleton.mat").unlink()
    report = prepare("utd_mhad", tmp_path / "utd", tmp_path / "out")
    assert report.drops.dropped == {"no depth file": 1, "no skeleton file": 1}
    assert report.drops.kept == 2


@pytest.mark.parametrize("content", [b"", b"not matlab at all", b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_a_damaged_mat_file_is_named(tmp_path: Path, content: bytes) -> None:
    for subject in (1, 2):
        published.utd_trial(tmp_path / "utd", subject, depth=False)
    (tmp_path / "utd" / "Inertial" / "a1_s1_t1_inertial.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"a1_s1_t1_inertial\.mat"):
        prepare("utd_mhad", tmp_path / "utd", tmp_path / "out")


def test_damaged_small_depth_is_named(tmp_path: Path) -> None:
    for subject in (1, 2):
        published.utd_trial(tmp_path / "utd", subject, depth=False)
    small = tmp_path / "utd" / "depth_60x80.npz"
    frames = np.random.RandomState(0).randint(1000, 3000, (8, 60, 80)).astype(np.uint16)
    np.savez_compressed(small, a1_s1_t1=frames, a1_s2_t1=frames)
    whole = small.read_bytes()
    flipped = whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:]
    for content in (b"", whole[: len(whole) // 2], flipped):
        small.write_bytes(content)
        with pytest.raises(DataError, match="depth_60x80"):
            prepare("utd_mhad", tmp_path / "utd", tmp_path / "out")


def test_sisfall_takes_the_middle_six_seconds_in_physical_units(tmp_path: Path) -> None:
    published.sisfall_trial(tmp_path / "sis", "F01", "SA02")
    published.sisfall_trial(tmp_path / "sis", "D02", "SA05")
    published.sisfall_trial(tmp_path / "sis", "D03", "SA05", seconds=5.9)
    published.sisfall_trial(tmp_path / "sis", "D04", "SA23")
    report = prepare("sisfall", tmp_path / "sis", tmp_path / "out")
    assert report.drops.dropped == {"trial shorter than 6 s": 1}
    assert report.notes == ("Trials of other subjects that are not used: 1 (SA23).",)
    with open_pairs(tmp_path / "out" / "train.safetensors") as pairs:
        assert pairs.labels is not None
        assert pairs.label_names[pairs.labels[0]] == "fall forward while walking, slip"
        acc, gyro = pairs.read("acc")[0], pairs.read("gyro")[0]
    # 2400 rows: the middle is rows 600 to 1799, and the mean of 4 counts stands 1.5 after the first of them.
    np.testing.assert_allclose(acc[[0, -1], 0] * 256, [601.5, 1797.5], rtol=1e-5)
    np.testing.assert_allclose(np.rad2deg(gyro[[0, -1], 2]) * 14.375, [601.5, 1797.5], rtol=1e-5)


def test_a_damaged_sisfall_line_is_named(tmp_path: Path) -> None:
    published.sisfall_trial(tmp_path, subject="SA05")
    path = published.sisfall_trial(tmp_path)
    path.write_text(path.read_text().replace("1000,", "10#0,", 1))
    with pytest.raises(DataError, match=r"D01_SA01_R01\.txt"):
        prepare("sisfall", tmp_path, tmp_path / "out")


def test_isl_gestures_are_split_by_session_and_short_gaps_are_filled(tmp_path: Path) -> None:
    for minute in range(4):
        published.isl_gesture(tmp_path / "isl", "B", f"26/06/20/10:{minute:02d}:00", missing=80 if minute == 0 else 0)
    published.isl_gesture(tmp_path / "isl", "C", "27/06/20/10:00:00", missing=81)
    published.isl_gesture(tmp_path / "isl", "C", "09/07/20/10:00:00")
    report = prepare("isl_myo", tmp_path / "isl", tmp_path / "out")
    assert report.drops.as_json() == {"kept": 5, "dropped": {"more than 20% missing": 1}, "interpolated": 80}
    with open_pairs(tmp_path / "out" / "train.safetensors") as pairs:
        assert pairs.groups is not None
        assert pairs.groups.tolist() == [0, 0, 0, 1]
        acc, gyro, emg = pairs.read("acc"), pairs.read("gyro"), pairs.read("emg")
        assert pairs.shape("orientation") == (128, 4)
    np.testing.assert_allclose(acc[0, :, 0], np.linspace(0, 399 / 400, 128), atol=1e-5)
    np.testing.assert_allclose(gyro[..., 0], np.pi, rtol=1e-6)
    assert emg.shape == (4, 256, 8)
    np.testing.assert_allclose(emg[..., 7], -1.0)
    with open_pairs(tmp_path / "out" / "test.safetensors") as pairs:
        assert pairs.n == 1
        assert pairs.groups is not None
        assert pairs.groups.tolist() == [100]


def test_phone_and_watch_rows_are_the_same_moment(tmp_path: Path) -> None:
    for subject in (15, 16):
        published.sp_sw_recording(tmp_path / "sp", subject, "sp", offset_ms=0)
        published.sp_sw_recording(tmp_path / "sp", subject, "sw", offset_ms=253)
    published.sp_sw_recording(tmp_path / "sp", 17, "sw")
    report = prepare("sp_sw_har", tmp_path / "sp", tmp_path / "out")
    assert report.notes == ("Executions with the file of only one device that are not used: 1.",)
    for split, subject in (("train", 15), ("test", 16)):
        with open_pairs(tmp_path / "out" / f"phone_{split}.safetensors") as pairs:
            assert pairs.groups is not None
            assert set(pairs.groups.tolist()) == {subject}
            assert pairs.labels is not None
            labels = [pairs.label_names[i] if i >= 0 else "" for i in pairs.labels]
            phone = pairs.read("gyro")
            np.testing.assert_allclose(pairs.time, 1657544336.253 + np.arange(4), rtol=0, atol=1e-3)
        (watch, acc) = _read(tmp_path / "out" / f"watch_{split}.safetensors", "gyro", "acc")
        # 0.253 s to 5.993 s hold four windows; the activity changes at 3 s: 87 % into the second, 37 % into the third.
        assert labels == ["seated", "seated", "", "walking"]
        np.testing.assert_allclose(phone, watch, atol=1e-4)
        np.testing.assert_allclose(phone[:, 0, 0], 0.253 + np.arange(4), atol=1e-4)
        np.testing.assert_allclose(acc * 9.80665, watch, atol=1e-4)


def test_a_short_gap_is_filled_and_a_long_one_drops_its_windows(tmp_path: Path) -> None:
    published.sp_sw_recording(tmp_path / "sp", 1, "sp", gap_s=(1.2, 1.5))
    published.sp_sw_recording(tmp_path / "sp", 1, "sw", gap_s=(4.2, 4.8))
    for device in ("sp", "sw"):
        published.sp_sw_recording(tmp_path / "sp", 20, device)
    report = prepare("sp_sw_har", tmp_path / "sp", tmp_path / "out")
    # Windows start at 0, 1, 2, 3 and 4 s; the last two hold the long gap, the first two the short one.
    assert report.drops.dropped == {"more than 20% missing": 2}
    (phone,) = _read(tmp_path / "out" / "phone_train.safetensors", "gyro")
    np.testing.assert_allclose(phone[:, :, 0], np.arange(3)[:, None] + np.arange(128) / 64, atol=1e-4)
    assert report.drops.interpolated == 2 * 2 * 19  # clock ticks strictly inside 0.3 s, acc and gyro, two windows


def test_repeated_and_falling_time_stamps(tmp_path: Path) -> None:
    for subject in (1, 20):
        for device in ("sp", "sw"):
            path = published.sp_sw_recording(tmp_path / "sp", subject, device)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:100], lines[99], *lines[100:]]))
    assert prepare("sp_sw_har", tmp_path / "sp", tmp_path / "out").drops.kept == 10
    path.write_text("\n".join([*lines[:100], lines[90], *lines[100:]]))
    with pytest.raises(DataError, match=r"s20_01_sw\.csv"):
        prepare("sp_sw_har", tmp_path / "sp", tmp_path / "out")


def test_borealtc_windows_share_a_clock_and_follow_the_run(tmp_path: Path) -> None:
    published.borealtc_run(tmp_path / "b", "ICE", 3)
    published.borealtc_run(tmp_path / "b", "SANDY_LOAM", 4)
    published.borealtc_run(tmp_path / "b", "SNOW", 5, kinds="pro")
    report = prepare("borealtc", tmp_path / "b", tmp_path / "out")
    assert report.notes == ("Runs with only one of their imu and pro files are not used: SNOW 05.",)
    assert [file.windows for file in report.files] == [2, 2]
    with open_pairs(tmp_path / "out" / "train.safetensors") as pairs:
        assert pairs.groups is not None
        assert pairs.groups.tolist() == [3004, 3004]
        np.testing.assert_allclose(pairs.time, [0, 5])
        assert pairs.labels is not None
        assert pairs.label_names[pairs.labels[0]] == "sandy loam"
        acc, gyro, current, speed = (pairs.read(m) for m in ("acc", "gyro", "current", "wheel_speed"))
    imu_clock, drive_clock = np.arange(256) * 5 / 256, np.arange(32) * 5 / 32
    for window in (0, 1):
        np.testing.assert_allclose(gyro[window, :, 1], imu_clock + 5 * window, atol=1e-5)
        np.testing.assert_allclose(acc[window, :, 2] * 9.80665, imu_clock + 5 * window, atol=1e-5)
        np.testing.assert_allclose(current[window, :, 0] * 10, drive_clock + 5 * window, atol=1e-5)
        np.testing.assert_allclose(speed[window, :, 1], drive_clock + 5 * window, atol=1e-5)


def test_a_table_without_its_columns_is_named(tmp_path: Path) -> None:
    for run in (3, 4):
        published.borealtc_run(tmp_path, "ICE", run)
    path = tmp_path / "ICE" / "imu_04.csv"
    path.write_text(path.read_text().replace("ax", "a_x", 1))
    with pytest.raises(DataError, match=r"ICE/imu_04\.csv") as caught:
        prepare("borealtc", tmp_path, tmp_path / "out")
    assert "no ax" in caught.value.got


def test_hydraulic_is_standardised_by_its_training_cycles_only(tmp_path: Path) -> None:
    published.hydraulic_rig(tmp_path / "rig")
    prepare("hydraulic", tmp_path / "rig", tmp_path / "out")
    temperature, vibration = _read(tmp_path / "out" / "train.safetensors", "temperature", "vibration")
    assert temperature.shape == (8, 60, 4)
    np.testing.assert_allclose(temperature.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(vibration.std(axis=(0, 1)), 1, atol=1e-5)
    (test,) = _read(tmp_path / "out" / "test.safetensors", "vibration")
    assert abs(test.mean()) > 0.1  # cycles 0, 3, 6, 9 lie lower than the others
    with open_pairs(tmp_path / "out" / "test.safetensors") as pairs:
        assert pairs.labels is not None
        assert {pairs.label_names[i] for i in pairs.labels} == {"cooler close to total failure"}
        assert "vibration: mean and deviation" in pairs.source


def test_a_missing_hydraulic_sensor_is_named(tmp_path: Path) -> None:
    published.hydraulic_rig(tmp_path / "rig")
    (tmp_path / "rig" / "VS1.txt").unlink()
    with pytest.raises(DataError) as caught:
        prepare("hydraulic", tmp_path / "rig", tmp_path / "out")
    assert "VS1.txt" in caught.value.got
