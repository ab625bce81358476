"""Cuts the power of a file system at random moments of a stream of updates, and looks at what its journal brings back.

    python tests/crash/power_cuts.py --fs ext4 --fs xfs --cuts 200

The store lies on a loop-mounted image. A process works on it and tells each operation when it begins and when it is
done; after a random time the ioctl FS_IOC_SHUTDOWN drops all that has not reached the journal, as a power cut does.
Then the image is mounted again, and must hold what was acknowledged last, or what the operation at work was to make of
it. The stream goes on from there. The host with which the device syncs lies elsewhere and keeps its power. Prints one
JSON object; exits with 1 where something was lost, or failed by itself. Needs root and loop devices.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from base_bundle import base_bundle, public_key_of
from forks import fork, load_everything, restarted
from mounts import FileSystem, in_a_file, missing

MEMORY = "/dev/shm"
"""Images lie in memory where they can: more happens between two cuts."""

WORK_S = 1.0
"""Longest time from the beginning of the work to the cut."""

KEEP_FREE_BYTES = 60 << 20
"""Less free space than that, and the stream begins anew with a first install."""


@dataclass
class Found:
    """What the cuts on one file system showed.

    Attributes:
        cuts: how many there were.
        acknowledged: operations that were told to be done, by name.
        during: operations that a cut interrupted, by name; "install" is a first one.
        old, new: whether the interrupted operation had happened afterwards.
        lost: acknowledged states that were not there afterwards, by cut.
        unreadable: stores that were not sound afterwards, by cut.
        wrong: operations that failed before the power went, by cut.
    """

    cuts: int = 0
    acknowledged: dict[str, int] = field(default_factory=dict)
    during: dict[str, int] = field(default_factory=dict)
    old: int = 0
    new: int = 0
    lost: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """What the stream works with, on a file system that keeps its power.

    Attributes:
        bundle: what is installed first.
        data: what real updates learn from.
        host: where the host lies with which the device syncs.
        sync: share of the operations that are syncs.
    """

    bundle: Path
    data: Path
    host: Path
    sync: float


def cut_often(system: FileSystem, files: Files, cuts: int, seed: int) -> Found:
    """Cut the power of `system` `cuts` times, with one stream of operations from `seed` on."""
    found, before = Found(), None
    for number in range(cuts):
        if number == 0 or _full(system):
            system.make()
            before = None
            shutil.rmtree(files.host, ignore_errors=True)
        rng = random.Random(f"{seed}:{number}")
        said = _work_and_cut(system, files, rng)
        cut = f"{system.kind}:{number}:{seed}"
        found.cuts += 1
        for line in said:
            if "done" in line:
                before = line["known"]
                _count(found.acknowledged, line["done"])
            elif "wrong" in line:
                found.wrong[cut] = line["wrong"]
        during = said[-1].get("begin", "") if said else ""
        _count(found.during, during or "nothing")
        with system.mounted() as point:  # the journal is replayed
            _judge(found, cut, point / "store", before, during)
            before = restarted(lambda: _known(point / "store"))
        system.check()
    return found


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _full(system: FileSystem) -> bool:
    with system.mounted() as point:
        room = os.statvfs(point)
        return room.f_bavail * room.f_frsize < KEEP_FREE_BYTES


def _work_and_cut(system: FileSystem, files: Files, rng: random.Random) -> list[dict[str, Any]]:
    """Let a process work on the file system until its power is cut; return what the process said."""
    reader, writer = os.pipe()
    with system.mounted() as point:
        child = fork()
        if child == 0:
            os.close(reader)
            _work(point / "store", files, rng, writer)
        os.close(writer)
        time.sleep(rng.uniform(0.0, WORK_S))
        system.cut_power()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as pipe:
            return [json.loads(line) for line in pipe if line.endswith("\n")]


def _work(root: Path, files: Files, rng: random.Random, pipe: int) -> NoReturn:
    from host import Host
    from stream import Stream, known

    from edge_cmcl.bundle import Store
    from edge_cmcl.device.store import install

    def say(**line: object) -> None:
        os.write(pipe, (json.dumps(line) + "\n").encode())

    name = "install"
    try:
        if _known(root) is None:
            say(begin=name)
            install(files.bundle, root, trust=public_key_of(files.bundle))
            say(done=name, known=known(Store(root)))
        store, host = Store(root), Host(files.host, files.bundle.with_name("machine.key"))
        stream = Stream(store, files.data, rng, host=host, sync=files.sync)
        while True:
            name, operation = stream.next()
            say(begin=name)
            operation()
            say(done=name, known=known(store))
    except BaseException as error:
        if _has_power(root):
            say(wrong=f"{name}: {error!r}", begin=name)
        os._exit(1)


def _has_power(root: Path) -> bool:
    """Whether the file system still takes files: what failed there failed by itself."""
    try:
        probe = root.parent / "probe"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _known(root: Path) -> dict[str, Any] | None:
    from stream import known

    from edge_cmcl.bundle import Store
    from edge_cmcl.device.store import CURRENT

    installed = (root / "oci-layout").is_file() and CURRENT in Store(root).tags()
    return known(Store(root)) if installed else None


def _judge(found: Found, cut: str, root: Path, before: dict[str, Any] | None, during: str) -> None:
    """Compare the store after a cut with what was acknowledged `before`, an operation `during` aside."""
    from soundness import debris, summary

    def look() -> list[str]:
        left = summary(root), debris(root)
        assert not left[1], f"debris after the next start: {left[1]}"
        return []

    try:
        restarted(look)
        after = restarted(lambda: _known(root))
    except AssertionError as error:
        found.unreadable[cut] = str(error)
        return
    if after == before:
        found.old += 1
        return
    reason = _lost(before, after, during)
    if reason:
        found.lost[cut] = f"{reason} (during {during or 'nothing'}): {after}, not {before}"
    else:
        found.new += 1


def _lost(before: dict[str, Any] | None, after: dict[str, Any] | None, during: str) -> str:
    """Return what of `before` is missing in `after`, or nothing where the operation `during` explains it."""
    if not during:
        return "the state changed by itself"
    if before is None:
        return ""
    if after is None:
        return "nothing is installed any more"
    gone = set(before["generations"]) - set(after["generations"])
    added = set(after["generations"]) - set(before["generations"])
    if during == "gc":
        changed = any(before[key] != after[key] for key in ("current", "trial", "decided", "serial"))
        return "a collection changed more than it should" if changed or added else ""
    if gone:
        return f"{len(gone)} generations are gone"
    if len(added) > 1 or (added and after["current"] not in added):
        return "there are more generations than were made"
    moved = after["current"] != before["current"]
    if during in ("sync", "take"):
        if after["serial"] < before["serial"]:
            return "a decision that was seen is forgotten"
        ended = not moved and after["trial"] in (None, before["trial"])  # the sync before has installed it
        return "" if moved or ended else "it is in a state between"
    if any(after[key] != before[key] for key in ("decided", "serial")):
        return "what was followed changed by itself"
    if during in ("real", "quick", "rollback") and moved:
        return ""
    if during == "confirm" and not moved and after["trial"] is None:
        return ""
    return "it is in a state between"


def main() -> int:
    """Run with the options below."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fs", action="append", choices=["ext4", "xfs"], help="file system; repeat")
    parser.add_argument("--cuts", type=int, default=200, help="on each file system")
    parser.add_argument("--sync", type=float, default=0.15, help="share of the operations that are syncs, below 1")
    parser.add_argument("--seed", type=int, default=0, help="of the operations and of the moments")
    parser.add_argument("--bundle", type=Path, help="bundle to install; by default one is made in .bench/")
    parser.add_argument("--folder", default=MEMORY if Path(MEMORY).is_dir() else None, help="where to work")
    parser.add_argument("--no-flush", action="store_true", help="let fsync do nothing, to see that it would be noticed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-power-", dir=options.folder) as name:
        folder = Path(name).resolve()
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        load_everything()
        if options.no_flush:
            os.fsync = os.fdatasync = lambda descriptor: None
        results = {}
        for kind in options.fs or ["ext4", "xfs"]:
            if why := missing(kind, folder):
                print(why, file=sys.stderr)
                return 2
            data = folder / "data.safetensors"
            restarted(lambda path=data: _write_data(path, options.seed))
            with in_a_file(kind, folder) as system:
                files = Files(base_bundle(options.bundle), data, folder / f"host-{kind}", options.sync)
                results[kind] = cut_often(system, files, options.cuts, options.seed)
        print(json.dumps({"seed": options.seed, **{kind: asdict(each) for kind, each in results.items()}}, indent=2))
        return 1 if any(each.lost or each.unreadable or each.wrong for each in results.values()) else 0


def _write_data(path: Path, seed: int) -> None:
    from edge_cmcl.data.simulator import write_simulated

    write_simulated(path, 32, ("acoustic", "vibration"), seed=200 + seed)


if __name__ == "__main__":
    sys.exit(main())
