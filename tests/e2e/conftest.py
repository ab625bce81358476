from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device_command import Device
from machine_bundle import Machine, make_small_machine

from edge_cmcl.device.store import install


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return make_small_machine(tmp_path_factory)


@pytest.fixture
def device(run_cli: Callable[..., Any], machine: Machine, tmp_path: Path) -> Device:
    """A device on which the machine's bundle is installed."""
    made = Device(run_cli, tmp_path)
    install(machine.bundle, made.store, trust=machine.public_key)
    return made
