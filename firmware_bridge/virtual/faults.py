"""What goes wrong between a board and a host: a line that loses, flips, holds back and cuts."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from edge_cmcl.errors import UsageError


@dataclass(frozen=True)
class Faults:
    """What goes wrong.

    Attributes:
        loss: share of the frames that never arrive.
        bit_errors: share of the frames in which bits are flipped, each with probability 5 %.
        duplicates: share of the frames that arrive twice.
        jitter_s: every piece arrives late by up to this.
        reboot_every_s: the board restarts so often; 0 for never.
        stall_every_s: the line stands still so often; 0 for never.
        stall_s: for so long each time; what comes meanwhile arrives afterwards.
        drift_ppm: how much faster than true the board's clock runs, in millionths.
        seed: of all chance.
    """

    loss: float = 0.0
    bit_errors: float = 0.0
    duplicates: float = 0.0
    jitter_s: float = 0.0
    reboot_every_s: float = 0.0
    stall_every_s: float = 0.0
    stall_s: float = 1.0
    drift_ppm: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("loss", "bit_errors", "duplicates"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is out of range", expected="0 to 1", got=str(getattr(self, name)))
        for name in ("jitter_s", "reboot_every_s", "stall_every_s", "stall_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is out of range", expected="seconds", got=str(getattr(self, name)))


class FaultyLine:
    """Carries encoded frames one way, and tells what it did to them.

    Attributes:
        done: how many frames were lost, flipped and repeated.
    """

    def __init__(self, faults: Faults) -> None:
        self.done: Counter[str] = Counter()
        self._faults = faults
        self._random = random.Random(faults.seed)
        self._waiting: list[tuple[float, bytes]] = []

    def send(self, frame: bytes, now_s: float) -> None:
        """Give it a frame at `now_s`."""
        faults, chance = self._faults, self._random.random
        if chance() < faults.loss:
            self.done["lost"] += 1
            return
        if chance() < faults.bit_errors:
            self.done["flipped"] += 1
            frame = self._flipped(frame)
        if chance() < faults.duplicates:
            self.done["repeated"] += 1
            frame = frame + frame
        at_s = self._released_s(now_s + chance() * faults.jitter_s)
        # A line never changes the order of its bytes.
        self._waiting.append((max(at_s, self._waiting[-1][0] if self._waiting else 0.0), frame))

    def take(self, now_s: float) -> bytes:
        """Return the bytes that have arrived until `now_s`."""
        ready = 0
        while ready < len(self._waiting) and self._waiting[ready][0] <= now_s:
            ready += 1
        arrived = b"".join(frame for _, frame in self._waiting[:ready])
        del self._waiting[:ready]
        return arrived

    @property
    def empty(self) -> bool:
        """Return whether nothing is under way."""
        return not self._waiting

    def _released_s(self, at_s: float) -> float:
        every_s = self._faults.stall_every_s
        if not every_s or at_s < every_s:
            return at_s
        began_s = at_s // every_s * every_s
        return max(at_s, began_s + self._faults.stall_s)

    def _flipped(self, frame: bytes) -> bytes:
        flips = 0
        for bit in range(8 * len(frame)):
            flips |= (self._random.random() < 0.05) << bit
        return (int.from_bytes(frame, "little") ^ flips).to_bytes(len(frame), "little")
