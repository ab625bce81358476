"""The clock of a recording: the wall clock, read once, carried on by one that nobody sets."""

from __future__ import annotations

import time


class HostClock:
    """Nanoseconds since 1970; never goes back, also where the system's clock is set meanwhile.

    Args:
        speed: seconds that pass in a real one; other than 1 only beside a virtual board in accelerated time.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._began_ns, self._monotonic_ns = time.time_ns(), time.monotonic_ns()
        self._speed = speed

    def now_ns(self) -> int:
        """Return the time."""
        passed_ns = time.monotonic_ns() - self._monotonic_ns
        return self._began_ns + (passed_ns if self._speed == 1.0 else int(passed_ns * self._speed))
