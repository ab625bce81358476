"""What happened to the frames of one stream on their way, told from their sequence (SPEC.md, last section)."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 64
"""Frames that a late one may be behind and still be taken."""
_ALL = (1 << WINDOW) - 1
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
        self._next: int | None = None
        self._seen = 0  # bit i: the frame i + 1 before the next one has come

    @property
    def counts(self) -> Counts:
        """Return what happened so far."""
        return Counts(**self._counts)

    def take(self, sequence: int) -> bool:
        """Return whether the frame with this `sequence` counts; else it is to be dropped."""
        if self._next is None:
            # A receiver may come late: what was before its first frame was not lost on the way to it.
            self._next, self._seen = sequence, _ALL
        ahead = (sequence - self._next) % _WHOLE
        if ahead < _HALF:
            self._counts["lost"] += ahead
            self._next = (sequence + 1) % _WHOLE
            self._seen = ((self._seen << (ahead + 1)) | 1) & _ALL if ahead < WINDOW else 1
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

    def restart(self) -> None:
        """The firmware has started anew: its sequence begins at 0, and what is missing of it from there was lost."""
        self._next, self._seen = 0, 0
        self._counts["reboots"] += 1

    def drop_stale(self) -> None:
        """Count a frame of a boot that is over."""
        self._counts["stale"] += 1

    def _count(self, name: str, result: bool) -> bool:
        self._counts[name] += 1
        return result
