from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machine_bundle import Machine, make_small_machine

from edge_cmcl.device.store import install


@pytest.fixture(scope="session")
def machine_bundle(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return make_small_machine(tmp_path_factory)


@pytest.fixture
def store(machine_bundle: Machine, tmp_path: Path) -> Path:
    """A device's store with the small machine's bundle, in a folder of its own."""
    path = tmp_path / "store"
    install(machine_bundle.bundle, path, trust=machine_bundle.public_key)
    return path


@pytest.fixture
def edge(run_cli: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Run the command with --json on that store: `edge("update", ..., code=0)` returns its JSON and stderr."""

    def run(*arguments: str | Path, code: int = 0) -> tuple[dict[str, Any], str]:
        done = run_cli(
            *arguments, "--json", env={"EDGE_CMCL_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}, cwd=tmp_path
        )
        assert done.code == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.json if code == 0 else done.json["error"], done.stderr

    return run
