"""A device has the base install alone, and the whole loop works there on a bundle made elsewhere (issue 2, no. 2)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_command import Device
from environments import PYTHONS
from machine_bundle import Machine, make_machine

from edge_cmcl import tensors
from edge_cmcl.device.golden import TOLERANCE


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The machine at full width: what a device is given."""
    return make_machine(tmp_path_factory)


@pytest.fixture(params=PYTHONS)
def device(
    request: pytest.FixtureRequest, base_bin: Callable[[str], Path], run_cli: Callable[..., Any], tmp_path: Path
) -> Device:
    """A device with the base install alone, and nothing installed on it yet."""
    return Device(run_cli, tmp_path, base_bin(request.param) / "edge-cmcl")


def test_a_device_without_torch_learns_uses_and_forgets_a_sensor(
    device: Device, machine: Machine, tmp_path: Path
) -> None:
    python = device.program.with_name("python")
    imported = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in imported.stderr

    installed = device("install", machine.bundle, "--trust", machine.public_key)
    assert (installed["counter"], installed["modalities"], installed["first"]) == (1, ["current", "vibration"], True)
    learned = {each["modality"]: each["encoder"] for each in device("status")["modalities"]}
    assert learned == {"current": "conv", "vibration": "universal"}
    assert device("embed", machine.test, "--out", "before.safetensors")["modalities"] == ["current", "vibration"]
    assert "no labels have been learned" in device.refused("classify", machine.test, code=3)["message"]
    unknown = device.refused("embed", machine.test, "--modality", "acoustic", "--out", "no", code=3)
    assert "has not learned 'acoustic'" in unknown["message"]

    updated = device("update", "--modality", "acoustic", "--data", machine.new)
    assert (updated["learned"], updated["partners"]) == (["acoustic", "text"], ["current", "vibration", "text"])
    assert updated["counter"] == 2
    for pair in updated["judged"]:
        # A few runs per health state say little of labels; of the sensors' moments they say much.
        assert pair["after"] > (1.0 if "text" in pair["modalities"] else 1.5) * pair["chance"], pair
    assert [each["modality"] for each in device("status")["modalities"]] == ["acoustic", "current", "text", "vibration"]

    classified = device("classify", machine.test, "--modality", "acoustic")
    assert (len(classified["moments"]), len(classified["labels"])) == (120, 6)
    assert classified["accuracy"] > 1.5 / 6
    sensors = ("--from", "acoustic", "--in", "vibration")
    found = device("retrieve", machine.test, machine.test, *sensors, "--row", "0", "--row", "60")
    assert [(hit["query"], len(hit["rows"])) for hit in found["hits"]] == [(0, 10), (60, 10)]

    assert device("rollback")["counter"] == 1
    assert device("embed", machine.test, "--out", "after.safetensors")["modalities"] == ["current", "vibration"]
    assert (tmp_path / "after.safetensors").read_bytes() == (tmp_path / "before.safetensors").read_bytes()
    assert "nothing to roll back to" in device.refused("rollback", code=3)["message"]
    assert [(e["counter"], e["current"]) for e in device("log")["generations"]] == [(2, False), (1, True)]
    assert device("rollback", updated["committed"])["counter"] == 2
    assert device("classify", machine.test, "--modality", "acoustic") == classified


def test_a_device_embeds_as_the_host_does(
    device: Device, run_cli: Callable[..., Any], machine: Machine, tmp_path: Path
) -> None:
    device("install", machine.bundle, "--trust", machine.public_key)
    device("embed", machine.test, "--out", "device.safetensors")
    run_cli("install", machine.bundle, "--allow-unsigned", "--store", "host-store")
    assert run_cli("embed", machine.test, "--out", "host.safetensors", "--store", "host-store").code == 0
    ours, theirs = (_embeddings(tmp_path / f"{name}.safetensors") for name in ("device", "host"))
    assert ours.shape == (120, 256)
    assert np.abs(ours - theirs).max() < TOLERANCE


def test_what_needs_the_host_says_so_on_a_device(device: Device, machine: Machine) -> None:
    for arguments in (["train", machine.folder], ["export", machine.run, "--out", "b.tar"], ["demo"]):
        error = device.refused(*arguments, code=7)
        assert error["type"] == "MissingExtraError"
        assert error["to_do"] == "pip install '.[host]' in a checkout of edge-cmcl"
    measured = device("evaluate", machine.bundle, "--data", machine.test)
    assert [pair["modalities"] for pair in measured["pairs"]] == [["current", "vibration"]]


def _embeddings(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    with tensors.TensorFile(path) as file:
        return np.array(file.read_whole("embeddings"))
