from __future__ import annotations

from pathlib import Path

import pytest

from edge_cmcl.data.simulator import write_simulated

SENSORS = ("vibration", "current", "pressure")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with recordings of three sensors, of 3, 1 and 1 channels, and labels."""
    write_simulated(tmp_path / "train.safetensors", 60, SENSORS, seed=1, windows_per_run=5)
    write_simulated(tmp_path / "test.safetensors", 40, SENSORS, seed=2, windows_per_run=5)
    return tmp_path
