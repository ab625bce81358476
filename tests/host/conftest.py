from __future__ import annotations

import pytest
from host_samples import Recordings, project_text, write_encoder, write_project
from machine_bundle import Machine, make_machine

from edge_cmcl.data.simulator import write_simulated
from edge_cmcl.host.run import Run
from edge_cmcl.host.train import train


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return make_machine(tmp_path_factory)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    folder = tmp_path_factory.mktemp("recordings")
    made = Recordings(folder / "train.safetensors", folder / "test.safetensors")
    sensors = ("vibration", "current", "pressure", "shaft_speed")
    write_simulated(made.train, 240, sensors, seed=1, windows_per_run=5)
    write_simulated(made.test, 120, sensors, seed=2, windows_per_run=5)
    return made


@pytest.fixture(scope="session")
def small_run(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of vibration (universal), pressure (an encoder of the user's own) and labels. Read only."""
    folder = tmp_path_factory.mktemp("small")
    encoders = {"vibration": "universal", "pressure": "onnx:mine.onnx"}
    pairs = [("vibration", "pressure"), ("vibration", "text")]
    text = project_text(encoders, pairs, width=120, embedding_dim=32, train="epochs = 3")
    write_encoder(write_project(folder, text, recordings.train) / "mine.onnx")
    return train(folder, folder / "run", device="cpu")
