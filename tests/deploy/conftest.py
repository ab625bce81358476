from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import Device
from kits import DEBS, SIZE, build_changed_kit, build_kit, cannot_read_stores, next_version
from machine_bundle import Machine, make_small
from roots import Root, make_root, missing


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is too large to lie about: roots of hundreds of megabytes."""
    if not SIZE:
        pytest.skip("takes minutes: `make deploy` runs it")
    if why := missing():
        pytest.skip(why)
    return tmp_path_factory.mktemp("deploy")


@pytest.fixture(scope="session")
def debian(scratch: Path) -> Root:
    """A Debian root with Python; nobody changes it."""
    return make_root(DEBS, scratch / "debian")


@pytest.fixture(scope="session")
def debian_python(debian: Root) -> str:
    """The version of its Python, such as "3.11"."""
    return debian.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()


@pytest.fixture(scope="session")
def kit(scratch: Path, debian_python: str) -> Path:
    """The kit of this tree, with wheels for the Debian root."""
    return build_kit(scratch / "kit", [(debian_python, platform.machine())])


@pytest.fixture(scope="session")
def next_kit(scratch: Path) -> Path:
    """The kit of the version after, without wheels."""
    return build_changed_kit(scratch / "next", next_version)


@pytest.fixture(scope="session")
def broken_kit(scratch: Path) -> Path:
    """The kit of a version that cannot read this device's store, without wheels."""
    return build_changed_kit(scratch / "broken", cannot_read_stores)


@pytest.fixture(scope="session")
def small(scratch: Path) -> Machine:
    """A host's machine with as small a model as there can be."""
    folder = scratch / "machine"
    folder.mkdir()
    return make_small(folder)


@pytest.fixture
def new_device(debian: Root, tmp_path: Path) -> Callable[[], Device]:
    """Return a device on which nothing is installed: `new_device()`."""
    return lambda: Device(debian).copy(tmp_path / "device")
