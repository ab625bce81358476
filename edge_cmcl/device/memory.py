"""How much memory this process has taken, and may take."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_cmcl.device.system_files import text_of
from edge_cmcl.errors import PlatformError


def peak_memory_bytes() -> int:
    """Return the largest resident size of this program since it was started.

    From `VmHWM` (proc(5)); where the system has no such line, from `getrusage`, which may count what started it, too.
    """
    peak = _told_by_kernel("VmHWM")
    return peak if peak is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes() -> int:
    """Return the resident size of this program now, 0 where the system has no such line as `VmRSS` (proc(5))."""
    return _told_by_kernel("VmRSS") or 0


def _told_by_kernel(name: str) -> int | None:
    """Return a size that stands in /proc/self/status, in bytes."""
    for line in text_of(Path("/proc/self/status")).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def reset_peak_memory() -> bool:
    """Let `peak_memory_bytes` begin anew from what is resident now (`clear_refs`, proc(5)); return whether it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@contextmanager
def memory_limit(max_bytes: int | None) -> Iterator[None]:
    """Let this process have at most `max_bytes` of memory of its own while the block lasts; None for no limit.

    The kernel counts what a process cannot give back (`RLIMIT_DATA`, getrlimit(2)): not the pages of files, such as
    programs and caches, which it drops when memory is short.

    Raises:
        PlatformError: it is not enough.
    """
    if max_bytes is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (max_bytes if hard < 0 else min(max_bytes, hard), hard))
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise PlatformError(
            "the memory limit was reached, and nothing was changed",
            expected=f"at most {max_bytes / 1e6:.0f} MB (--max-memory)",
            got="a need for more",
            hint="allow more, use fewer --threads, or learn from a shorter recording",
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or what led to it, is of a failed allocation; onnxruntime has no type for its own.

    A thread that cannot be started is one, too: its stack counts.
    """
    while error is not None:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in ("bad_alloc", "pthread_create")):
            return True
        error = error.__cause__ or error.__context__
    return False
