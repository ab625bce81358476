"""The files of a recording under way: one after the other, each on the disk at least every so often."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from edge_cmcl.durable import storage_errors, sync_folder
from edge_cmcl.errors import StorageError, UsageError
from firmware_bridge.recording import Event, RecordingWriter


class Segments:
    """Writes a recording into `folder`, which is made; it must be new or empty.

    Args:
        folder: of the recording.
        rotate_bytes: a file that has grown beyond this is ended, and another one begun.
        min_free_bytes: recording ends when less than this is left on the file system; enough to end a file properly.

    Attributes:
        folder: of the recording.
        bytes: written so far, in all files.
        files: begun so far.

    Raises:
        UsageError: the folder has something in it.
        StorageError: the file system refused, or is full. What was flushed before is there.
    """

    def __init__(self, folder: Path, *, rotate_bytes: int, min_free_bytes: int) -> None:
        self.folder = folder
        self.files = 0
        self._rotate_bytes = rotate_bytes
        self._min_free_bytes = min_free_bytes
        self._ended_bytes = 0
        self._file: BinaryIO | None = None
        self._writer: RecordingWriter | None = None
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise UsageError(f"{folder} is not empty", expected="a new folder for the recording", got="files in it")
        self._begin()

    @property
    def bytes(self) -> int:
        """Return the bytes written so far."""
        return self._ended_bytes + (self._file.tell() if self._file else 0)

    @property
    def free_bytes(self) -> int:
        """Return the room that is left on the file system."""
        return shutil.disk_usage(self.folder).free

    def write(self, event: Event) -> None:
        """Add `event`."""
        with storage_errors(self.folder):
            self._open().write(event)

    def flush(self, counts: Mapping[str, Any]) -> None:
        """Bring everything to the disk; begin another file where this one is large enough.

        Raises:
            StorageError: too little room is left; the file under way has been ended.
        """
        with storage_errors(self.folder):
            self._open().flush()
        if self._file is not None and self._file.tell() > self._rotate_bytes:
            self.finish(counts)
            self._begin()
        if self.free_bytes < self._min_free_bytes:
            self.finish(counts)
            raise StorageError(
                f"recording into {self.folder} has ended: the disk is nearly full",
                expected=f"at least {self._min_free_bytes / 1e6:g} MB free", got=f"{self.free_bytes / 1e6:.1f} MB",
                hint="what was recorded is whole; free some space, or lower --min-free",
            )  # fmt: skip

    def finish(self, counts: Mapping[str, Any]) -> None:
        """End the file under way, with its index and `counts`."""
        if self._writer is None:
            return
        with storage_errors(self.folder):
            self._open().finish(counts)
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file under way as it is: what was flushed stays readable."""
        file, self._file, self._writer = self._file, None, None
        if file is not None:
            with suppress(OSError, ValueError):
                self._ended_bytes += file.tell()
            with suppress(OSError):
                file.close()

    def discard(self) -> None:
        """Remove the recording, in which nothing was recorded."""
        self.abandon()
        for path in self.folder.glob("*.mcap"):
            path.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def _begin(self) -> None:
        path = self.folder / f"{self.files:06}.mcap"
        with storage_errors(path):
            self._file = path.open("xb")
            # What is being written is not learned from and deleted (`retention`).
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self.files += 1
            self._writer = RecordingWriter(self._file)
            self._file.flush()
            os.fsync(self._file.fileno())
            sync_folder(self.folder)

    def _open(self) -> RecordingWriter:
        if self._writer is None:
            raise StorageError(f"the recording in {self.folder} has ended")
        return self._writer
