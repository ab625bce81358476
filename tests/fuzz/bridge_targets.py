"""Fuzz targets of the firmware bridge."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

from mutate import blind
from target import Target, same

from edge_cmcl.tensors import from_bytes
from firmware_bridge import blob

_VECTORS = Path(__file__).parent.parent / "vectors" / "micro.safetensors"


def _blob(data: bytes) -> None:
    """Read a micro model; what is accepted is the same when written again."""
    same("a micro model", blob.write(blob.read(data)), bytes(data))


def _blobs() -> list[bytes]:
    vectors = from_bytes(_VECTORS.read_bytes())
    return [vectors[f"{precision}.blob"].tobytes() for precision in blob.PRECISIONS]


def _in_blob(chance: random.Random, data: bytes) -> bytes:
    """Change bytes, half of the time in the header, and make size and checksum right again."""
    head = chance.choice((0, 108))
    changed = data[:head] + blind(chance, data[head:]) if head else blind(chance, data[:108]) + data[108:]
    sized = (changed[:8] + struct.pack("<I", len(changed)) + changed[12:])[:-4]
    return sized + struct.pack("<I", zlib.crc32(sized))


BRIDGE_TARGETS = (Target("blob", _blob, _blobs, (blind, _in_blob, _in_blob, _in_blob), (4,)),)
