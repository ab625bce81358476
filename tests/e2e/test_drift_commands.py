"""The drift watch, renewal and `forget` through the installed command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from device_command import Device
from machine_bundle import Machine

from edge_cmcl.data import open_pairs, write_pairs


def louder(source: Path, target: Path, sensors: tuple[str, ...]) -> Path:
    """Write `sensors` of `source` with four times the amplitude of vibration, around another mean."""
    with open_pairs(source) as pairs:
        windows = {name: pairs.read(name) for name in sensors}
        windows["vibration"] = np.asarray(4.0 * windows["vibration"] + 2.0, dtype=np.float32)
        rates = {name: pairs.rate_hz[name] for name in sensors}
        units = {name: pairs.units[name] for name in sensors if name in pairs.units}
        write_pairs(target, windows, rate_hz=rates, units=units)
    return target


def test_status_watches_recent_windows_and_says_how_sure_it_is(device: Device, machine: Machine) -> None:
    plain = device("status")
    assert "drift" not in plain
    found = device("status", "--data", machine.test)
    assert plain["warnings"] == []
    assert {key: value for key, value in found.items() if key != "drift"} == plain
    watched = {each["modality"]: each for each in found["drift"]}
    assert set(watched) == {"vibration", "current"}
    for each in watched.values():
        assert each["verdict"] == "normal"
        assert each["windows"] == 120
        assert 0.0 < each["outside"] <= each["threshold"]
        assert each["false_alarms"] == 0.05
    assert found["warnings"] == []


def test_status_names_the_sensor_that_has_drifted(
    device: Device, machine: Machine, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    recent = louder(machine.test, tmp_path / "recent.safetensors", ("vibration", "current"))
    shown = run_cli("status", "--data", recent, env=device.environment)
    assert shown.code == 0, shown.stderr
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if line.endswith(("drifted", "normal"))}
    assert lines["vibration"].endswith("drifted")
    assert lines["current"].endswith("normal")
    assert "5% of normal files exceed" in " ".join(shown.stdout.split())


def test_update_warns_of_stale_statistics_and_renews_them_when_asked(
    device: Device, machine: Machine, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    other = louder(machine.new, tmp_path / "other.safetensors", ("vibration", "acoustic"))
    asked = ("update", "--modality", "acoustic", "--data", other)
    warned = run_cli(*asked, "--dry-run", env=device.environment)
    assert "WARNING: the statistics of vibration no longer fit" in warned.stdout
    assert "--renew renews them" in warned.stdout
    done = device(*asked, "--renew")
    assert done["renewed"] == ["vibration"]
    (fit,) = done["statistics"]
    assert (fit["modality"], fit["stale"], fit["renewable"]) == ("vibration", True, True)
    assert done["counter"] == 2


def test_forget_removes_a_sensor_and_rollback_brings_it_back(device: Device) -> None:
    planned = device("forget", "--modality", "current", "--dry-run")
    assert (planned["committed"], planned["remaining"]) == ("", ["vibration"])
    done = device("forget", "--modality", "current")
    assert (done["counter"], done["remaining"], done["pairs"]) == (2, ["vibration"], [["vibration", "current"]])
    found = device("status")
    assert (found["action"], [each["modality"] for each in found["modalities"]]) == ("forget", ["vibration"])
    assert found["trial"]["back_to"] == 1
    assert [each["action"] for each in device("log")["generations"]] == ["forget", "export"]
    assert device.refused("forget", "--modality", "vibration", code=5)["type"] == "RefusedError"
    assert "vibration" in device.refused("forget", "--modality", "vibrations", code=3)["to_do"]
    device("rollback")
    assert [each["modality"] for each in device("status")["modalities"]] == ["current", "vibration"]


def test_forget_says_that_a_trained_encoder_goes_with_its_sensor(device: Device, run_cli: Callable[..., Any]) -> None:
    shown = run_cli("forget", "--modality", "current", "--dry-run", env=device.environment)
    assert "WARNING: its conv encoder came with the base" in shown.stdout
    assert shown.stdout.rstrip().endswith("dry run: nothing was changed")
