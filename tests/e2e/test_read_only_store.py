"""A store that cannot be written still answers; what would write to it exits with 7 (issue 2, no. 5)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from device_command import Device
from environments import EDGE_CMCL
from machine_bundle import Machine

MOUNTED = 'mount --bind "$EDGE_CMCL_STORE" "$EDGE_CMCL_STORE" && mount -o remount,ro,bind "$EDGE_CMCL_STORE" && exec '
"""In a mount namespace of its own: what root sees of a read-only file system."""


@contextmanager
def without_write_permission(folder: Path) -> Iterator[None]:
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in folders + files:
        path.chmod(0o555 if path in folders else 0o444)
    try:
        yield
    finally:
        for path in folders + files:
            path.chmod(0o755 if path in folders else 0o644)


@pytest.fixture
def reading_device(device: Device, tmp_path: Path) -> Iterator[Device]:
    """The device with a store that its user may read but not write."""
    if os.geteuid() != 0:
        with without_write_permission(device.store):
            yield device
        return
    probe = ["unshare", "-m", "sh", "-c", MOUNTED + "true"]
    if subprocess.run(probe, env={**os.environ, **device.environment}, capture_output=True, check=False).returncode:
        pytest.skip("root here may neither mount nor be kept from writing")
    program = tmp_path / "edge-cmcl-read-only"
    program.write_text(f'#!/bin/sh\nexec unshare -m sh -c \'{MOUNTED}"$0" "$@"\' \'{EDGE_CMCL}\' "$@"\n')
    program.chmod(0o755)
    yield Device(device.run, device.folder, program)


def test_commands_that_read_work_on_a_read_only_store(
    device: Device, machine: Machine, run_cli: Callable[..., Any], reading_device: Device
) -> None:
    assert reading_device("status")["counter"] == 1
    assert len(reading_device("log")["generations"]) == 1
    assert reading_device("embed", machine.test, "--out", "out.safetensors")["present"] == 120
    assert len(reading_device("retrieve", machine.test, machine.test)["hits"][0]["rows"]) == 10
    assert len(reading_device("evaluate", "store", "--data", machine.test)["pairs"]) == 1
    assert reading_device("assess", "--modality", "acoustic", "--data", machine.new)["recommendation"] == "learn"


def test_commands_that_write_say_what_to_do_about_a_read_only_store(reading_device: Device, machine: Machine) -> None:
    for arguments in (
        ("update", "--modality", "acoustic", "--data", machine.new),
        ("update", "--modality", "acoustic", "--data", machine.new, "--dry-run"),
        ("rollback",),
        ("install", machine.bundle),
    ):
        error = reading_device.refused(*arguments, code=7)
        assert error["type"] == "StorageError"
        assert "write" in error["to_do"] or "writing" in error["to_do"]
