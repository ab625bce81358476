"""Processes forked from one that has loaded everything: the real command on a real file system, without its start-up.

A run of the installed command spends most of its time importing. A child that is forked runs the same `main`, with its
own arguments, output and death, and strace attaches to it before its first step.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ATTACH_S = 20.0
EDGE_CMCL = Path(sys.executable).with_name("edge-cmcl")


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        process: its id.
        code: its exit code, None where a signal killed it.
        stdout, stderr: what it printed; stderr is lost with a killed process.
    """

    process: int
    code: int | None
    stdout: str
    stderr: str

    @property
    def acknowledged(self) -> bool:
        """Whether its user was told that it is done, even if it was killed right after."""
        return bool(self.stdout) and "error" not in json.loads(self.stdout)


def load_everything() -> None:
    """Import what the commands of a device use, so that a child need not."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from edge_cmcl import data
    from edge_cmcl.cli import app
    from edge_cmcl.device import learner, opening, self_test, starting, status, store, syncing, use

    assert all((app, data, learner, opening, self_test, starting, status, store, syncing, use))


def run_command(arguments: Sequence[str], strace: Sequence[str] = ()) -> Ended:
    """Run `edge-cmcl ARGUMENTS` in a child, under `strace` (its options) where there are any."""
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-crash-") as name:
        out, err = Path(name, "out"), Path(name, "err")
        process, status = _under(lambda: _command(arguments, out, err), strace)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        texts = [path.read_text() if path.exists() else "" for path in (out, err)]
        return Ended(process, code, *texts)


def run_installed(arguments: Sequence[str], strace: Sequence[str]) -> Ended:
    """Run the installed `edge-cmcl ARGUMENTS` under `strace` (its options, -o with a log first), its start included."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["strace", "-f", "-qq", *strace, str(EDGE_CMCL), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    first = Path(strace[strace.index("-o") + 1]).read_text().split(maxsplit=1)
    code = done.returncode if done.returncode >= 0 and done.returncode != 128 + signal.SIGKILL else None
    return Ended(int(first[0]), code, done.stdout, done.stderr)


def restarted(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a child, as a process started after a crash sees it (JSON types).

    Raises:
        AssertionError: it raised; with its traceback.
    """
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        os.close(reader)
        _answer(writer, work)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        raise AssertionError("the process that looked at the store died")
    answer = json.loads(text)
    if "error" in answer:
        raise AssertionError(answer["error"])
    return answer["value"]


def _answer(writer: int, work: Callable[[], Any]) -> NoReturn:
    try:
        warnings.simplefilter("error")
        answer = {"value": work()}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    with os.fdopen(writer, "w") as pipe:
        json.dump(answer, pipe)
    os._exit(0)


def _under(work: Callable[[], object], strace: Sequence[str]) -> tuple[int, int]:
    """Run `work` in a child that waits until strace has attached; return its id and how it ended (`os.waitpid`)."""
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        work()
        os._exit(70)
    os.close(reader)
    tracer = _attach(child, strace) if strace else None
    os.close(writer)
    _, status = os.waitpid(child, 0)
    if tracer is not None:
        tracer.wait(timeout=60)
    return child, status


def fork() -> int:
    """Fork this process; what it has printed is flushed, so that it is not printed twice."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of threads; this process has none of its own
        return os.fork()


def _attach(process: int, options: Sequence[str]) -> subprocess.Popen[bytes]:
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-p", str(process), *options], stderr=subprocess.PIPE)
    deadline = time.monotonic() + ATTACH_S
    status = Path(f"/proc/{process}/status")
    while "TracerPid:\t0\n" in status.read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            raise AssertionError(f"strace did not attach: {tracer.communicate()[1]!r}")
        time.sleep(0.001)
    return tracer


def _command(arguments: Sequence[str], out: Path, err: Path) -> NoReturn:
    """Be `edge-cmcl ARGUMENTS`. stderr is kept in memory, so that no message counts as a write."""
    from edge_cmcl.cli import main

    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
    sys.argv, sys.stderr = ["edge-cmcl", *arguments], io.StringIO()
    code = 70
    try:
        main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 70
    except BaseException:
        traceback.print_exc()
    err.write_text(sys.stderr.getvalue())
    os._exit(code)
