from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import EDGE_CMCL
from machine_bundle import Machine
from running_service import RunningService

from edge_cmcl.bundle import Store
from edge_cmcl.device.store import CURRENT

README = Path(__file__).parent.parent.parent / "README.md"


def examples(language: str) -> list[str]:
    """Return the examples of one language in the README's section on the service, as they stand there."""
    section = README.read_text(encoding="utf-8").split("\n## Local service\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def test_the_clients_of_the_readme_run_as_they_stand_there(
    serve: Callable[..., RunningService], machine: Machine, taught: Store, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    started, curl, as_json = examples("sh")
    (line,) = (line for line in started.splitlines() if line.startswith(EDGE_CMCL.name))
    options = line.split("#")[0].split()[2:]
    serve("--store", taught.root, *options)
    shutil.copy(machine.test, tmp_path / "live.safetensors")
    asked = subprocess.run(["bash", "-c", curl], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert {moment["label"] for moment in json.loads(asked.stdout)["moments"]} <= set(
        json.loads(asked.stdout)["labels"]
    )
    assert len(json.loads(asked.stdout)["moments"]) == 120
    asked = subprocess.run(["bash", "-c", as_json], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(asked.stdout).get("status") is None, asked.stdout

    (client,) = examples("python")
    assert len([line for line in client.splitlines() if line and not line.startswith("#")]) <= 10
    command = [sys.executable, "-W", "error", "-c", client]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ})
    shape = (1, taught.load(CURRENT).generation.embedding_dim)
    assert (printed.returncode, printed.stdout) == (0, f"{shape} by {taught.tags()[CURRENT]}\n"), printed.stderr
