"""Kills install.sh: at a command that it starts, or at a moment."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from installed import INSTALLER, Device

FORKS = ("clone", "clone3", "fork", "vfork")
"""How a shell starts the commands of a script: to be killed at each is to be killed between any two steps."""
CALL = re.compile(rf"^({'|'.join(FORKS)})\(")


@dataclass(frozen=True)
class Fork:
    """The `number`-th time that install.sh makes the call `name`."""

    name: str
    number: int


def forks(device: Device, log: Path, *options: str) -> list[Fork]:
    """Run install.sh, which must succeed, and return each start of a command by it."""
    tracing = ["strace", "-o", str(log), "-e", f"trace={','.join(FORKS)}"]
    script = device.root.argv(INSTALLER, *device.arguments(*options))
    done = subprocess.run([*tracing, *script], env=device.root.variables(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counted: Counter[str] = Counter()
    found = []
    for line in log.read_text().splitlines():
        if match := CALL.match(line):
            counted[match[1]] += 1
            found.append(Fork(match[1], counted[match[1]]))
    return found


def kill_at(device: Device, fork: Fork, *options: str) -> None:
    """Run install.sh and kill it, and all that it has started, where it starts a command."""
    inject = f"inject={fork.name}:signal=KILL:when={fork.number}"
    tracing = ["strace", "-o", "/dev/null", "-e", f"trace={fork.name}", "-e", inject]
    script = device.root.argv(INSTALLER, *device.arguments(*options))
    run_in_group([*tracing, *script], device, None)


def kill_after(device: Device, seconds: float, *options: str) -> None:
    """Run install.sh and kill it, and all that it has started, after so many seconds."""
    run_in_group(device.root.argv(INSTALLER, *device.arguments(*options)), device, seconds)


def run_in_group(command: list[str], device: Device, seconds: float | None) -> None:
    """Run a command as the leader of a process group until it ends or for `seconds`; then kill the group."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=device.root.variables(), start_new_session=True, **quiet)
    try:
        process.wait(seconds)
        killed = process.returncode != 0
    except subprocess.TimeoutExpired:
        killed = True
    if killed:
        kill_group(process)
    assert killed or seconds is not None, "install.sh was not interrupted"


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group that `process` leads, and wait until all of it is gone."""
    for _ in range(200):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        process.poll()  # until its parent has asked for it, the leader keeps the group
        time.sleep(0.02)
    raise AssertionError(f"the process group {process.pid} does not end")


def some(found: list[Fork], count: int, seed: int) -> list[Fork]:
    """Return `count` of these, chosen by `seed`, in order."""
    chosen = random.Random(seed).sample(range(len(found)), min(count, len(found)))
    return [found[index] for index in sorted(chosen)]
