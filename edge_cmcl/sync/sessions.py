"""What another process needs to go on with an upload: one small file each in a folder of the device.

Such a file is written without a flush to the disk: it has to survive the end of its process, and an upload that a power
cut sets back a little begins again. A file that cannot be read counts as none.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

_MAX_BYTES = 8192


class Sessions:
    """The unfinished uploads to one remote.

    Two processes must not go on with the same upload: the first one to come locks the files of a remote, and the other
    remembers its own uploads by itself. So does one that may not write there.

    Args:
        folder: where their files lie; None to remember them in this process alone.
        remote: the name of the remote.
    """

    def __init__(self, folder: Path | None, remote: str) -> None:
        self._folder = folder
        self._remote = remote
        self._kept: dict[str, dict[str, str | int]] = {}
        self._lock: int | None = None
        if folder is not None and not self._locked(folder):
            self._folder = None

    def _locked(self, folder: Path) -> bool:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._path("lock", ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        self.close()
        return False

    def close(self) -> None:
        """Let another process go on with these uploads."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def get(self, key: str) -> dict[str, str | int] | None:
        """Return what `keep` was given for `key`, None for nothing."""
        if self._folder is None or key in self._kept:
            return self._kept.get(key)
        try:
            with self._path(key).open("rb") as file:
                value = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        right = isinstance(value, dict) and value.pop("remote", None) == self._remote and value.pop("key", None) == key
        return value if right and all(isinstance(each, (str, int)) for each in value.values()) else None

    def keep(self, key: str, value: dict[str, str | int]) -> None:
        """Remember `value` for `key`. A disk that refuses is no error: only another process would have needed it."""
        self._kept[key] = value
        if self._folder is None:
            return
        path = self._path(key)
        beside = path.with_suffix(".tmp")
        data = json.dumps({"remote": self._remote, "key": key, **value}).encode()
        with suppress(OSError):
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            beside.replace(path)

    def drop(self, key: str) -> None:
        """Forget `key`."""
        self._kept.pop(key, None)
        if self._folder is not None:
            with suppress(OSError):
                self._path(key).unlink(missing_ok=True)

    def writer(self) -> str:
        """Return a name that tells this device from others that write to the same folder; kept like an upload."""
        found = self.get("writer")
        if found is None or not str(found.get("name", "")).isalnum():
            found = {"name": secrets.token_hex(8)}
            self.keep("writer", found)
        return str(found["name"])

    def _path(self, key: str, suffix: str = ".json") -> Path:
        assert self._folder is not None
        name = hashlib.sha256(f"{self._remote}\0{key}".encode()).hexdigest()[:32]
        return self._folder / f"{name}{suffix}"
