"""`edge-cmcl assess` as it is installed. How often it is wrong on real data: tests/bench/assess_rates.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_command import Device, tree
from machine_bundle import Machine
from prepared_data import prepared

from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.store import install
from edge_cmcl.host.export import export
from edge_cmcl.host.run import load_run
from edge_cmcl.host.train import train

ASK = ("assess", "--modality", "acoustic", "--with", "vibration")
KEYS = {
    *("modality", "partners", "known", "recommendation", "reasons", "pairs", "looked_at", "evidence", "new_share"),
    *("judged", "certificate", "failed", "cost", "seconds", "warnings"),
}


def test_assess_answers_and_changes_nothing(device: Device, machine: Machine) -> None:
    before = tree(device.folder)
    found = device(*ASK, "--data", machine.new)
    assert set(found) == KEYS
    assert found["recommendation"] == "learn"
    assert found["pairs"] == 240
    assert found["evidence"][0]["p"] <= 0.01
    assert {"seconds", "total_s", "peak_memory_bytes", "bytes_added", "joules"} <= set(found["cost"])
    assert any(each["relative"] > 0 for each in found["certificate"])
    assert tree(device.folder) == before


def test_assess_tells_people_the_recommendation_first(
    run_cli: Callable[..., Any], device: Device, machine: Machine
) -> None:
    shown = run_cli(*ASK, "--data", machine.new, env=device.environment)
    assert shown.code == 0
    assert shown.stdout.startswith("acoustic (NEW): learn\n- it predicts vibration")
    for part in ("would risk", "would cost", "new: ", "nothing was changed", "energy"):
        assert part in shown.stdout


def test_a_partner_that_the_recording_lacks_is_bad_input(device: Device, machine: Machine) -> None:
    error = device.refused("assess", "--modality", "acoustic", "--with", "pressure", "--data", machine.new, code=3)
    assert "pressure" in error["message"]


@pytest.mark.slow
def test_on_real_sensors_assess_tells_what_belongs_together(
    archive: Callable[[str], Path], run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    data = prepared("utd_mhad", archive("utd_mhad"))
    (tmp_path / "edge-cmcl.toml").write_text(
        'name = "utd"\n[modality.skeleton]\nchannels = 60\nrate_hz = 18\nwindow_s = 3.5\n'
        '[modality.acc]\nchannels = 3\nrate_hz = 36\nwindow_s = 3.5\nunit = "g"\n'
        f'[[pair]]\nmodalities = ["skeleton", "acc"]\ntrain = ["{data}/train.safetensors"]\n'
    )
    train(tmp_path, tmp_path / "run", seed=0)
    export(load_run(tmp_path / "run"), tmp_path / "base.tar")
    install(tmp_path / "base.tar", tmp_path / "store", allow_unsigned=True)
    rng = np.random.default_rng(0)
    with open_pairs(data / "test.safetensors") as pairs:
        assert pairs.groups is not None
        for sensor, partner in (("gyro", "acc"), ("depth", "skeleton")):
            windows = {name: pairs.read(name) for name in (sensor, partner)}
            for size, wrong, right in ((100, False, "learn"), (32, True, "do not learn")):
                rows = np.sort(rng.choice(pairs.n, size, replace=False))
                drawn = {name: values[rows] for name, values in windows.items()}
                if wrong:
                    drawn[sensor] = rng.permutation(drawn[sensor])
                write_pairs(tmp_path / "drawn.safetensors", drawn, groups=pairs.groups[rows])
                asked = ("assess", "--modality", sensor, "--data", tmp_path / "drawn.safetensors")
                found = run_cli(*asked, "--store", tmp_path / "store", "--json").json
                assert found["recommendation"] == right, (sensor, found["reasons"])
