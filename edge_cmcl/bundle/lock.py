"""The writer lock of a store: one writer at a time, its owner shown to the others (FORMAT.md, "Lock")."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_cmcl.bundle.generation import timestamp
from edge_cmcl.durable import storage_errors
from edge_cmcl.errors import StoreLockedError

LOCK_FILE = "lock"
WAIT_S = 5.0
"""How long a writer waits for another one: a start that tests a generation on trial holds the lock for a moment."""
_POLL_S = 0.05
_MAX_NOTE_BYTES = 1024


@contextmanager
def locked(root: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the writer lock of the store at `root`. The kernel lets go of it when the process ends, however it ends.

    Args:
        root: the store.
        wait_s: seconds to wait for another process that holds it.

    Raises:
        StoreLockedError: another process holds it, or has just removed the store.
        StorageError: the lock file cannot be opened for writing.
    """
    path = root / LOCK_FILE
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with storage_errors(path):
            taken = _take(descriptor, time.monotonic() + wait_s)
        if not taken:
            raise _held_by_another(root, descriptor)
        _check_in_place(root, descriptor)
        _note_owner(descriptor)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, deadline: float) -> bool:
    """Return whether the lock could be taken before `deadline`, a `time.monotonic()`."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)


def _check_in_place(root: Path, descriptor: int) -> None:
    """Refuse the lock of a store that its maker removed, after a failed first install, while it was being opened."""
    mine = os.fstat(descriptor)
    with suppress(OSError):
        found = (root / LOCK_FILE).stat()
        if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            return
    raise StoreLockedError(
        f"the store {root} was removed while it was being opened",
        expected="a store that stays",
        got="none: another process gave up its first install",
        hint="try again",
    )


def _note_owner(descriptor: int) -> None:
    """Write who holds the lock. Failing is no error: on a full disk it may come to free space."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
    note = json.dumps({"pid": os.getpid(), "command": command, "since": timestamp()}).encode()
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note, 0)


def _held_by_another(root: Path, descriptor: int) -> StoreLockedError:
    try:
        note = json.loads(os.pread(descriptor, _MAX_NOTE_BYTES, 0))
        owner = f"process {note['pid']} ({note['command']}) since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        owner = "another process"
    return StoreLockedError(
        f"another process writes to the store {root}",
        expected="one writer at a time",
        got=owner,
        hint="wait until it has finished, or end it",
    )
