"""Writes frames.json, the golden vectors of firmware_bridge/SPEC.md that C and Python share.

Run it only when the wire format changes:

python tests/vectors/make_frames.py
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge import messages
from firmware_bridge.frames import CODES, MAX_PAYLOAD, Frame, Type, data_frame, encode
from firmware_bridge.hello import Hello

GYRO = Hello("gyro", "rad/s", 0.001, 50.0, 3, 3, "example 1.0", "sensor", 1024)
ID = bytes(range(1, 9))


def frames() -> dict[str, Frame]:
    """Return what is encoded, by name."""
    ramp = np.arange(-6, 6, dtype=np.int16).reshape(4, 3)
    longest = np.arange(MAX_PAYLOAD // 4, dtype=np.float32).reshape(-1, 4)
    host = {"stream": 0, "boot": 0, "time_us": 0}
    made = {
        f"data {dtype}": data_frame(1, 7, i, 1000 * i, np.arange(6).reshape(2, 3).astype(dtype))
        for i, dtype in enumerate(CODES)
    }
    return made | {
        "data negative": data_frame(2, 0xFFFFFFFF, 0xFFFFFFFF, (1 << 64) - 1, ramp),
        "data zeros": data_frame(255, 1, 0, 0, np.zeros((100, 3), np.int16)),
        "data without zeros": data_frame(1, *[0x01010101] * 2, 0x0101010101010101, np.full((257, 1), -1, np.int8)),
        "data longest": data_frame(3, 5, 6, 123456789, longest),
        "hello": Frame(Type.HELLO, 1, 7, 0, 10, GYRO.to_bytes()),
        "hello asked for": Frame(Type.HELLO, **host, sequence=0, payload=b""),
        "ping": Frame(Type.TIME, **host, sequence=1, payload=messages.ping(1_234_567_890_123)),
        "pong": Frame(Type.TIME, 0, 7, 3, 2_000_100, messages.pong(1_234_567_890_123, 2_000_000)),
        "begin": Frame(Type.ADAPTER, **host, sequence=2, payload=messages.begin(ID, 70_000, 0xDEADBEEF)),
        "chunk": Frame(Type.ADAPTER, **host, sequence=3, payload=messages.chunk(ID, 512, bytes(range(256)))),
        "commit": Frame(Type.ADAPTER, **host, sequence=4, payload=messages.commit(ID)),
        "query": Frame(Type.ADAPTER, **host, sequence=5, payload=messages.query()),
        "answer": Frame(Type.ADAPTER, 0, 7, 4, 2_000_200, messages.answer(messages.State.RECEIVING, ID, 512)),
        "status": Frame(Type.STATUS, 1, 7, 9, 3_000_000, messages.status(messages.Status(17, 400, 2, ID, 1))),
    }  # fmt: skip


def vectors() -> dict[str, Any]:
    """Return the golden vectors as JSON values."""
    return {
        "hello": asdict(GYRO),
        "frames": [
            {
                "name": name,
                **frame._asdict(),
                "type": int(frame.type),
                "payload": frame.payload.hex(),
                "encoded": encode(frame).hex(),
            }
            for name, frame in frames().items()
        ],
    }


if __name__ == "__main__":
    (Path(__file__).parent / "frames.json").write_text(json.dumps(vectors(), indent=1) + "\n")
