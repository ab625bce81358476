"""Fuzz targets of what comes from microcontrollers and goes to them: HELLOs, lines, recordings, micro models."""

from __future__ import annotations

import json
import random
import struct
import zlib
from pathlib import Path

import cbor2
import numpy as np
from mutate import blind, changed
from target import Target, same, written

from edge_cmcl import tensors
from firmware_bridge import blob
from firmware_bridge.frames import Frame, Type, encode
from firmware_bridge.hello import Hello, parse_hello
from firmware_bridge.recording import Exchange, Label, RecordingFile, RecordingWriter, Samples, StreamInfo
from firmware_bridge.source import Source

_VECTORS = Path(__file__).parent.parent / "vectors"
_HELLO = Hello("gyro", "rad/s", 0.5, 50.0, 3, 3, "test 1.0")


def _hello(data: bytes) -> None:
    found = parse_hello(data)
    same("a HELLO", parse_hello(found.to_bytes()), found)


def _in_cbor(chance: random.Random, data: bytes) -> bytes:
    """Change one value or key of a CBOR map."""
    try:
        document = cbor2.loads(data)
        return cbor2.dumps(changed(chance, document))
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, ValueError, TypeError, OverflowError):
        return blind(chance, data)


def _line(data: bytes) -> None:
    """Read a line; what is taken of it is as large as was announced."""
    source = Source("fuzz")
    for told in source.take(1 << 62, data):
        if isinstance(told, Samples):
            assert told.values.shape[1] == told.stream.hello.channels
    source.counts()


def _lines() -> list[bytes]:
    golden = json.loads((_VECTORS / "frames.json").read_text())["frames"]
    hello = encode(Frame(Type.HELLO, 1, 7, 0, 0, _HELLO.to_bytes()))
    return [hello + b"".join(bytes.fromhex(each["encoded"]) for each in golden)]


def _recording(data: bytes) -> None:
    read = RecordingFile(written("line.mcap", data))
    for told in read.events():
        if isinstance(told, Samples):
            assert told.values.shape[1] == told.stream.hello.channels


def _recordings() -> list[bytes]:
    path, stream = written("whole.mcap", b""), StreamInfo("tcp://x:1", 1, _HELLO)
    with path.open("wb") as file:
        writer = RecordingWriter(file)
        for i in range(6):
            writer.write(Samples(stream, i, 7, i, 1000 * i, np.full((4, 3), i, np.float32)))
            writer.write(Exchange("tcp://x:1", 7, i, i + 1, i, i))
            writer.write(Label(i, "läuft"))
            writer.flush()
        writer.finish({"tcp://x:1": 1})
    return [path.read_bytes(), path.read_bytes()[:-400]]


def _blob(data: bytes) -> None:
    """Read a micro model; what is accepted is the same when written again."""
    same("a micro model", blob.write(blob.read(data)), bytes(data))


def _blobs() -> list[bytes]:
    vectors = tensors.from_bytes((_VECTORS / "micro.safetensors").read_bytes())
    return [vectors[f"{precision}.blob"].tobytes() for precision in blob.PRECISIONS]


def _in_blob(chance: random.Random, data: bytes) -> bytes:
    """Change bytes, half of the time in the header, and make size and checksum right again."""
    head = chance.choice((0, 108))
    changed = data[:head] + blind(chance, data[head:]) if head else blind(chance, data[:108]) + data[108:]
    sized = (changed[:8] + struct.pack("<I", len(changed)) + changed[12:])[:-4]
    return sized + struct.pack("<I", zlib.crc32(sized))


BRIDGE_TARGETS = (
    Target("hello", _hello, lambda: [_HELLO.to_bytes()], (blind, _in_cbor, _in_cbor), (3,)),
    Target("line", _line, _lines, (blind,), ()),
    Target("recording", _recording, _recordings, (blind,), (3,)),
    Target("blob", _blob, _blobs, (blind, _in_blob, _in_blob, _in_blob), (4,)),
)
