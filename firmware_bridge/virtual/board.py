"""A microcontroller in pure Python: what the C library does, for where there is no compiler. No I/O and no clock."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from edge_cmcl.errors import FormatError
from firmware_bridge import blob, messages
from firmware_bridge.decoder import StreamDecoder
from firmware_bridge.frames import MAX_PAYLOAD, Frame, FrameFault, Type, data_frame, encode
from firmware_bridge.messages import ID_BYTES, NO_SLOT, Answer, State, Status
from firmware_bridge.virtual.signals import Signal

HELLO_EVERY_US = 5_000_000
STATUS_EVERY_US = 1_000_000
FRAME_US = 50_000
"""The longest time that a sample waits in a frame for others."""
_NO_ID = bytes(ID_BYTES)


def is_micro_model(data: bytes) -> bool:
    """Return whether `data` is a micro model (BLOB.md)."""
    try:
        blob.read(data)
    except FormatError:
        return False
    return True


class ModelSlots:
    """Where a board keeps its micro model; it outlasts resets.

    Args:
        size: bytes of the largest blob it takes.
        is_model: whether bytes are a micro model that it can run.
    """

    def __init__(self, size: int = 1 << 17, is_model: Callable[[bytes], bool] = is_micro_model) -> None:
        self.active: bytes | None = None
        self._size = size
        self._is_model = is_model
        self._coming: tuple[bytes, int, int] | None = None
        self._received = bytearray()

    @property
    def active_id(self) -> bytes:
        """Return the id of the model in use, zeros where there is none."""
        return _NO_ID if self.active is None else hashlib.sha256(self.active).digest()[:ID_BYTES]

    def answer(self, payload: bytes) -> Answer:
        """Return the answer to a request (SPEC.md, section "ADAPTER").

        Raises:
            FrameFault: it is none.
        """
        op, rest = payload[:1], payload[4:]
        if op == b"\1" and len(rest) == ID_BYTES + 8:
            size, crc = (int.from_bytes(rest[at : at + 4], "little") for at in (ID_BYTES, ID_BYTES + 4))
            return self._begin(rest[:ID_BYTES], size, crc)
        if op == b"\2" and len(rest) > ID_BYTES + 4:
            return self._chunk(rest[:ID_BYTES], int.from_bytes(rest[ID_BYTES:][:4], "little"), rest[ID_BYTES + 4 :])
        if op == b"\3" and len(rest) == ID_BYTES:
            return self._commit(rest)
        if op == b"\4" and not rest:
            return self._now()
        raise FrameFault("bad_fields")

    def _now(self) -> Answer:
        if self._coming is not None:
            return Answer(State.RECEIVING, self._coming[0], len(self._received))
        if self.active is not None:
            return Answer(State.ACTIVE, self.active_id, len(self.active))
        return Answer(State.NONE, _NO_ID, 0)

    def _begin(self, id_: bytes, size: int, crc: int) -> Answer:
        if id_ == self.active_id:
            self._coming, self._received = None, bytearray()
            return self._now()
        if size == 0:
            return Answer(State.BAD_MODEL, id_, 0)
        if size > self._size:
            return Answer(State.TOO_LARGE, id_, 0)
        if self._coming != (id_, size, crc):
            self._coming, self._received = (id_, size, crc), bytearray()
        return Answer(State.RECEIVING, id_, len(self._received))

    def _chunk(self, id_: bytes, offset: int, data: bytes) -> Answer:
        if self._coming is None or id_ != self._coming[0]:
            return self._now()
        if offset == len(self._received) and offset + len(data) <= self._coming[1]:
            self._received += data
        return Answer(State.RECEIVING, id_, len(self._received))

    def _commit(self, id_: bytes) -> Answer:
        if self._coming is None or id_ != self._coming[0]:
            return self._now()
        if len(self._received) != self._coming[1]:
            return Answer(State.RECEIVING, id_, len(self._received))
        model, crc = bytes(self._received), self._coming[2]
        self._coming, self._received = None, bytearray()
        if zlib.crc32(model) != crc:
            return Answer(State.BAD_CRC, id_, 0)
        if not self._is_model(model):
            return Answer(State.BAD_MODEL, id_, 0)
        self.active = model
        return self._now()


class Board:
    """One boot of a board that plays `signals` from their start.

    Args:
        signals: its sensors; they become streams 1, 2, ...
        boot: another number at each boot.
        slots: for its micro model.
        drift_ppm: how much faster than true its clock runs, in millionths.
        started_us: device clock at the first sample.
    """

    def __init__(
        self, signals: Sequence[Signal], boot: int, slots: ModelSlots, *, drift_ppm: float = 0.0, started_us: int = 0
    ) -> None:
        self.boot = boot
        self._signals = signals
        self._slots = slots
        self._speed = 1.0 + drift_ppm * 1e-6
        self._started_us = started_us
        self._sequence: Counter[int] = Counter()
        self._sent = [0] * len(signals)
        self._next_hello_us = self._next_status_us = 0
        self._decoder = StreamDecoder()

    @property
    def ended(self) -> bool:
        """Return whether all samples have been sent."""
        return all(sent == len(signal.raw) for sent, signal in zip(self._sent, self._signals, strict=True))

    def close(self) -> None:
        """Nothing is to be let go of."""

    def clock_us(self, elapsed_s: float) -> int:
        """Return the device clock `elapsed_s` true seconds after the boot."""
        return int(elapsed_s * 1e6 * self._speed)

    def due(self, elapsed_s: float) -> Iterator[bytes]:
        """Yield the encoded frames that are to be sent until `elapsed_s` true seconds after the boot."""
        now_us = self.clock_us(elapsed_s)
        if now_us >= self._next_hello_us:
            self._next_hello_us = now_us + HELLO_EVERY_US
            yield from self._hellos(now_us)
        for i in range(len(self._signals)):
            yield from self._data(i, now_us)
        if now_us >= self._next_status_us:
            self._next_status_us = now_us + STATUS_EVERY_US
            for stream in range(len(self._signals) + 1):
                counters = Status(0, self._sequence[stream], sum(self._decoder.faults.values()), self._slots.active_id,
                                  NO_SLOT if self._slots.active is None else 0)  # fmt: skip
                yield self._frame(Type.STATUS, stream, now_us, messages.status(counters))

    def receive(self, data: bytes, elapsed_s: float) -> Iterator[bytes]:
        """Take bytes from the host and yield the encoded frames that answer them."""
        now_us = self.clock_us(elapsed_s)
        for frame in self._decoder.feed(data):
            try:
                yield from self._answer(frame, now_us)
            except FrameFault as fault:
                self._decoder.faults[fault.reason] += 1

    def _answer(self, frame: Frame, now_us: int) -> Iterator[bytes]:
        if frame.type == Type.TIME:
            token = messages.parse_ping(frame.payload)
            yield self._frame(Type.TIME, 0, now_us, messages.pong(token, now_us))
        elif frame.type == Type.HELLO and not frame.payload:
            yield from self._hellos(now_us)
        elif frame.type == Type.ADAPTER:
            yield self._frame(Type.ADAPTER, 0, now_us, messages.answer(*self._slots.answer(frame.payload)))

    def _hellos(self, now_us: int) -> Iterator[bytes]:
        for stream, signal in enumerate(self._signals, start=1):
            yield self._frame(Type.HELLO, stream, now_us, signal.hello.to_bytes())

    def _data(self, i: int, now_us: int) -> Iterator[bytes]:
        """Yield frames of all samples that were taken until `now_us`; few of them wait for others."""
        signal, hello = self._signals[i], self._signals[i].hello
        until = min(len(signal.raw), int((now_us - self._started_us) * hello.rate_hz / 1e6) + 1)
        block = max(1, min(int(hello.rate_hz * FRAME_US / 1e6), MAX_PAYLOAD // (hello.channels * signal.raw.itemsize)))
        while until - self._sent[i] >= block or (until == len(signal.raw) and self._sent[i] < until):
            begin, end = self._sent[i], min(self._sent[i] + block, until)
            time_us = self._started_us + round(begin * 1e6 / hello.rate_hz)
            frame = data_frame(i + 1, self.boot, self._sequence[i + 1], time_us, signal.raw[begin:end])
            self._sequence[i + 1] += 1
            self._sent[i] = end
            yield encode(frame)

    def _frame(self, kind: Type, stream: int, now_us: int, payload: bytes) -> bytes:
        self._sequence[stream] += 1
        return encode(Frame(kind, stream, self.boot, self._sequence[stream] - 1, now_us, payload))
