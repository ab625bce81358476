from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from machine_bundle import Machine, make_small_machine, once
from worlds import LESSONS, World, teach

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.keys import read_private_key
from edge_cmcl.device.store import install


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return make_small_machine(tmp_path_factory)


@pytest.fixture(scope="session")
def template(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two devices that have synced before, and have learned since; read only."""
    host = read_private_key(machine.key)

    def make(folder: Path) -> None:
        (folder / "remote").mkdir()
        for name, (modality, partners) in LESSONS.items():
            install(machine.bundle, folder / name, trust=machine.public_key)
            teach(World(folder, host).device(name), machine.new, modality, partners)

    return World(once(tmp_path_factory, "fleet-template", make), host)


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    """A copy of `template` that a test may change."""
    shutil.copytree(template.folder, tmp_path / "world")
    return World(tmp_path / "world", template.host)


@pytest.fixture(scope="session")
def pulled_template(template: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same after the devices have synced and the host has pulled; read only."""
    folder = tmp_path_factory.mktemp("pulled") / "world"
    shutil.copytree(template.folder, folder)
    world = World(folder, template.host)
    for name in LESSONS:
        world.sync(name)
    world.pull()
    return world


@pytest.fixture
def pulled(pulled_template: World, tmp_path: Path) -> World:
    """A copy of `pulled_template` that a test may change; its folders are others, so the remote is a new one."""
    shutil.copytree(pulled_template.folder, tmp_path / "world")
    return World(tmp_path / "world", pulled_template.host)


@pytest.fixture(scope="session")
def teacher(machine: Machine) -> Callable[[Store, str, list[str]], None]:
    """Let a device learn from the machine's recording: `teacher(store, "acoustic", ["text"])`."""

    def learn(store: Store, modality: str, partners: list[str]) -> None:
        teach(store, machine.new, modality, partners)

    return learn
