"""An arm64 device, emulated: install.sh offline, then a life beside an x86 device and their host (issue 7, no. 1)."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed import Device
from kits import DEBS, build_kit
from machine_bundle import Machine, make_small
from numpy.typing import NDArray
from roots import emulation, make_root, missing

from edge_cmcl import tensors

MACHINE = "aarch64"
TOLERANCE = 1e-4
"""Largest difference of a unit embedding's numbers between the processors; 6e-7 was measured."""
pytestmark = [
    pytest.mark.skipif(not os.environ.get("EDGE_CMCL_ARM64"), reason="takes minutes: `make arm64` runs it"),
    pytest.mark.skipif(platform.machine() == MACHINE, reason="this machine is arm64 itself"),
]


@dataclass
class Board:
    """The emulated device, and the folder that it shares with the machine outside, which is x86.

    Attributes:
        device: the board.
        machine: whose bundle and recordings lie in `shared`.
        run: the fixture `run_cli`, with a store and a fleet of its own below `outside`.
        took_s: seconds by step.
    """

    device: Device
    machine: Machine
    run: Callable[..., Any]
    outside: Path
    took_s: dict[str, float] = field(default_factory=dict)

    @property
    def shared(self) -> Path:
        return self.device.root / "data"

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """Run a command on the board, which must succeed, and return its JSON."""
        began = time.monotonic()
        done = self.device.command(*arguments, "--json")
        self.took_s[" ".join(arguments[:1])] = round(time.monotonic() - began, 1)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def x86(self, *arguments: str | Path) -> dict[str, Any]:
        """Run a command on the machine outside."""
        places = {"EDGE_CMCL_STORE": str(self.outside / "store"), "EDGE_CMCL_FLEET": str(self.outside / "fleet")}
        done = self.run(*arguments, "--json", env={**places, "OMP_NUM_THREADS": "1"}, cwd=self.outside)
        assert done.code == 0, done.stdout + done.stderr
        return dict(done.json)

    def give(self, path: Path) -> str:
        """Put a file where the board's service user reads it; return its path there."""
        shutil.copy(path, self.shared)
        self.let_the_board_write()
        return f"/data/{path.name}"

    def let_the_board_write(self) -> None:
        """Make everything in the shared folder the service user's."""
        owner = (self.device.root / "var/lib/edge-cmcl").stat()
        for path in (self.shared, *self.shared.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)


@pytest.fixture
def board(tmp_path: Path, run_cli: Callable[..., Any]) -> Iterator[Board]:
    """A board on which install.sh has run, offline."""
    if why := missing(MACHINE):
        pytest.skip(why)
    folder = tmp_path / "machine"
    folder.mkdir()
    machine = make_small(folder)
    root = make_root(DEBS, tmp_path / "root", MACHINE)
    with emulation(MACHINE):
        python = root.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
        device = Device(root)
        device.plug_in(build_kit(tmp_path / "kit", [(python, MACHINE)]))
        began = time.monotonic()
        device.must_install()
        took_s = {"install.sh": round(time.monotonic() - began, 1)}
        (root / "data").mkdir()
        outside = tmp_path / "outside"
        outside.mkdir()
        yield Board(device, machine, run_cli, outside, took_s)
    shutil.rmtree(root.folder)


def embeddings(path: Path) -> NDArray[np.float32]:
    """Return the embeddings in a file that `embed` wrote: (n, d)."""
    return tensors.from_bytes(path.read_bytes())["embeddings"]


def compare(board: Board, name: str) -> float:
    """Embed the test recording on both; return the largest difference of a number."""
    board("embed", "/data/test.safetensors", "--out", f"/data/{name}.safetensors")
    board.x86("embed", board.machine.test, "--out", board.outside / f"{name}.safetensors")
    there, here = embeddings(board.shared / f"{name}.safetensors"), embeddings(board.outside / f"{name}.safetensors")
    assert there.shape == here.shape
    assert np.allclose(np.linalg.norm(there, axis=1), 1, atol=1e-5)
    difference = float(np.abs(there - here).max())
    assert difference < TOLERANCE
    return difference


def test_a_life_on_arm64_beside_x86(board: Board) -> None:
    began = time.monotonic()
    assert board.device.root.run("uname", "-m").stdout.strip() == MACHINE
    bundle, key = board.give(board.machine.bundle), board.give(board.machine.public_key)
    board.give(board.machine.test)
    new = board.give(board.machine.new)
    base = board("install", bundle, "--trust", key)["digest"]
    assert board.x86("install", board.machine.bundle, "--trust", board.machine.public_key)["digest"] == base
    differences = {"base": compare(board, "base")}

    # What the board learns is accepted on x86: it passes the self-test there and embeds alike.
    learned = board("update", "--modality", "acoustic", "--data", new)
    assert (learned["counter"], "acoustic" in learned["learned"]) == (2, True)
    child = board("status")["generation"]
    (board.shared / "remote").mkdir()
    board.let_the_board_write()
    board("sync", "file:///data/remote")
    remote = f"file://{board.shared}/remote"
    hand_on(board, remote, str(board("status")["device_id"]), own_key(board("keys", "list")))
    assert board.x86("sync", remote)["followed"]["news"] == "installed"
    status = board.x86("status")
    assert (status["counter"], status["generation"]) == (2, child)
    differences["learned on arm64"] = compare(board, "arm")

    # And the other way round, on top of that.
    board.x86("update", "--modality", "vibration", "--data", board.machine.new, "--with", "text")
    grandchild = board.x86("status")["generation"]
    board.x86("sync", remote)
    hand_on(board, remote, str(status["device_id"]), own_key(board.x86("keys", "list")))
    board.let_the_board_write()
    assert board("sync")["followed"]["news"] == "installed"
    assert board("status")["generation"] == grandchild
    differences["learned on x86"] = compare(board, "x86")

    assert board("rollback", child)["counter"] == 2
    assert board("rollback", base)["counter"] == 1
    print(f"largest difference of a unit embedding's numbers: {differences}")
    print(f"seconds: {board.took_s}, {time.monotonic() - began:.0f} after install.sh")


def hand_on(board: Board, remote: str, device: str, fingerprint: str) -> None:
    """As the host, take what a device has sent and offer it to all."""
    board.x86("fleet", "pull", remote, "--trust", fingerprint)
    board.x86("fleet", "promote", device, "--all", "--key", board.machine.key)


def own_key(listed: dict[str, Any]) -> str:
    """Return the fingerprint of a device's own key."""
    (own,) = [key["fingerprint"] for key in listed["device"] if key["role"] == "own"]
    return str(own)
