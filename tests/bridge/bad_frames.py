"""What is no frame, and the counter that it belongs to: the decoders of Python and of C must agree on all of it."""

from __future__ import annotations

import zlib

from cobs import cobs

from firmware_bridge.frames import HEADER, MAX_ENCODED, MAX_PAYLOAD


def packed(payload: bytes = b"", **fields: int) -> bytes:
    """Return an encoded packet with any fields, its CRC right."""
    default = {"version": 1, "type": 2, "stream": 1, "dtype": 0, "boot": 1, "sequence": 0, "time": 0, "samples": 0}
    packet = HEADER.pack(*{**default, "channels": 0, **fields}.values()) + payload
    return bytes(cobs.encode(packet + zlib.crc32(packet).to_bytes(4, "little")))


DATA = {"type": 1, "dtype": 3, "samples": 2, "channels": 3}

BAD_FRAMES = [
    (b"\x05ab", "bad_cobs"),
    (b"\xff" + b"a" * 253, "bad_cobs"),
    (cobs.encode(bytes(27)), "too_short"),
    (b"\x01", "too_short"),
    (packed()[:-1] + b"\x7f", "bad_crc"),
    (packed(version=2), "bad_version"),
    (packed(version=0), "bad_version"),
    (packed(type=0), "unknown_type"),
    (packed(type=6), "unknown_type"),
    (packed(samples=1), "bad_fields"),
    (packed(channels=1), "bad_fields"),
    (packed(dtype=1), "bad_fields"),
    (packed(bytes(11), **DATA), "bad_fields"),
    (packed(bytes(12), **{**DATA, "dtype": 7}), "bad_fields"),
    (packed(bytes(12), **{**DATA, "dtype": 0}), "bad_fields"),
    (packed(bytes(12), **DATA, stream=0), "bad_fields"),
    (packed(b"", **{**DATA, "samples": 0}), "bad_fields"),
    (packed(bytes(12), **{**DATA, "samples": 65535, "channels": 65535}), "bad_fields"),
    (packed(bytes(4), **{**DATA, "dtype": 1, "samples": 0x8001, "channels": 0x8000}), "bad_fields"),
    (packed(bytes(MAX_PAYLOAD + 1)), "too_long"),
    (packed(b"\1" * (MAX_PAYLOAD + 1)), "too_long"),
    (packed(b"a" * (MAX_PAYLOAD + 1)), "too_long"),
    (b"\x01" * (MAX_ENCODED + 1), "too_long"),
    (b"\xff" * (3 * MAX_ENCODED), "too_long"),
]
