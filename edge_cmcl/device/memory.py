"""How much memory this process has taken."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_memory_bytes() -> int:
    """Return the largest resident size of this program since it was started.

    From `VmHWM` (proc(5)); where the system has no such line, from `getrusage`, which may count what started it, too.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
