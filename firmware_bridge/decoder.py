"""Frames out of a stream of bytes that may begin anywhere, lose bytes and have wrong ones. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from firmware_bridge.frames import DELIMITER, MAX_ENCODED, Frame, FrameFault, decode


class StreamDecoder:
    """Collects bytes into frames (SPEC.md, section "What a decoder does, in order").

    It holds at most one frame's bytes, whatever comes, and is right again at the next delimiter.

    Attributes:
        faults: what was no frame, by reason: too_long, bad_cobs, too_short, bad_crc, bad_version, unknown_type,
            bad_fields.
        frames: that were whole.
        bytes: that came.
    """

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.frames = 0
        self.bytes = 0
        self._pending = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take `data`, of any length, and yield the frames that end in it. To be exhausted before the next call."""
        self.bytes += len(data)
        *ended, rest = bytes(data).split(DELIMITER)
        for piece in ended:
            frame = self._end(piece)
            if frame is not None:
                yield frame
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        if self._skipping or not piece:
            return
        if len(self._pending) + len(piece) > MAX_ENCODED:
            self.faults["too_long"] += 1
            self._pending.clear()
            self._skipping = True
            return
        self._pending += piece

    def _end(self, piece: bytes) -> Frame | None:
        """Return the frame that a delimiter after `piece` ends, if it is one."""
        if self._skipping:
            self._skipping = False
            return None
        encoded = bytes(self._pending) + piece if self._pending else piece
        self._pending.clear()
        if not encoded:
            return None
        try:
            frame = decode(encoded)
        except FrameFault as fault:
            self.faults[fault.reason] += 1
            return None
        self.frames += 1
        return frame
