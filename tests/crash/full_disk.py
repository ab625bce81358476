"""Runs the commands of a device on a file system that is really full, or nearly, and looks at what is left.

    python tests/crash/full_disk.py

The store lies on a tmpfs of its own, filled up to a few sizes of room. Each command must do what it should, or say that
the disk is full and leave the old state; with room again it must go on. Prints one JSON object; exits with 1 where
something was wrong. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from base_bundle import base_bundle
from calls import missing_tools
from faults import Harness
from forks import load_everything, run_command
from mounts import missing, small_tmpfs
from situations import COMMANDS, Command, Situations

DISK_BYTES = 128 << 20
ROOMS_BYTES = (0, 8 << 10, 64 << 10, 1 << 20, 4 << 20)


def fill(folder: Path, room_bytes: int) -> Path:
    """Write a file that leaves `room_bytes` on the file system of `folder`."""
    filler = folder / "filler"
    free = os.statvfs(folder)
    size = free.f_bavail * free.f_frsize - room_bytes
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))
    return filler


def squeeze(harness: Harness, command: Command, room_bytes: int) -> dict[str, Any]:
    """Run `command` with so much room and return how it ended, and what was wrong."""
    harness.undisturbed(command)
    harness.situations.copied(command.begins, harness.store)
    filler = fill(harness.store.parent, room_bytes)
    done = run_command(harness.situations.arguments(command, harness.store))
    filler.unlink()
    ended: dict[str, Any] = {"command": command.name, "room_bytes": room_bytes, "code": done.code}
    try:
        ended["state"] = harness.judge(command, done)
    except AssertionError as error:
        ended["wrong"] = str(error)
    return ended


def main() -> int:
    """Run with the options below."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", action="append", choices=[command.name for command in COMMANDS])
    parser.add_argument("--room", type=int, action="append", help="bytes of room")
    parser.add_argument("--bundle", type=Path, help="bundle to install; by default one is made in .bench/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-full-") as name:
        folder = Path(name).resolve()
        if why := missing_tools() or missing("tmpfs", folder):
            print(why, file=sys.stderr)
            return 2
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        load_everything()
        situations = Situations(folder / "situations", base_bundle(options.bundle), seed=0)
        commands = [command for command in COMMANDS if command.name in (options.command or [command.name])]
        with small_tmpfs(folder / "disk", DISK_BYTES) as disk:
            harness = Harness(situations, disk / "run", folder / "log")
            rooms = options.room or ROOMS_BYTES
            ended = [squeeze(harness, command, room) for command in commands for room in rooms]
        reports = list(folder.glob("edge-cmcl-report-*"))
    wrong = [each for each in ended if "wrong" in each]
    print(json.dumps({"runs": len(ended), "ended": ended, "wrong": len(wrong), "bug_reports": len(reports)}, indent=2))
    return 1 if wrong or reports else 0


if __name__ == "__main__":
    sys.exit(main())
