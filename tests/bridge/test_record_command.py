"""`edge-cmcl record`: the installed command at virtual boards in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import EDGE_CMCL
from live_boards import board_process, events_of

from firmware_bridge.recording import Label

MACHINE = ("--machine", "vibration,current", "--tcp", "127.0.0.1:0", "--seconds", "60")


def recorder(*arguments: str | Path, env: dict[str, str], **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([EDGE_CMCL, "record", *arguments], env=env, text=True, **more)


def wait_for(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def has_bytes(folder: Path) -> bool:
    return sum(path.stat().st_size for path in folder.glob("*.mcap")) > 3000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_recording_as_it_should_be(
    number: signal.Signals, tmp_path: Path, cli_env: dict[str, str]
) -> None:
    folder = tmp_path / "r"
    with board_process(*MACHINE) as address:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with recorder(address, "--out", folder, "--json", "--fsync", "0.2", env=cli_env, **pipes) as running:
            wait_for(lambda: has_bytes(folder))
            running.send_signal(number)
            out, _ = running.communicate(timeout=20)
    told = json.loads(out)
    assert (running.returncode, told["stopped"], told["files"]) == (0, "asked", 1)
    assert told["bytes"] == (folder / "000000.mcap").stat().st_size
    streams = told["counts"][address]["streams"]
    assert set(streams) > {"vibration", "current"}
    assert streams["vibration"]["samples"] > 0


def test_labels_that_are_typed_are_recorded(tmp_path: Path, cli_env: dict[str, str]) -> None:
    folder = tmp_path / "r"
    with board_process(*MACHINE) as address:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = (address, "--out", folder, "--label", "idle", "--fsync", "0.2")
        with recorder(*command, env=cli_env, **pipes) as running:
            assert running.stdin
            wait_for(lambda: has_bytes(folder))
            running.stdin.write("full load\n")
            running.stdin.flush()
            time.sleep(0.5)
            running.send_signal(signal.SIGINT)
            out, errors = running.communicate(timeout=20)
    assert running.returncode == 0, errors
    assert "vibration" in out
    assert [event.label for event in events_of(folder) if isinstance(event, Label)] == ["idle", "full load"]


def test_on_a_terminal_it_is_shown_how_the_recording_goes(tmp_path: Path, cli_env: dict[str, str]) -> None:
    master, terminal = pty.openpty()
    with board_process(*MACHINE, "--loss", "0.1") as address:
        env = {**cli_env, "COLUMNS": "160", "TERM": "xterm"}
        command = (address, "tcp://127.0.0.1:1", "--out", tmp_path / "r")
        assert recorder(*command, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait() == 6
        with recorder(
            address, "--out", tmp_path / "r", "--seconds", "6", env=env, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=terminal,
        ) as running:  # fmt: skip
            os.close(terminal)
            shown = b""
            while True:
                try:
                    shown += os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
        assert running.returncode == 0
    os.close(master)
    text = shown.decode(errors="replace")
    for wanted in ("vibration", "current", "128", "+-", "GB free", "Ctrl-C"):
        assert wanted in text


@pytest.mark.parametrize("line", ["soon walk", "-1 walk", "nan walk", "5 " + "x" * 201])
def test_a_script_that_is_none_is_told(line: str, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    (tmp_path / "script.txt").write_text(f"# at what second what\n\n1 walk\n{line}\n")
    done = run_cli("record", "tcp://127.0.0.1:1", "--script", "script.txt", "--json")
    assert (done.code, done.json["error"]["type"]) == (3, "DataError")
    assert "line 4" in done.json["error"]["message"]


def test_a_board_that_is_away_is_told_and_nothing_is_made(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    done = run_cli("record", "tcp://127.0.0.1:1", "--out", "r", "--json")
    assert (done.code, done.json["error"]["type"]) == (6, "RemoteError")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "options", [(), ("--machine", "nothing", "--pty"), ("--machine", "current"), ("--pty", "--unix", "x")]
)
def test_a_virtual_board_says_what_it_needs(options: tuple[str, ...]) -> None:
    done = subprocess.run(
        [EDGE_CMCL.with_name("python"), "-m", "firmware_bridge.virtual", *options], capture_output=True, text=True
    )
    assert (done.returncode, "expected" in done.stderr) == (2, True)
