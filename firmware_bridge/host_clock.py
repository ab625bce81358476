"""The clock of a recording: the wall clock, read once, carried on by one that nobody sets."""

from __future__ import annotations

import time


class HostClock:
    """Nanoseconds since 1970; never goes back, also where the system's clock is set meanwhile."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return the time."""
        return time.monotonic_ns() + self._offset_ns
