"""What edge-cmcl-update.service runs, where no root to install in is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import EDGE_CMCL
from kits import ROOT
from machine_bundle import make_small_machine

Cli = Callable[..., Any]
YEAR_S = 365 * 24 * 3600


def test_what_a_board_with_a_wrong_clock_recorded_is_learned_before_old_recordings_are_deleted(
    run_cli: Cli, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, cli_env: dict[str, str]
) -> None:
    machine = make_small_machine(tmp_path_factory)
    for folder in ("version/deploy", "version/bin", "state/recordings"):
        (tmp_path / folder).mkdir(parents=True)
    script = shutil.copy(ROOT / "deploy/update-newest.sh", tmp_path / "version/deploy")
    (tmp_path / "version/bin/edge-cmcl").symlink_to(EDGE_CMCL)
    store = {"EDGE_CMCL_STORE": str(tmp_path / "state/store")}
    done = run_cli("install", machine.bundle, "--trust", machine.public_key, env=store)
    assert done.code == 0, done.stderr
    old, older = tmp_path / "state/recordings/old.safetensors", tmp_path / "state/recordings/older.safetensors"
    for years, path in ((20, old), (21, older)):
        shutil.copy(machine.new, path)
        os.utime(path, (time.time() - years * YEAR_S,) * 2)
    settings = {"EDGE_CMCL_STATE": str(tmp_path / "state"), "EDGE_CMCL_UPDATE_MODALITIES": "acoustic"}
    ran = subprocess.run([script], env={**cli_env, **store, **settings}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    status = run_cli("status", "--json", env=store).json
    assert "acoustic" in {each["modality"] for each in status["modalities"]}
    assert not old.exists()
    assert not older.exists()
