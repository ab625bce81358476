"""What happened to the frames of one stream on their way, told from their sequence (SPEC.md, last section)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW = 64
"""Frames that a late one may be behind and still be taken."""
MAX_BOOTS = 16
"""Boot ids of the past that are remembered, so that a frame which comes late is not taken for a reboot."""
_HALF, _WHOLE = 1 << 31, 1 << 32


@dataclass(frozen=True)
class Counts:
    """Frames of one stream.

    Attributes:
        taken: that counted.
        lost: that never came.
        duplicates: that came again, and were dropped.
        reordered: that came late, and were taken.
        stale: that came too late, or from a boot before, and were dropped.
        reboots: how often the firmware started anew.
    """

    taken: int = 0
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    stale: int = 0
    reboots: int = 0


class Tracker:
    """Follows the sequence of one stream, over its boots."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Counts.__dataclass_fields__, 0)
        self._boot: int | None = None
        self._past: deque[int] = deque(maxlen=MAX_BOOTS)
        self._next = 0
        self._seen = 0  # bit i: the frame i + 1 before the next one has come

    @property
    def counts(self) -> Counts:
        """Return what happened so far."""
        return Counts(**self._counts)

    def take(self, boot: int, sequence: int) -> bool:
        """Return whether the frame with this `sequence` of this `boot` counts; else it is to be dropped."""
        if boot != self._boot and not self._enter(boot, sequence):
            return self._count("stale", False)
        ahead = (sequence - self._next) % _WHOLE
        if ahead < _HALF:
            self._counts["lost"] += ahead
            self._next = (sequence + 1) % _WHOLE
            self._seen = ((self._seen << (ahead + 1)) | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            return self._count("taken", True)
        behind = _WHOLE - ahead
        if behind > WINDOW:
            return self._count("stale", False)
        if self._seen >> (behind - 1) & 1:
            return self._count("duplicates", False)
        self._seen |= 1 << (behind - 1)
        self._counts["lost"] -= 1
        self._counts["taken"] += 1
        return self._count("reordered", True)

    def _enter(self, boot: int, sequence: int) -> bool:
        """Begin to follow `boot`, unless it is one of the past."""
        if boot in self._past:
            return False
        if self._boot is None:
            # A receiver may come late: what was before its first frame was not lost on the way to it.
            self._next, self._seen = sequence, (1 << WINDOW) - 1
        else:
            self._past.append(self._boot)
            self._counts["reboots"] += 1
            self._next, self._seen = 0, 0
        self._boot = boot
        return True

    def _count(self, name: str, result: bool) -> bool:
        self._counts[name] += 1
        return result
