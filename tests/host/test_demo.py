from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_cmcl.cli.failures import describe
from edge_cmcl.errors import EdgeCmclError, PlatformError, StorageError
from edge_cmcl.host.demo import Demo, step_error

FULL = {
    "type": "StorageError",
    "message": "cannot write here",
    "expected": "room",
    "got": "no space",
    "to_do": "free some",
    "exit_code": 7,
}


def ended(code: int, error: dict[str, Any] | None = None) -> EdgeCmclError:
    return step_error("train", code, json.dumps({"error": error}).encode() if error else b"", b"last words\n")


def test_a_step_that_fails_is_reported_as_the_step_itself_would() -> None:
    error = ended(7, FULL)
    assert type(error) is StorageError
    assert "`edge-cmcl train` failed: cannot write here" in error.message
    assert (error.expected, error.got, error.hint) == ("room", "no space", "free some")
    failure = describe(error, ["edge-cmcl", "demo"])
    assert (failure.kind, failure.exit_code) == ("StorageError", 7)


@pytest.mark.parametrize(("code", "exit_code"), [(-9, 137), (143, 143), (130, 130)])
def test_a_step_that_was_ended_from_outside_is_no_bug_of_ours(code: int, exit_code: int) -> None:
    error = ended(code)
    assert isinstance(error, PlatformError)
    assert error.got == "last words"
    assert describe(error, ["edge-cmcl", "demo"]).exit_code == exit_code


def test_a_bug_in_a_step_stays_a_bug() -> None:
    assert ended(1, {"type": "InternalError", "message": "KeyError: 'x'", "to_do": "report it"}).exit_code == 1


def test_a_demo_ends_with_the_exit_code_of_the_step_that_failed(tmp_path: Path) -> None:
    """The project file is damaged when the first step is told."""
    folder = tmp_path / "kept"

    def say(line: str) -> None:
        (folder / "edge-cmcl.toml").write_text("name = ")

    with pytest.raises(EdgeCmclError, match="is not a TOML file") as caught:
        Demo(folder, say).run()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_folder_with_something_in_it_is_refused_before_anything_is_written(
    run_cli: Any, tmp_path: Path, kind: str
) -> None:
    keep = tmp_path / "mine"
    if kind == "folder":
        keep.mkdir()
        (keep / "edge-cmcl.toml").write_text("the user's own")
    else:
        keep.write_text("the user's own")
    failed = run_cli("demo", "--keep", keep, "--json")
    assert failed.code == 2
    assert "is not an empty folder" in failed.json["error"]["message"]
    left = keep / "edge-cmcl.toml" if kind == "folder" else keep
    assert left.read_text() == "the user's own"
    assert len(list(tmp_path.glob("mine/*"))) == (kind == "folder")
