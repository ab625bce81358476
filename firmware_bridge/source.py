"""What comes over one link, made sense of: frames into samples, clock exchanges and counters. No I/O and no clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from edge_cmcl.errors import DataError
from firmware_bridge.decoder import StreamDecoder
from firmware_bridge.frames import Frame, FrameFault, Type, encode
from firmware_bridge.hello import DEFAULT_MAX_PAYLOAD, Hello, parse_hello
from firmware_bridge.messages import Answer, Status, parse_answer, parse_pong, parse_status, ping
from firmware_bridge.recording import Exchange, Samples, StreamInfo
from firmware_bridge.tracking import Tracker

MAX_BOOTS = 16
"""Boot ids of the past that are remembered, so that a frame which comes late is not taken for a reboot."""

Taken = Samples | Exchange | Answer


class Source:
    """One firmware at the other end of a link.

    Args:
        link: the link's address.

    Attributes:
        streams: what the firmware has registered, by stream number, since it started last.
        status: its newest counters, by stream number.
        faults: frames that could not be used, by reason, beside those of the decoder: unannounced (DATA without
            HELLO), bad_hello, bad_fields, not_as_announced.
        bad_hello: the last HELLO that was refused, in words; "" where none was.
        max_payload: longest payload in bytes that the firmware takes.
    """

    def __init__(self, link: str) -> None:
        self.link = link
        self.streams: dict[int, StreamInfo] = {}
        self.status: dict[int, Status] = {}
        self.faults: Counter[str] = Counter()
        self.bad_hello = ""
        self.max_payload = DEFAULT_MAX_PAYLOAD
        self.decoder = StreamDecoder()
        self.trackers: dict[int, Tracker] = {}
        self.samples: Counter[int] = Counter()
        self._boot: int | None = None
        self._past: deque[int] = deque(maxlen=MAX_BOOTS)
        self._sent = 0

    def take(self, arrived_ns: int, data: bytes) -> Iterator[Taken]:
        """Take bytes that came at `arrived_ns` of the host clock, and yield what they tell. To be exhausted."""
        for frame in self.decoder.feed(data):
            try:
                told = self._frame(arrived_ns, frame)
            except FrameFault as fault:
                self.faults[fault.reason] += 1
                continue
            if told is not None:
                yield told

    def ask_for_hello(self) -> bytes:
        """Return the bytes that ask the firmware what streams it has."""
        return b"\0" + self._request(Type.HELLO, b"")

    def ask_for_time(self, now_ns: int) -> bytes:
        """Return the bytes of a ping that is sent at `now_ns` of the host clock."""
        return self._request(Type.TIME, ping(now_ns))

    def ask(self, payload: bytes) -> bytes:
        """Return the bytes of a request about the micro model (`messages.begin` and others)."""
        return self._request(Type.ADAPTER, payload)

    @property
    def all_faults(self) -> Counter[str]:
        """Return all that was no frame or could not be used, by reason."""
        return self.decoder.faults + self.faults

    def counts(self) -> dict[str, Any]:
        """Return all counters as plain JSON values."""
        streams = {}
        for number, tracker in sorted(self.trackers.items()):
            info, status = self.streams.get(number), self.status.get(number)
            streams[info.hello.name if info else f"stream {number}"] = {
                **asdict(tracker.counts),
                "samples": self.samples[number],
                "dropped_by_firmware": status.dropped if status else 0,
            }
        faults = dict(self.all_faults)
        return {"bytes": self.decoder.bytes, "frames": self.decoder.frames, "faults": faults, "streams": streams}

    def _request(self, kind: Type, payload: bytes) -> bytes:
        self._sent += 1
        return encode(Frame(kind, 0, 0, self._sent - 1, 0, payload))

    def _frame(self, arrived_ns: int, frame: Frame) -> Taken | None:
        tracker = self.trackers.setdefault(frame.stream, Tracker())
        if frame.boot in self._past:
            tracker.drop_stale()
            return None
        if frame.boot != self._boot:
            self._start_anew(frame.boot)
        if not tracker.take(frame.sequence):
            return None
        if frame.type == Type.DATA:
            return self._data(arrived_ns, frame)
        if frame.type == Type.HELLO:
            self._hello(frame)
        elif frame.type == Type.TIME:
            token, received_us = parse_pong(frame.payload)
            if not token <= arrived_ns or not received_us <= frame.time_us:
                raise FrameFault("bad_fields")
            return Exchange(self.link, frame.boot, token, arrived_ns, received_us, frame.time_us)
        elif frame.type == Type.ADAPTER:
            return parse_answer(frame.payload)
        else:
            self.status[frame.stream] = parse_status(frame.payload)
        return None

    def _start_anew(self, boot: int) -> None:
        """Forget what a firmware said before it restarted: another one may have been flashed."""
        if self._boot is not None:
            self._past.append(self._boot)
            for tracker in self.trackers.values():
                tracker.restart()
        self._boot = boot
        self.streams.clear()
        self.status.clear()

    def _hello(self, frame: Frame) -> None:
        try:
            hello = parse_hello(frame.payload)
            self._check_name(frame.stream, hello)
        except DataError as error:
            self.bad_hello = str(error)
            raise FrameFault("bad_hello") from None
        self.max_payload = hello.max_payload
        self.streams[frame.stream] = StreamInfo(self.link, frame.stream, hello)

    def _check_name(self, stream: int, hello: Hello) -> None:
        for number, other in self.streams.items():
            if number != stream and other.hello.name == hello.name:
                raise DataError(
                    f"two streams of {self.link} have the same name",
                    expected="a name for each", got=f"{hello.name!r} for {number} and {stream}",
                )  # fmt: skip

    def _data(self, arrived_ns: int, frame: Frame) -> Samples:
        stream = self.streams.get(frame.stream)
        if stream is None:
            raise FrameFault("unannounced")
        hello = stream.hello
        if (frame.channels, frame.dtype) != (hello.channels, hello.dtype):
            raise FrameFault("not_as_announced")
        self.samples[frame.stream] += frame.samples
        values = frame.values().astype(np.float32) * np.float32(hello.scale)
        return Samples(stream, arrived_ns, frame.boot, frame.sequence, frame.time_us, values)
