from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from machine_bundle import Machine, make_small_machine, teach
from running_service import RunningService, start

from edge_cmcl.bundle import Store
from edge_cmcl.device.starting import confirm
from edge_cmcl.device.store import open_store


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return make_small_machine(tmp_path_factory)


@pytest.fixture(scope="session")
def taught(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A device store that has learned acoustic and the labels, and confirmed that; read only."""
    store = teach(machine, tmp_path_factory.mktemp("taught") / "store")
    confirm(store)
    return store


@pytest.fixture
def taught_copy(taught: Store, tmp_path: Path) -> Store:
    """A copy of `taught` that a test may change."""
    shutil.copytree(taught.root, tmp_path / "store")
    return open_store(tmp_path / "store")


@pytest.fixture(scope="module")
def service(taught: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The installed service on `taught`, over a unix socket, for the tests of one file."""
    folder = tmp_path_factory.mktemp("service")
    with start(folder, "--store", taught.root, "--socket", folder / "s") as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., RunningService]]:
    """Start the installed service with options, this test's own: `serve("--store", store.root, "--port", "0")`."""
    with ExitStack() as running:
        yield lambda *options, **more: running.enter_context(start(tmp_path, *options, **more))
