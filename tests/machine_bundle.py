"""A bundle of the simulated machine, made once per test run by the installed command, as a host makes it."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import EDGE_CMCL

from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs
from edge_cmcl.data.simulator import write_simulated
from edge_cmcl.device.learner import update
from edge_cmcl.device.store import install, open_store

PROJECT = """
name = "machine"

[modality.vibration]
channels = 3
rate_hz = 128.0
window_s = 2.0

[modality.current]
channels = 1
rate_hz = 100.0
window_s = 2.0
encoder = "conv"

[[pair]]
modalities = ["vibration", "current"]
train = ["base.safetensors"]

[train]
epochs = 4
"""


@dataclass(frozen=True)
class Machine:
    """What the host and the operator of the simulated machine hand over.

    Attributes:
        folder: a project with its run; read only.
        bundle: signed with `key`; knows vibration (universal encoder) and current (conv encoder).
        new: pairs file of acoustic, vibration and current, with labels: what the device learns from.
        test: pairs file of every sensor on another day.
    """

    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "base.tar"

    @property
    def key(self) -> Path:
        """The private key that has signed the bundle."""
        return self.folder / "machine.key"

    @property
    def public_key(self) -> Path:
        return self.folder / "machine.key.pub"

    @property
    def new(self) -> Path:
        return self.folder / "new.safetensors"

    @property
    def test(self) -> Path:
        return self.folder / "test.safetensors"

    @property
    def run(self) -> Path:
        return self.folder / "run"


GIVEN = "EDGE_CMCL_TEST_MACHINE"
"""The folder of a machine that is there already: where tests run on a device set, nothing can train one."""


def make_machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Return the machine of this test run."""
    if GIVEN in os.environ:
        return Machine(Path(os.environ[GIVEN]))
    return Machine(once(tmp_path_factory, "machine", make_full))


def make_small_machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Return the small machine of this test run (see `make_small`)."""
    return Machine(once(tmp_path_factory, "small-machine", make_small))


def teach(machine: Machine, root: Path) -> Store:
    """Return a new device store at `root` that has learned acoustic and the labels."""
    install(machine.bundle, root, trust=machine.public_key)
    store = open_store(root)
    with open_pairs(machine.new) as pairs:
        update(store, pairs, "acoustic", partners=["vibration", "text"])
    return store


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of this test run, to be read only: the first worker to ask makes it, the others wait for it.

    Args:
        tmp_path_factory: of the session.
        name: of the folder.
        make: fills the empty folder that it is given.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = shared / f"{name}-making"
            making.mkdir()
            make(making)
            making.rename(folder)
    return folder


def make_full(folder: Path) -> None:
    """Make the machine of a test run in the empty `folder`."""
    _make(folder, PROJECT)


def make_small(folder: Path) -> Machine:
    """Make a machine whose model is as small as it can be, in the empty `folder`, and return it."""
    _make(folder, PROJECT.replace('name = "machine"', 'name = "machine"\nembedding_dim = 16\nwidth = 120'))
    return Machine(folder)


def _make(folder: Path, project: str) -> None:
    write_simulated(folder / "base.safetensors", 240, ("vibration", "current"), seed=1)
    write_simulated(folder / "new.safetensors", 240, ("acoustic", "vibration", "current"), seed=2)
    write_simulated(folder / "test.safetensors", 120, seed=99)
    (folder / "edge-cmcl.toml").write_text(project)
    for arguments in (
        ["train", ".", "--run", "run"],
        ["keys", "generate", "--out", "machine.key"],
        ["export", "run", "--out", "base.tar", "--key", "machine.key"],
    ):
        done = subprocess.run([EDGE_CMCL, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
