"""The command on one device, with what every use of it must keep: one JSON object, and nothing changed by a refusal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import EDGE_CMCL

Tree = dict[str, tuple[str, int, str]]


@dataclass(frozen=True)
class Device:
    """Runs commands with `--json` on one store.

    Attributes:
        run: the fixture `run_cli`.
        folder: where commands run, the store and TMPDIR below it: what a refused command must leave as it was.
        program: the installed command.
    """

    run: Callable[..., Any]
    folder: Path
    program: Path = EDGE_CMCL

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def environment(self) -> dict[str, str]:
        return {"EDGE_CMCL_STORE": str(self.store), "OMP_NUM_THREADS": "1"}

    def __call__(self, *arguments: str | Path) -> dict[str, Any]:
        """Run a command that must succeed and return its JSON."""
        done = self._run(*arguments)
        assert done.code == 0, done.stdout + done.stderr
        return dict(done.json)

    def refused(self, *arguments: str | Path, code: int) -> dict[str, Any]:
        """Run a command that must exit with `code` and change no file; return its error."""
        before = tree(self.folder)
        done = self._run(*arguments)
        assert done.code == code, done.stdout + done.stderr
        error = done.json["error"]
        assert error["exit_code"] == code
        assert error["message"]
        assert "Traceback" not in done.stderr
        assert tree(self.folder) == before
        return dict(error)

    def _run(self, *arguments: str | Path) -> Any:
        return self.run(*arguments, "--json", program=self.program, env=self.environment, cwd=self.folder)


def tree(folder: Path) -> Tree:
    """Return kind, size and SHA-256 of everything below `folder`, by path.

    Of a store's lock only that it is there: its text says who wrote last, as a courtesy.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = ("folder", 0, "")
        elif path.name == "lock":
            found[name] = ("lock", 0, "")
        else:
            data = path.read_bytes()
            found[name] = ("file", len(data), hashlib.sha256(data).hexdigest())
    return found
