"""One frame of the wire protocol: header, payload and CRC-32, byte by byte as in SPEC.md, section "Frame"."""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from cobs import cobs
from numpy.typing import NDArray

from edge_cmcl.errors import DataError

VERSION = 1
HEADER = struct.Struct("<BBBBIIQHH")
CRC_BYTES = 4
MAX_PAYLOAD = 4096
MIN_PACKET = HEADER.size + CRC_BYTES
MAX_PACKET = MIN_PACKET + MAX_PAYLOAD
MAX_ENCODED = MAX_PACKET + -(-MAX_PACKET // 254)
"""Bytes of an encoded frame, its delimiter left out."""
DELIMITER = b"\0"

DTYPES: dict[int, np.dtype[np.generic]] = {
    1: np.dtype("<i1"),
    2: np.dtype("<u1"),
    3: np.dtype("<i2"),
    4: np.dtype("<u2"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


class Type(IntEnum):
    """What a frame carries."""

    DATA = 1
    HELLO = 2
    TIME = 3
    ADAPTER = 4
    STATUS = 5


class Frame(NamedTuple):
    """A frame, its fields as in SPEC.md, section "Header".

    Attributes:
        type: a `Type`.
        stream: 0 to 255.
        boot: of this start of the firmware; 0 from a host.
        sequence: of this stream and boot.
        time_us: device clock, microseconds since boot; 0 from a host.
        payload: at most 4096 bytes.
        dtype: code of the samples' type, a key of `DTYPES`; 0 unless DATA.
        samples: in the payload; 0 unless DATA.
        channels: of each sample; 0 unless DATA.
    """

    type: int
    stream: int
    boot: int
    sequence: int
    time_us: int
    payload: bytes
    dtype: int = 0
    samples: int = 0
    channels: int = 0

    def values(self) -> NDArray[np.generic]:
        """Return the samples of a DATA frame, (samples, channels) in the dtype they travelled in; a read-only view."""
        return np.frombuffer(self.payload, DTYPES[self.dtype]).reshape(self.samples, self.channels)


class FrameFault(Exception):  # noqa: N818 - it is no error of ours or of the user's: lines have noise
    """Why bytes are no frame; `reason` is the counter of SPEC.md, section "What a decoder does, in order"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def encode(frame: Frame) -> bytes:
    """Return `frame` as it travels, with its delimiter.

    Raises:
        DataError: the payload is too long, or header and payload of a DATA frame do not fit together.
    """
    if len(frame.payload) > MAX_PAYLOAD:
        raise DataError(
            "a frame is too long", expected=f"a payload of at most {MAX_PAYLOAD} bytes", got=str(len(frame.payload))
        )
    if not _fits(frame):
        raise DataError(
            "a DATA frame is not what its header says",
            expected="samples x channels values of its dtype",
            got=f"{frame.samples} x {frame.channels} of dtype {frame.dtype} in {len(frame.payload)} bytes",
        )
    packet = _head(frame) + frame.payload
    encoded: bytes = cobs.encode(packet + zlib.crc32(packet).to_bytes(CRC_BYTES, "little"))
    return encoded + DELIMITER


def data_frame(stream: int, boot: int, sequence: int, time_us: int, values: NDArray[np.generic]) -> Frame:
    """Return a DATA frame of (samples, channels) `values`, in one of `DTYPES`, the first taken at `time_us`.

    Raises:
        DataError: values of another shape or dtype.
    """
    dtype = values.dtype.newbyteorder("<")
    if dtype not in CODES or values.ndim != 2:
        raise DataError(
            "samples cannot travel", expected="(samples, channels) of int8, uint8, int16, uint16, int32 or float32",
            got=f"{values.shape} of {values.dtype}",
        )  # fmt: skip
    payload = np.ascontiguousarray(values, dtype).tobytes()
    return Frame(Type.DATA, stream, boot, sequence, time_us, payload, CODES[dtype], *values.shape)


def decode(encoded: bytes) -> Frame:
    """Return the frame of `encoded`, the bytes between two delimiters.

    Raises:
        FrameFault: they are no frame of this version; nothing of them may be used.
    """
    if len(encoded) > MAX_ENCODED:
        raise FrameFault("too_long")
    try:
        packet = cobs.decode(encoded)
    except cobs.DecodeError:
        raise FrameFault("bad_cobs") from None
    if len(packet) < MIN_PACKET:
        raise FrameFault("too_short")
    if len(packet) > MAX_PACKET:
        raise FrameFault("too_long")
    if zlib.crc32(packet[:-CRC_BYTES]) != int.from_bytes(packet[-CRC_BYTES:], "little"):
        raise FrameFault("bad_crc")
    version, kind, stream, dtype, boot, sequence, time_us, samples, channels = HEADER.unpack_from(packet)
    if version != VERSION:
        raise FrameFault("bad_version")
    if not Type.DATA <= kind <= Type.STATUS:
        raise FrameFault("unknown_type")
    payload = packet[HEADER.size : -CRC_BYTES]
    frame = Frame(kind, stream, boot, sequence, time_us, payload, dtype, samples, channels)
    if not _fits(frame):
        raise FrameFault("bad_fields")
    return frame


def _head(frame: Frame) -> bytes:
    return HEADER.pack(
        VERSION, frame.type, frame.stream, frame.dtype, frame.boot, frame.sequence & 0xFFFFFFFF, frame.time_us,
        frame.samples, frame.channels,
    )  # fmt: skip


def _fits(frame: Frame) -> bool:
    """Whether header and payload say the same; what a payload holds is for the type's own parser."""
    if frame.type != Type.DATA:
        return frame.dtype == frame.samples == frame.channels == 0
    dtype = DTYPES.get(frame.dtype)
    if dtype is None or not (frame.stream and frame.samples and frame.channels):
        return False
    return frame.samples * frame.channels * dtype.itemsize == len(frame.payload)
