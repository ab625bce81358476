"""What lies in a store's folder, and removing what was made in vain (FORMAT.md, "Files")."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_cmcl.bundle.documents import index_from_json, state_from_json
from edge_cmcl.bundle.layout import INDEX_FILE, LAYOUT_FILE, Layout
from edge_cmcl.bundle.lock import LOCK_FILE, locked
from edge_cmcl.bundle.twofold import copy_of, mend
from edge_cmcl.durable import storage_errors
from edge_cmcl.errors import EdgeCmclError

STATE_FILE = "state.json"
KEYS_FOLDER = "keys"
TRUST_FILE = "trust.json"
HELD_OUT_FOLDER = "held-out"
SYNC_FOLDER = "sync"
WORK = "work-"
"""What the names of folders begin with in which work is in progress."""

_FILES = (
    *(LAYOUT_FILE, INDEX_FILE, STATE_FILE, LOCK_FILE),
    *(copy_of(Path(name)).name for name in (INDEX_FILE, STATE_FILE)),
)
_FOLDERS = ("blobs", KEYS_FOLDER, HELD_OUT_FOLDER, SYNC_FOLDER)


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
            for name in _FOLDERS:
                shutil.rmtree(root / name, ignore_errors=True)
            with suppress(OSError):
                root.rmdir()


def sweep(layout: Layout) -> None:
    """Remove what a killed writer left behind, and finish what it wrote of two equal files; the lock is held.

    Raises:
        StorageError: the file system refused.
    """
    with storage_errors(layout.root):
        for folder in layout.root.glob(f"{WORK}*"):
            shutil.rmtree(folder, ignore_errors=True)
        for parent in (layout.root, *(layout.root / name for name in ("blobs/sha256", KEYS_FOLDER, HELD_OUT_FOLDER))):
            for left in parent.glob(".*.tmp"):
                left.unlink(missing_ok=True)
    mend(layout.root / INDEX_FILE, index_from_json)
    mend(layout.root / STATE_FILE, state_from_json)
    mend(layout.root / KEYS_FOLDER / TRUST_FILE, _trust_from_json)


@contextmanager
def all_or_nothing(layout: Layout) -> Iterator[None]:
    """Remove the blobs that a block had written when it failed before any tag moved: a full disk must not stay full."""
    blobs, tags = layout.blob_path(""), layout.tags()
    there = set(blobs.iterdir())
    try:
        yield
    except BaseException:
        with suppress(EdgeCmclError, OSError):  # what went wrong first is what its user is told
            if layout.tags() == tags:
                for written in set(blobs.iterdir()) - there:
                    written.unlink(missing_ok=True)
        raise


def _trust_from_json(data: bytes, name: str) -> object:
    from edge_cmcl.bundle.keyring import trust_from_json  # and cryptography, which only a repair waits for here

    return trust_from_json(data, name)


def strangers(root: Path) -> list[str]:
    """Return what lies in `root` and does not belong to a store, not even to one whose creation was cut short."""
    if not root.is_dir():
        return [f"a file named {root.name}"]
    own = {*_FILES, *_FOLDERS}
    names = (path.name for path in root.iterdir())
    return sorted(name for name in names if name not in own and not (name.endswith(".tmp") or name.startswith(WORK)))
