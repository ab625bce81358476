from __future__ import annotations

import errno
import os
import pwd
import tempfile
from pathlib import Path

import pytest

from edge_cmcl.cli.failures import Terminated, describe, mask_secrets
from edge_cmcl.errors import (
    DataError,
    EdgeCmclError,
    InputError,
    IntegrityError,
    PlatformError,
    RefusedError,
    RemoteError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 3),
        (DataError("x"), 3),
        (IntegrityError("x"), 4),
        (RefusedError("x"), 5),
        (RemoteError("x"), 6),
        (PlatformError("x"), 7),
        (MemoryError(), 7),
        (OSError(errno.ENOSPC, "No space left on device"), 7),
        (KeyboardInterrupt(), 130),
        (Terminated(15), 143),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert describe(error, ["edge-cmcl"]).exit_code == code


def test_an_error_of_ours_keeps_what_was_expected_what_came_and_what_to_do() -> None:
    failure = describe(DataError("the file is bad", expected="a good one", got="this", hint="mend it"), ["edge-cmcl"])
    assert failure.message == "the file is bad"
    assert (failure.kind, failure.expected, failure.got, failure.to_do) == (
        "DataError",
        "a good one",
        "this",
        "mend it",
    )


@pytest.mark.parametrize("error", [ValueError("no https://me:hunter2@host here"), EdgeCmclError("bare")])
def test_a_bug_leaves_a_report_to_attach_without_secrets(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    argv = ["edge-cmcl", "sync", "https://me:hunter2@host/x", "--token", "hunter2", "--password=hunter2", "--json"]
    try:
        raise error
    except Exception as raised:
        failure = describe(raised, argv)
    (report,) = tmp_path.iterdir()
    text = report.read_text()
    assert failure.exit_code == 1
    assert str(report) in failure.to_do
    assert "hunter2" not in text
    assert "command: edge-cmcl sync https://***@host/x --token *** --password=*** --json" in text
    for part in ("Traceback", "test_failures.py", "python: 3.", "numpy: ", type(error).__name__):
        assert part in text


def test_a_bug_is_told_even_where_no_report_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    failure = describe(ValueError("odd"), ["edge-cmcl"])
    assert (failure.exit_code, failure.message) == (1, "ValueError: odd")
    assert "ValueError: odd" in capsys.readouterr().err


def test_only_secrets_are_masked() -> None:
    argv = ["edge-cmcl", "update", "--modality", "gyro", "--signing-key", "k", "x@y", "ssh://host/store"]
    assert mask_secrets(argv) == [*argv[:5], "***", "x@y", "ssh://host/store"]


def test_a_file_of_another_user_says_as_whom_the_command_runs() -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    failure = describe(PermissionError(errno.EACCES, "Permission denied", "/root/base.tar"), ["edge-cmcl"])
    assert failure.exit_code == 7
    assert f"install -o {user} FILE" in failure.to_do
