from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from changed_bundles import changed_bundle, changed_modality
from drift_samples import changed, first, noisy, remounted
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.drift import Drift, drift
from edge_cmcl.device.model import Model
from edge_cmcl.device.opening import open_model
from edge_cmcl.device.store import install
from edge_cmcl.errors import DataError, ModelError, UsageError


def watched(model: Model, file: Path, *modalities: str) -> dict[str, Drift]:
    with open_pairs(file) as pairs:
        return {each.modality: each for each in drift(model, pairs, modalities)}


def test_windows_of_another_day_are_normal(taught: Store, machine: Machine) -> None:
    found = watched(open_model(taught.root), machine.test)
    assert set(found) == {"acoustic", "current", "vibration"}
    for each in found.values():
        assert each.verdict == "normal"
        assert each.windows == 120
        assert each.outside is not None
        assert each.threshold is not None
        assert 0.0 < each.outside <= each.threshold
        assert each.beyond is not None
        assert each.beyond <= 3 * each.false_alarms


def test_a_remounted_sensor_has_drifted_and_the_others_have_not(
    taught: Store, machine: Machine, tmp_path: Path
) -> None:
    recent = changed(machine.test, tmp_path / "turned.safetensors", "vibration", remounted)
    found = watched(open_model(taught.root), recent)
    assert {name: each.verdict for name, each in found.items()} == {
        "acoustic": "normal",
        "current": "normal",
        "vibration": "drifted",
    }


@pytest.mark.parametrize("sensor", ["acoustic", "current"])
def test_a_sensor_drowned_in_noise_has_drifted(taught: Store, machine: Machine, tmp_path: Path, sensor: str) -> None:
    recent = changed(machine.test, tmp_path / "noisy.safetensors", sensor, noisy)
    found = watched(open_model(taught.root), recent, sensor)[sensor]
    assert found.verdict == "drifted"
    assert found.beyond is not None
    assert found.beyond > 3 * found.false_alarms


def test_few_windows_may_have_drifted_but_are_never_called_normal(
    taught: Store, machine: Machine, tmp_path: Path
) -> None:
    model = open_model(taught.root)
    few = first(machine.test, tmp_path / "few.safetensors", 3)
    assert {each.verdict for each in watched(model, few).values()} == {"too few"}
    bad = changed(few, tmp_path / "bad.safetensors", "acoustic", lambda windows: 10.0 * noisy(windows))
    assert watched(model, bad)["acoustic"].verdict == "drifted"


def test_a_sensor_without_a_window_is_too_few(taught: Store, machine: Machine, tmp_path: Path) -> None:
    with open_pairs(machine.test) as pairs:
        windows = {"current": pairs.read("current"), "acoustic": pairs.read("acoustic")}
        valid = {"acoustic": np.zeros(pairs.n, np.bool_)}
        write_pairs(tmp_path / "gone.safetensors", windows, valid=valid)
    found = watched(open_model(taught.root), tmp_path / "gone.safetensors")
    assert (found["acoustic"].verdict, found["acoustic"].windows, found["acoustic"].outside) == ("too few", 0, None)
    assert found["current"].verdict == "normal"


@pytest.mark.parametrize("calibration", [{}, {"drift": "of another version"}, {"drift": {"base": {"limit": 3}}}])
def test_a_bundle_without_thresholds_that_are_known_here_is_not_calibrated(
    machine: Machine, tmp_path: Path, calibration: dict[str, object]
) -> None:
    bundle = changed_bundle(
        machine.bundle, tmp_path, lambda _, made: changed_modality(made, "vibration", calibration=calibration)
    )
    install(bundle, tmp_path / "store", allow_unsigned=True)
    found = watched(open_model(tmp_path / "store"), machine.test)
    assert (found["vibration"].verdict, found["vibration"].threshold, found["vibration"].beyond) == (
        "not calibrated",
        None,
        None,
    )
    assert found["vibration"].outside is not None
    assert found["current"].verdict == "normal"


def test_the_host_calibrates_every_sensor_of_the_base_and_an_update_what_it_learns(store: Store, taught: Store) -> None:
    before, after = Model(store.load("current")).generation, Model(taught.load("current")).generation
    for name in ("vibration", "current"):
        (entry,) = before.modalities[name].calibration["drift"].values()  # type: ignore[union-attr]
        assert entry["false_alarms"] == 0.05
        assert [size for size, _ in entry["thresholds"]][:3] == [1, 2, 4]
    assert len(after.modalities["vibration"].calibration["drift"]) == 2  # type: ignore[arg-type]
    assert len(after.modalities["acoustic"].calibration["drift"]) == 1  # type: ignore[arg-type]
    assert after.modalities["current"].calibration == before.modalities["current"].calibration
    assert after.modalities["text"].calibration == {}


def test_what_is_not_a_known_sensor_of_the_file_is_refused(taught: Store, machine: Machine, tmp_path: Path) -> None:
    model = open_model(taught.root)
    with pytest.raises(UsageError):
        watched(model, machine.test, "text")
    with pytest.raises(ModelError):
        watched(model, machine.test, "pressure")
    with open_pairs(machine.test) as pairs:
        write_pairs(tmp_path / "other.safetensors", {"pressure": pairs.read("pressure")})
    with pytest.raises(DataError):
        watched(model, tmp_path / "other.safetensors")
    with pytest.raises(DataError):
        watched(model, tmp_path / "other.safetensors", "vibration")


def test_the_report_is_plain_json(taught: Store, machine: Machine) -> None:
    for each in watched(open_model(taught.root), machine.test).values():
        assert json.loads(json.dumps(each.as_json())) == each.as_json()
