"""Whatever ends an update before its commit leaves the device as it was (issue 2, no. 5)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from device_command import Device, tree
from machine_bundle import Machine

UPDATE = ("update", "--modality", "acoustic", "--json", "--data")


@pytest.fixture
def updating(device: Device, machine: Machine, cli_env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """An update that has just begun."""
    process = subprocess.Popen(
        [device.program, *UPDATE, machine.new],
        env={**cli_env, **device.environment},
        cwd=device.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        wait_until(lambda: any(device.store.glob("work-*")), process)
        yield process
        process.kill()


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def store_files(store: Path) -> object:
    return {name: entry for name, entry in tree(store).items() if not name.startswith("work-")}


@pytest.mark.parametrize("stage", ["at once", "while it trains"])
@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_an_interrupted_update_leaves_the_store_as_it_was(
    device: Device, updating: subprocess.Popen[str], stage: str, number: int, code: int, kind: str
) -> None:
    before = store_files(device.store)
    if stage == "while it trains":
        assert updating.stderr is not None
        assert any(line.startswith("encode vibration") for line in updating.stderr)
    updating.send_signal(number)
    stdout, stderr = updating.communicate(timeout=60)
    assert updating.returncode == code, stderr
    error = json.loads(stdout)["error"]
    assert (error["type"], error["exit_code"]) == (kind, code)
    assert "Traceback" not in stderr
    assert tree(device.store) == before
    assert device("status")["counter"] == 1
    assert not any((device.folder / "tmp").iterdir())


def test_what_a_killed_update_left_is_swept_by_the_next(
    device: Device, machine: Machine, updating: subprocess.Popen[str]
) -> None:
    before = store_files(device.store)
    updating.kill()
    updating.wait(timeout=60)
    assert any(device.store.glob("work-*"))
    assert store_files(device.store) == before
    assert device("status")["counter"] == 1
    assert device("update", "--modality", "acoustic", "--data", machine.new)["counter"] == 2
    assert not any(device.store.glob("work-*"))


def test_of_two_updates_at_once_the_second_is_told_who_is_at_work(
    device: Device, machine: Machine, updating: subprocess.Popen[str]
) -> None:
    os.kill(updating.pid, signal.SIGSTOP)
    error = device.refused("update", "--modality", "acoustic", "--data", machine.new, code=7)
    assert error["type"] == "StoreLockedError"
    assert f"process {updating.pid} (edge-cmcl update" in error["got"]
    assert device("status")["counter"] == 1
    os.kill(updating.pid, signal.SIGCONT)
    stdout, stderr = updating.communicate(timeout=120)
    assert updating.returncode == 0, stderr
    assert json.loads(stdout)["counter"] == device("status")["counter"] == 2
