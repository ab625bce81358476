"""The readers on the real archives: counts, shapes, units, labels, and no subject in both splits."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge_cmcl.data.pairs import open_pairs
from edge_cmcl.data.prepare import PrepareReport, prepare

DATA = Path(__file__).parents[3] / "shared" / "data"


@dataclass
class Part:
    n: int
    windows: dict[str, np.ndarray]
    labels: np.ndarray
    groups: set[int]
    classes: int


def _archive(name: str) -> Path:
    path = DATA / f"{name}.tar.xz"
    if not path.is_file():
        pytest.skip(f"the real recordings of {name} are not here: no ../shared/data/{name}.tar.xz")
    return path


def _prepared(name: str, out: Path) -> tuple[PrepareReport, Part, Part]:
    report = prepare(name, _archive(name), out)
    return report, _part(out / "train.safetensors"), _part(out / "test.safetensors")


def _part(path: Path) -> Part:
    with open_pairs(path) as pairs:
        assert pairs.labels is not None
        assert pairs.groups is not None
        windows = {modality: pairs.read(modality) for modality in pairs.modalities}
        return Part(pairs.n, windows, pairs.labels, set(pairs.groups.tolist()), len(pairs.label_names))


def _assert_in_g_and_rad_s(part: Part, fastest_rad_s: float) -> None:
    assert 0.9 < np.linalg.norm(part.windows["acc"], axis=2).mean() < 1.25
    assert 0.05 < np.linalg.norm(part.windows["gyro"], axis=2).mean() < 3.0
    assert np.abs(part.windows["gyro"]).max() < fastest_rad_s


def test_utd_mhad_of_two_subjects(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="a device reads no .mat files")
    wanted = re.compile(r"a\d+_s[12]_t1_\w+\.mat$|depth_60x80\.npz$")
    with tarfile.open(_archive("utd_mhad")) as tar:
        for member in tar:
            if wanted.search(member.name):
                file = tar.extractfile(member)
                assert file is not None
                (tmp_path / Path(member.name).name).write_bytes(file.read())
    report = prepare("utd_mhad", tmp_path, tmp_path / "out")
    train, test = _part(tmp_path / "out" / "train.safetensors"), _part(tmp_path / "out" / "test.safetensors")
    assert report.drops.as_json() == {"kept": 54, "dropped": {}, "interpolated": 0}
    for part, subject in ((train, 1), (test, 2)):
        assert part.groups == {subject}
        assert np.bincount(part.labels).tolist() == [1] * 27
        _assert_in_g_and_rad_s(part, fastest_rad_s=18.0)  # the sensor ends at 1000 deg/s
        assert part.windows["acc"].shape == (27, 128, 3)
        assert part.windows["skeleton"].shape == (27, 64, 60)
        assert part.windows["depth"].shape == (27, 64, 30, 40)
        body = part.windows["depth"][part.windows["depth"] > 0.5]
        assert 1.5 < np.median(body) < 4.0
        joints = part.windows["skeleton"].reshape(27, 64, 20, 3)
        np.testing.assert_allclose(joints[:, :, 2].mean(axis=1), 0, atol=0.02)
        assert 0.4 < (joints[:, :, 0] - joints[:, :, 2])[..., 1].mean() < 1.0  # head above spine, in metres


@pytest.mark.slow
def test_sisfall(tmp_path: Path) -> None:
    _, train, test = _prepared("sisfall", tmp_path / "out")
    assert (train.n, test.n) == (616, 308)
    assert (train.groups, test.groups) == ({1, 2, 3, 4}, {5, 6})
    for part in (train, test):
        assert part.windows["acc"].shape[1:] == part.windows["gyro"].shape[1:] == (256, 3)
        assert len(set(part.labels.tolist())) == part.classes == 34
        _assert_in_g_and_rad_s(part, fastest_rad_s=40.0)  # 2^15 counts are 2280 deg/s


@pytest.mark.slow
def test_isl_myo(tmp_path: Path) -> None:
    _, train, test = _prepared("isl_myo", tmp_path / "out")
    assert (train.n, test.n) == (702, 78)
    assert np.bincount(train.labels).tolist() == [27] * 26
    assert np.bincount(test.labels).tolist() == [3] * 26
    assert not train.groups & test.groups
    for part in (train, test):
        _assert_in_g_and_rad_s(part, fastest_rad_s=35.0)  # the armband ends at 2000 deg/s
        assert part.windows["emg"].shape[1:] == (256, 8)
        assert np.abs(part.windows["emg"]).max() <= 128 / 50
        np.testing.assert_allclose(np.linalg.norm(part.windows["orientation"], axis=2).mean(), 1.0, atol=0.01)


@pytest.mark.slow
def test_sp_sw_har(tmp_path: Path) -> None:
    report = prepare("sp_sw_har", _archive("sp_sw_har"), tmp_path / "out")
    assert report.drops.as_json()["kept"] == 2186
    for split, n, subjects, labels in (
        ("train", 1406, range(1, 16), [991, 10, 4, 358, 8, 35]),  # unlabelled first: most activities are short
        ("test", 780, range(16, 24), [556, 3, 0, 219, 1, 1]),
    ):
        watch, phone = (_part(tmp_path / "out" / f"{device}_{split}.safetensors") for device in ("watch", "phone"))
        assert watch.n == phone.n == n
        np.testing.assert_array_equal(watch.labels, phone.labels)
        assert np.bincount(watch.labels + 1).tolist() == labels
        for part in (watch, phone):
            assert part.groups == set(subjects)
            assert part.windows["acc"].shape[1:] == part.windows["gyro"].shape[1:] == (128, 3)
            assert part.classes == 5
            _assert_in_g_and_rad_s(part, fastest_rad_s=25.0)


@pytest.mark.slow
def test_borealtc(tmp_path: Path) -> None:
    report, train, test = _prepared("borealtc", tmp_path / "out")
    assert (train.n, test.n) == (536, 361)
    assert "FLOORING 04, FLOORING 06, ICE 01" in report.notes[0]
    assert not train.groups & test.groups
    assert all(group % 1000 % 3 == 0 for group in test.groups)
    for part in (train, test):
        assert len(set(part.labels.tolist())) == part.classes == 5
        _assert_in_g_and_rad_s(part, fastest_rad_s=2.0)
        assert part.windows["current"].shape[1:] == part.windows["wheel_speed"].shape[1:] == (32, 2)
        assert np.abs(part.windows["wheel_speed"]).max() < 1.1  # a Husky A200 ends at 1 m/s


def test_hydraulic(tmp_path: Path) -> None:
    _, train, test = _prepared("hydraulic", tmp_path / "out")
    assert (train.n, test.n) == (1470, 735)
    assert (np.bincount(train.labels) + np.bincount(test.labels)).tolist() == [732, 732, 741]
    assert train.windows["temperature"].shape == (1470, 60, 4)
    for windows in train.windows.values():
        np.testing.assert_allclose(windows.mean(axis=(0, 1)), 0, atol=1e-3)
        np.testing.assert_allclose(windows.std(axis=(0, 1)), 1, atol=1e-3)
