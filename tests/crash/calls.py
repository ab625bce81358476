"""The file-system calls of a process that change something, as strace lists them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MUTATING = (
    *("open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "truncate", "ftruncate", "fallocate"),
    *("chmod", "fchmod", "fchmodat", "fsync", "fdatasync"),
)
"""Calls that may change a file system; the opening ones do where a file is opened for writing.

What a program writes into mapped memory is no call: only an update's cache is written so, and that is scratch."""

_OPENING = ("open", "openat", "creat")
_FOR_WRITING = re.compile(r"\bO_(CREAT|WRONLY|RDWR|TRUNC)\b")
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_QUOTED = re.compile(r'"([^"]*)"|<([^>]*)>')
_NAMES = (
    (re.compile(r"[0-9a-f]{64}"), "HEX"),
    (re.compile(r"(?<=/sync/)[0-9a-f]{32}"), "HEX"),
    (re.compile(r"work-\w+"), "work-*"),
    (re.compile(r"\.[a-z0-9_]{8}\.tmp"), ".*.tmp"),
)


@dataclass(frozen=True)
class Call:
    """One call that changes something below a store.

    Attributes:
        name: of the system call.
        n: which of its process's calls of that name it is, from 1; calls that change nothing count, too.
        what: the paths below the store in its arguments, with digests and random names left out.
        scratch: whether it only touches work in progress (`work-*`), which no reader looks at.
    """

    name: str
    n: int
    what: str
    scratch: bool


def listed(log: Path, process: int, store: Path) -> list[Call]:
    """Return the calls of `process` in a log of `strace -f -y` that change something below `store`, in order."""
    counts: dict[str, int] = {}
    found = []
    for line in log.read_text().splitlines():
        match = _LINE.match(line)
        if match is None or int(match[1]) != process:
            continue
        name, arguments = match[2], match[3]
        counts[name] = counts.get(name, 0) + 1
        if name in _OPENING and not _FOR_WRITING.search(arguments):
            continue
        paths = _below(store, arguments)
        if paths:
            scratch = all("/work-" in path for path in paths)
            found.append(Call(name, counts[name], " ".join(map(_plain, paths)), scratch))
    return found


def _below(store: Path, arguments: str) -> list[str]:
    """Return the paths in a call's arguments, relative to the store's parent, that are the store or lie below it.

    A name that a descriptor's folder precedes is relative to that folder.
    """
    entered = arguments.partition(" = ")[0].removesuffix("<unfinished ...>")
    parts = [part for pair in _QUOTED.findall(entered) if (part := pair[0] or pair[1])]
    full, folder = [], ""
    for part in parts:
        full.append(part if part.startswith("/") or not folder else f"{folder}/{part}")
        folder = part if part.startswith("/") else folder
    root = str(store)
    inside = [path for path in full if path == root or path.startswith(f"{root}/")]
    return [path.removeprefix(str(store.parent)) for path in inside]


def _plain(path: str) -> str:
    for pattern, name in _NAMES:
        path = pattern.sub(name, path)
    return path


def missing_tools() -> str:
    """Return why strace cannot be used here, or nothing."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-f", "-o", "/dev/null", sys.executable, "-c", ""]
    probe = subprocess.run(command, capture_output=True, check=False)
    return "" if probe.returncode == 0 else f"strace cannot trace here: {probe.stderr.decode()[:200]}"
