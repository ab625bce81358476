from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from machine_bundle import Machine, make_machine, teach

from edge_cmcl.bundle import Store
from edge_cmcl.device.store import install, open_store


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return make_machine(tmp_path_factory)


@pytest.fixture
def store(machine: Machine, tmp_path: Path) -> Store:
    """A device store on which the machine's bundle is installed, this test's own."""
    install(machine.bundle, tmp_path / "store", trust=machine.public_key)
    return open_store(tmp_path / "store")


@pytest.fixture(scope="session")
def taught(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A device store that has learned acoustic and the labels; read only."""
    return teach(machine, tmp_path_factory.mktemp("taught") / "store")


@pytest.fixture
def taught_copy(taught: Store, tmp_path: Path) -> Store:
    """A copy of `taught` that a test may change."""
    shutil.copytree(taught.root, tmp_path / "taught")
    return open_store(tmp_path / "taught")
