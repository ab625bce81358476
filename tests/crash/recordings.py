"""Kills recorders, and cuts the power under them, at random moments; looks at what is left of the recordings.

    python tests/crash/recordings.py --kind kill --kind ext4 --kind xfs --moments 100

A virtual board sends a ramp at 1 kHz; `edge-cmcl record` writes it with --fsync 0.5. At a random moment it gets
SIGKILL, or the ioctl FS_IOC_SHUTDOWN takes the power from its file system. What is read afterwards must be the ramp
from its start, every value right, and may lack at most what came within the fsync interval before that moment. Prints
one JSON object; exits with 1 where anything else was lost. The file systems need root and loop devices.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from mounts import FileSystem, in_a_file, missing

from firmware_bridge.hello import Hello
from firmware_bridge.recording import RecordingFile, Samples, files_of
from firmware_bridge.virtual import Board, Signal
from firmware_bridge.virtual.board import ModelSlots
from firmware_bridge.virtual.serve import SocketEndpoint

RATE_HZ, SECONDS = 1000.0, 30
FSYNC_S = 0.5
FRAME_S = 0.05
"""A sample waits so long in its frame: it has not come before."""
LONGEST_S = 2.5


@dataclass
class Found:
    """What was left.

    Attributes:
        moments: how many recorders were stopped.
        cut: recordings that ended before their end.
        missing_s: the most that was missing at the end of one, in seconds of what had come.
        told: exit codes of the recorders that met the file system's end by themselves.
        failed: what was wrong, by moment.
    """

    moments: int = 0
    cut: int = 0
    missing_s: float = 0.0
    told: dict[int, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class Ramp:
    """A board that sends a ramp and knows how much of it has gone out; runs in a thread."""

    def __init__(self) -> None:
        raw = np.arange(int(SECONDS * RATE_HZ), dtype=np.int32)[:, None]
        self._board = Board([Signal(Hello("ramp", "1", 1.0, RATE_HZ, 1, 5), raw)], 1, ModelSlots())
        self._endpoint = SocketEndpoint.tcp("127.0.0.1", 0)
        self.address = self._endpoint.address
        self.began_s: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._endpoint.close()

    def _run(self) -> None:
        while not self._over.is_set():
            if not self._endpoint.there:
                self._endpoint.exchange(b"", 0.01)
                continue
            if self.began_s is None:
                self.began_s = time.monotonic()
            now_s = time.monotonic() - self.began_s
            got = self._endpoint.exchange(b"".join(self._board.due(now_s)), 0.005)
            if got:
                self._endpoint.exchange(b"".join(self._board.receive(got, now_s)), 0.0)


def strike(folder: Path, chance: random.Random, fs: FileSystem | None, found: Found, name: str) -> float:
    """Record into `folder` and stop that at a random moment; return for how long the board had been sending."""
    board = Ramp()
    command = [Path(sys.executable).with_name("edge-cmcl"), "record", board.address, "--out", folder,
               "--fsync", str(FSYNC_S), "--min-free", "1", "--rotate", "1", "--json"]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as recorder:
        while board.began_s is None and recorder.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.1, LONGEST_S))
        struck_s = time.monotonic()
        if fs is None:
            recorder.kill()
        else:
            fs.cut_power()
        try:
            _, errors = recorder.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            recorder.kill()
            _, errors = recorder.communicate()
            found.failed[name] = "the recorder went on without a disk"
    board.stop()
    found.moments += 1
    if fs is not None:
        found.told[recorder.returncode] = found.told.get(recorder.returncode, 0) + 1
    elif recorder.returncode != -signal.SIGKILL:
        found.failed[name] = f"the recorder had ended by itself: {errors.decode()[-500:]}"
    return struck_s - (board.began_s or struck_s)


def look(folder: Path, ran_s: float, found: Found, name: str) -> None:
    """Read what is left of a recording that went on for `ran_s`, and judge it."""
    parts, cut = [], False
    for path in files_of(folder):
        read = RecordingFile(path)
        parts += [event.values[:, 0] for event in read.events() if isinstance(event, Samples)]
        cut |= bool(read.cut)
    values = np.concatenate(parts) if parts else np.zeros(0)
    found.cut += cut
    if not np.array_equal(values, np.arange(len(values))):
        found.failed[name] = "what was read is not what was sent"
    missing_s = ran_s - FRAME_S - len(values) / RATE_HZ
    found.missing_s = round(max(found.missing_s, missing_s), 3)
    if missing_s > FSYNC_S:
        found.failed[name] = f"{missing_s:.3f} s are missing"


def run(kind: str, moments: int, folder: Path, seed: int) -> Found:
    """Stop `moments` recorders by `kind`: "kill", or the power of a file system "ext4" or "xfs"."""
    found, chance = Found(), random.Random(f"{kind} {seed}")
    if kind == "kill":
        for i in range(moments):
            ran_s = strike(folder / f"r{i}", chance, None, found, f"{seed}/{i}")
            look(folder / f"r{i}", ran_s, found, f"{seed}/{i}")
        return found
    with in_a_file(kind, folder) as fs:
        fs.make()
        for i in range(moments):
            name = f"{seed}/{i}"
            with fs.mounted() as point:
                ran_s = strike(point / f"r{i}", chance, fs, found, name)
            with fs.mounted():
                try:
                    look(fs.point / f"r{i}", ran_s, found, name)
                except Exception as error:
                    found.failed[name] = f"{type(error).__name__}: {error}"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", help="taken from the other crash programs; not used")
    parser.add_argument("--kind", action="append", choices=["kill", "ext4", "xfs"], required=True)
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results: dict[str, Found] = {}
    with ExitStack() as stack:
        for kind in options.kind:
            memory = "/dev/shm" if kind != "kill" and Path("/dev/shm").is_dir() else None
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
            if kind != "kill" and (why := missing(kind, folder)):
                print(f"{kind} is left out: {why}", file=sys.stderr)
                continue
            results[kind] = run(kind, options.moments, folder, options.seed)
    print(json.dumps({kind: asdict(found) for kind, found in results.items()}, indent=2))
    return 1 if any(found.failed for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
