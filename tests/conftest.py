"""What the tests of several rooms share: the installed command, the archives of real data, the base install."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from environments import EDGE_CMCL, base_install

from edge_cmcl.bundle import Loaded, Store

ROOT = Path(__file__).parent.parent


LONGEST_FIRST = ("e2e/test_real_sensors.py", "test_packaging.py")
"""A worker takes a file whole: one of these, begun last, keeps the others waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.partition("::")[0].endswith(LONGEST_FIRST))
    if not os.environ.get("EDGE_CMCL_SLOW"):
        left_out = pytest.mark.skip(reason="takes long: `make slow` runs it")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(left_out)


@dataclass(frozen=True)
class CommandResult:
    """How a command ended; `json` parses its whole stdout as one JSON object."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value


@pytest.fixture
def cli_env(tmp_path: Path) -> dict[str, str]:
    """An environment in which the command finds nothing of the user who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_CMCL_", "XDG_"))}
    temporary = tmp_path / "tmp"
    temporary.mkdir(exist_ok=True)
    return {**kept, "XDG_DATA_HOME": str(tmp_path / "data-home"), "TMPDIR": str(temporary)}


@pytest.fixture
def run_cli(cli_env: dict[str, str], tmp_path: Path) -> Callable[..., CommandResult]:
    """Run the installed command: `run_cli("status", "--json", env={...}, cwd=..., program=...)`."""

    def run(
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = tmp_path,
        program: Path = EDGE_CMCL,
        timeout_s: float = 300,
    ) -> CommandResult:
        done = subprocess.run(
            [program, *arguments],
            env={**cli_env, **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def archive() -> Callable[[str], Path]:
    """Return the archive of a public data set, or skip: `archive("utd_mhad")`."""

    def find(name: str) -> Path:
        path = ROOT.parent / "shared" / "data" / f"{name}.tar.xz"
        if not path.is_file():
            pytest.skip(f"the data set {name} is not at {path}")
        return path

    return find


@pytest.fixture(scope="session")
def base_bin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the bin folder of a venv that has only the base install: `base_bin("3.10") / "edge-cmcl"`, or skip."""
    made: dict[str, Path] = {}

    def make(version: str) -> Path:
        if version not in made:
            made[version] = base_install(ROOT, version, tmp_path_factory.mktemp("wheel"))
        return made[version]

    return make


@pytest.fixture
def manifests_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Digests of the manifests that stores have read, in order; a test clears it where its count begins."""
    read: list[str] = []
    load = Store.load_manifest

    def counted(self: Store, digest: str) -> Loaded:
        read.append(digest)
        return load(self, digest)

    monkeypatch.setattr(Store, "load_manifest", counted)
    return read
