"""What lies in the folder of a store, and removing one that was made in vain."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from edge_cmcl.bundle.layout import INDEX_FILE, LAYOUT_FILE, Layout
from edge_cmcl.bundle.lock import LOCK_FILE, locked
from edge_cmcl.bundle.twofold import copy_of
from edge_cmcl.durable import storage_errors

STATE_FILE = "state.json"

_FILES = (
    *(LAYOUT_FILE, INDEX_FILE, STATE_FILE, LOCK_FILE),
    *(copy_of(Path(name)).name for name in (INDEX_FILE, STATE_FILE)),
)


def discard(root: Path) -> None:
    """Remove the store at `root`, made in vain: one with a tag stays, and so do files that are none of a store's.

    Raises:
        StoreLockedError: another process writes to it.
        StorageError: the file system refused.
    """
    with locked(root):
        if (root / LAYOUT_FILE).is_file() and Layout(root).tags():
            return
        with storage_errors(root):
            for name in _FILES:
                (root / name).unlink(missing_ok=True)
            shutil.rmtree(root / "blobs", ignore_errors=True)
            with suppress(OSError):
                root.rmdir()


def strangers(root: Path) -> list[str]:
    """Return what lies in `root` and does not belong to a store, not even to one whose creation was cut short."""
    if not root.is_dir():
        return [f"a file named {root.name}"]
    return sorted(p.name for p in root.iterdir() if p.name not in {*_FILES, "blobs"} and not p.name.endswith(".tmp"))
