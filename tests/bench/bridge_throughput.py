"""How fast frames are decoded and recorded on one core, against ten streams at 10 kHz of three int16 channels.

    python tests/bench/bridge_throughput.py [--json]

Three stages, each on its own: frames out of bytes (`StreamDecoder`), samples out of frames (`Source`, which scales,
follows sequences and checks what was announced), and the whole way onto the disk (`RecordingWriter`, fsync once a
second of data).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge.decoder import StreamDecoder
from firmware_bridge.frames import Frame, Type, data_frame, encode
from firmware_bridge.hello import Hello
from firmware_bridge.recording import RecordingWriter, Samples
from firmware_bridge.source import Source

STREAMS, RATE_HZ, CHANNELS, BLOCK = 10, 10_000, 3, 64
SECONDS = 10
READ_BYTES = 1 << 16


def line() -> tuple[bytes, int]:
    """Return `SECONDS` of all streams as they come over a line, and how many frames of DATA that is."""
    rng = np.random.default_rng(0)
    sent = []
    for stream in range(1, STREAMS + 1):
        hello = Hello(f"imu{stream}", "g", 0.001, RATE_HZ, CHANNELS, 3)
        sent.append(encode(Frame(Type.HELLO, stream, 1, 0, 0, hello.to_bytes())))
    frames = SECONDS * RATE_HZ // BLOCK
    for i in range(frames):
        values = rng.normal(0, 2000, (STREAMS, BLOCK, CHANNELS)).astype(np.int16)
        for stream in range(STREAMS):
            sent.append(encode(data_frame(stream + 1, 1, i + 1, i * BLOCK * 100, values[stream])))
    return b"".join(sent), frames * STREAMS


def pieces(stream: bytes) -> list[bytes]:
    """Return `stream` in pieces as a socket gives them."""
    return [stream[at : at + READ_BYTES] for at in range(0, len(stream), READ_BYTES)]


def decode(stream: bytes) -> None:
    """Make frames out of bytes."""
    decoder = StreamDecoder()
    for piece in pieces(stream):
        for _ in decoder.feed(piece):
            pass
    assert not decoder.faults


def understand(stream: bytes) -> None:
    """Make samples out of bytes."""
    source = Source("bench")
    for piece in pieces(stream):
        for _ in source.take(0, piece):
            pass
    assert sum(source.samples.values()) >= STREAMS * RATE_HZ * SECONDS * 0.99


def record(stream: bytes) -> None:
    """Bring samples to the disk, flushed as often as a recorder does."""
    source, due = Source("bench"), len(stream) // (2 * SECONDS)
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "bench.mcap").open("wb") as file:
        writer, since = RecordingWriter(file), 0
        for piece in pieces(stream):
            for event in source.take(0, piece):
                assert isinstance(event, Samples)
                writer.write(event)
            since += len(piece)
            if since > due:
                writer.flush()
                since = 0
        writer.finish({})


def measure() -> dict[str, Any]:
    """Return the figures."""
    stream, frames = line()
    needed = {"frames_per_s": frames / SECONDS, "mb_per_s": len(stream) / SECONDS / 1e6}
    found: dict[str, Any] = {"needed": needed}
    for name, stage in (("decode", decode), ("understand", understand), ("record", record)):
        seconds = min(_timed(stage, stream) for _ in range(3))
        found[name] = {
            "frames_per_s": frames / seconds,
            "mb_per_s": len(stream) / seconds / 1e6,
            "times_needed": SECONDS / seconds,
        }
    return found


def _timed(stage: Any, stream: bytes) -> float:
    began = time.perf_counter()
    stage(stream)
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    figures = measure()
    if parser.parse_args().json:
        print(json.dumps(figures, indent=2))
    else:
        for stage, values in figures.items():
            print(f"{stage:12}", "  ".join(f"{name} {value:,.1f}" for name, value in values.items()))
