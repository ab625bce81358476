"""What every fuzz target is, and what holds of each.

The property: the bytes are accepted or refused by an error of ours with one of the target's exit codes, told in a short
message that can be printed; no other exception, at most 1 s of processor time for 64 kB. What is accepted is written
again as the format says.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mutate import Mutation

from edge_cmcl.errors import EdgeCmclError

MAX_SECONDS = 1.0
MAX_MESSAGE = 4000


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: what the command line calls it.
        accept: parses the input, raises an error of ours or checks what it accepts.
        seeds: real documents, made on the fly.
        mutations: how inputs are made from them.
        exit_codes: of the errors by which it may refuse.
    """

    name: str
    accept: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    mutations: tuple[Mutation, ...]
    exit_codes: tuple[int, ...]


class ViolationError(AssertionError):
    """A parser did what none may do."""


def execute(target: Target, data: bytes) -> str:
    """Give `data` to `target`; return "accepted" or the class name of the error that refused it.

    Raises:
        ViolationError: a rule of the property does not hold.
        Exception: whatever the parser raised that is no error of ours.
    """
    start = time.thread_time()
    outcome = "accepted"
    try:
        target.accept(data)
    except EdgeCmclError as error:
        outcome = type(error).__name__
        message = str(error)
        if error.exit_code not in target.exit_codes:
            raise ViolationError(f"exit code {error.exit_code} of {message[:500]}") from error
        if len(message) > MAX_MESSAGE:
            raise ViolationError(f"a message of {len(message)} characters: {message[:200]}") from error
        if not message.replace("\n", "").isprintable():
            raise ViolationError(f"a message that a terminal would obey: {message[:500]!r}") from error
    took_s = time.thread_time() - start
    if took_s > MAX_SECONDS:
        raise ViolationError(f"{took_s:.1f} s for {len(data)} bytes")
    return outcome


def same(what: str, first: object, second: object) -> None:
    if first != second:
        raise ViolationError(f"{what}: {str(first)[:300]} is written as {str(second)[:300]}")


@cache
def folder() -> Path:
    """Return a folder in memory, where there is one, for parsers that take a path; it ends with the process."""
    parent = Path("/dev/shm")
    holder = tempfile.TemporaryDirectory(prefix="edge-cmcl-fuzz-", dir=parent if parent.is_dir() else None)
    _kept.append(holder)
    return Path(holder.name)


_kept: list[object] = []


def written(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path
