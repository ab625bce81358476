"""Commits an update again and again, killed at its first, second, ... flush to the disk; prints what each kill left.

A program of its own, because it forks: the tests' process has threads. Prints "old" or "new" per kill, by which
generation the tag names, and "finished" for the commit that ran to its end. Fails on any other state.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundle_samples import make_store, updated_generation

from edge_cmcl.bundle import Store, contents


def commit_and_die(root: Path, kill_at: int) -> None:
    """Commit an update; die at flush number `kill_at`, counted from 1."""
    flush, flushed = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal flushed
        flushed += 1
        if flushed == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(descriptor)

    os.fsync = fsync
    store = Store(root)
    with store.writer():
        store.commit(updated_generation(store, "current", seed=30), ["current"])


def outcome(root: Path, kill_at: int, old: str) -> str:
    """Let a child commit and die, check the store, and say which generation is current."""
    child = os.fork()
    if child == 0:
        commit_and_die(root, kill_at)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    store = Store(root)
    for loaded in store.lineage([store.tags()["current"]], past=()):
        contents.check_contents(loaded)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return "finished"
    with store.writer():
        assert not list(root.rglob("*.tmp")), "debris after the next start"
    return "old" if store.load("current").digest == old else "new"


def main() -> None:
    """Run with the folder to work in."""
    folder = Path(sys.argv[1])
    pristine = make_store(folder / "pristine")
    old, outcomes = pristine.load("current").digest, []
    while not outcomes or outcomes[-1] != "finished":
        root = folder / f"killed-{len(outcomes)}"
        shutil.copytree(pristine.root, root)
        outcomes.append(outcome(root, len(outcomes) + 1, old))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
