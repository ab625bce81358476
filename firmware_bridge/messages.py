"""Payloads of fixed layout: TIME, ADAPTER and STATUS (SPEC.md, sections of these names)."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, NamedTuple

from firmware_bridge.frames import FrameFault

_PING = struct.Struct("<B3xQ")
_PONG = struct.Struct("<B3xQQ")
_BEGIN = struct.Struct("<B3x8sII")
_CHUNK = struct.Struct("<B3x8sI")
_COMMIT = struct.Struct("<B3x8s")
_QUERY = struct.Struct("<B3x")
_ANSWER = struct.Struct("<B3xI8sI")
_STATUS = struct.Struct("<III8sB3x")

CHUNK_OVERHEAD = _CHUNK.size
ID_BYTES = 8
NO_SLOT = 255


class State(IntEnum):
    """What a firmware answers to a request about its micro model."""

    RECEIVING = 0
    ACTIVE = 1
    NONE = 2
    TOO_LARGE = 3
    BAD_CRC = 4
    BAD_MODEL = 5
    FLASH = 6
    BUSY = 7


class Pong(NamedTuple):
    """A firmware's answer to a ping.

    Attributes:
        token: of the ping.
        received_us: device clock when the ping had come.
    """

    token: int
    received_us: int


class Answer(NamedTuple):
    """A firmware's answer to an ADAPTER request.

    Attributes:
        state: a `State`.
        id: 8 bytes, of the blob that the state is about.
        next: byte of the blob that is wanted next.
    """

    state: State
    id: bytes
    next: int


class Status(NamedTuple):
    """A firmware's counters.

    Attributes:
        dropped: samples that a full ring buffer dropped since boot.
        sent: frames since boot.
        unusable: frames from the host since boot.
        model: 8 bytes, id of the micro model in use; zeros where there is none.
        slot: 0, 1, or `NO_SLOT`.
    """

    dropped: int
    sent: int
    unusable: int
    model: bytes
    slot: int


def ping(token: int) -> bytes:
    """Return the payload of a ping; `token` is the host's clock in nanoseconds."""
    return _PING.pack(1, token)


def pong(token: int, received_us: int) -> bytes:
    """Return the payload of the answer to a ping that had come at `received_us` of the device clock."""
    return _PONG.pack(2, token, received_us)


def parse_ping(payload: bytes) -> int:
    """Return the token of a ping.

    Raises:
        FrameFault: the payload is none.
    """
    return int(_unpack(_PING, payload, op=1)[0])


def parse_pong(payload: bytes) -> Pong:
    """Return a firmware's answer to a ping.

    Raises:
        FrameFault: the payload is none.
    """
    return Pong(*_unpack(_PONG, payload, op=2))


def begin(id_: bytes, size: int, crc: int) -> bytes:
    """Return the request to receive a blob of `size` bytes, CRC-32 `crc`, whose SHA-256 begins with the 8 of `id_`."""
    return _BEGIN.pack(1, id_, size, crc)


def chunk(id_: bytes, offset: int, data: bytes) -> bytes:
    """Return the request to take `data`, which begin at byte `offset` of the blob."""
    return _CHUNK.pack(2, id_, offset) + data


def commit(id_: bytes) -> bytes:
    """Return the request to check the blob, all of which was sent, and to use it."""
    return _COMMIT.pack(3, id_)


def query() -> bytes:
    """Return the request to say which model is in use."""
    return _QUERY.pack(4)


def answer(state: State, id_: bytes, next_: int) -> bytes:
    """Return a firmware's answer to any of the requests."""
    return _ANSWER.pack(5, state, id_, next_)


def parse_answer(payload: bytes) -> Answer:
    """Return a firmware's answer.

    Raises:
        FrameFault: the payload is none.
    """
    state, id_, next_ = _unpack(_ANSWER, payload, op=5)
    if state > max(State):
        raise FrameFault("bad_fields")
    return Answer(State(state), id_, next_)


def status(counters: Status) -> bytes:
    """Return the payload of a STATUS frame."""
    return _STATUS.pack(*counters)


def parse_status(payload: bytes) -> Status:
    """Return a firmware's counters.

    Raises:
        FrameFault: the payload holds none.
    """
    if len(payload) != _STATUS.size:
        raise FrameFault("bad_fields")
    return Status(*_STATUS.unpack(payload))


def _unpack(layout: struct.Struct, payload: bytes, op: int) -> tuple[Any, ...]:
    if len(payload) != layout.size or payload[0] != op:
        raise FrameFault("bad_fields")
    return tuple(layout.unpack(payload)[1:])
