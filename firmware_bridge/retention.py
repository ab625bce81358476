"""Deleting a recording once an update has learned from it: raw data is not kept (design.md, promise 2)."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_cmcl.durable import sync_folder
from firmware_bridge.recording import is_ours


@dataclass(frozen=True)
class FileRead:
    """A file of a recording as it was when it was read: device, inode, size and time of the last change."""

    path: Path
    state: tuple[int, int, int, int]

    @classmethod
    def of(cls, path: Path) -> FileRead:
        """Return how `path` is now; what a link points to is another file than the link."""
        try:
            now = path.lstat()
        except OSError:
            return cls(path, (0, 0, 0, 0))
        return cls(path, (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns))


@dataclass
class Deletion:
    """What became of the files of a recording.

    Attributes:
        deleted: files that are gone.
        kept: files that are still there, and why.
    """

    deleted: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return vars(self).copy()


def delete(recording: Path, files: Sequence[FileRead]) -> Deletion:
    """Delete the files of a recording, and its folder where nothing else is in it.

    Only what is a recording of ours, was read, and has not been written to since. Nothing is raised: what cannot be
    deleted is told in `Deletion.kept`.
    """
    done = Deletion()
    for file in files:
        why = _why_not(file)
        if not why:
            try:
                file.path.unlink()
            except OSError as error:
                why = error.strerror or str(error)
        if why:
            done.kept[str(file.path)] = why
        else:
            done.deleted.append(str(file.path))
    is_folder = recording.is_dir()
    with suppress(OSError):
        sync_folder(recording if is_folder else recording.parent)
        if is_folder:
            recording.rmdir()  # as long as nothing else is in it
    return done


def _why_not(file: FileRead) -> str:
    """Return why a file must stay, "" where it may go."""
    if FileRead.of(file.path) != file:
        return "it was written to after it was read"
    if not stat.S_ISREG(file.path.lstat().st_mode):
        return "it is a link, or no file"
    if not is_ours(file.path):
        return "it is no recording of edge-cmcl"
    return "it is being written" if _locked(file.path) else ""


def _locked(path: Path) -> bool:
    """Return whether a recorder holds the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
