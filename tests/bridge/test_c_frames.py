"""The C encoder, decoder and HELLO against the golden vectors and against Python, under sanitizers."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from bad_frames import BAD_FRAMES
from c_build import program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_bridge import frames
from firmware_bridge.decoder import StreamDecoder
from firmware_bridge.frames import MAX_PACKET, MAX_PAYLOAD, Frame, Type
from firmware_bridge.hello import MAX_BYTES, Hello, parse_hello

GOLDEN = json.loads((Path(__file__).parent.parent / "vectors" / "frames.json").read_text())
FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def tool(*arguments: object, stdin: bytes = b"") -> bytes:
    command = [program("frames_tool"), *map(str, arguments)]
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # which costs more than all the rest
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def decoded(stream: bytes, chunk: int = 1000, capacity: int = MAX_PACKET) -> tuple[list[Frame], dict[str, int]]:
    """Return the frames that C finds in a stream, and its counters that are not zero."""
    *found, counters = map(json.loads, tool("decode", capacity, chunk, stdin=stream).splitlines())
    return [as_frame(entry) for entry in found], {name: count for name, count in counters.items() if count}


def as_frame(entry: dict[str, Any]) -> Frame:
    fields = {name: entry[name] for name in Frame._fields}
    return Frame(**{**fields, "payload": bytes.fromhex(entry["payload"])})


def encoded(made: Iterable[Frame], how: str = "encode") -> bytes:
    """Return what C makes of frames."""
    lines = [
        f"{f.type} {f.stream} {f.dtype} {f.boot} {f.sequence} {f.time_us} {f.samples} {f.channels} {f.payload.hex()}\n"
        for f in made
    ]
    return tool(how, stdin="".join(lines).encode())


@pytest.mark.parametrize("how", ["encode", "stream"])
def test_c_encodes_the_golden_frames_to_the_letter(how: str) -> None:
    expected = b"".join(bytes.fromhex(entry["encoded"]) for entry in GOLDEN["frames"])
    assert encoded(map(as_frame, GOLDEN["frames"]), how) == expected


@pytest.mark.parametrize("chunk", [1, 7, 100000])
def test_c_decodes_the_golden_frames_from_pieces_of_any_length(chunk: int) -> None:
    stream = b"".join(bytes.fromhex(entry["encoded"]) for entry in GOLDEN["frames"])
    expected = [as_frame(entry) for entry in GOLDEN["frames"]]
    assert decoded(b"\0" + stream, chunk) == (expected, {"frames": len(expected)})


def test_c_writes_the_golden_hello() -> None:
    golden = Hello(**GOLDEN["hello"])
    assert hello(golden) == golden.to_bytes()


@pytest.mark.parametrize(("bad", "reason"), BAD_FRAMES)
def test_what_is_no_frame_is_counted_by_its_reason_and_the_next_one_is_read(bad: bytes, reason: str) -> None:
    good = Frame(Type.HELLO, 1, 1, 0, 0, b"x")
    assert decoded(bad + b"\0" + frames.encode(good)) == ([good], {reason: 1, "frames": 1})


def test_a_firmware_with_a_small_buffer_drops_what_is_longer_and_takes_what_fits() -> None:
    fits, longer = (Frame(Type.ADAPTER, 0, 0, 0, 0, b"a" * size) for size in (64, 65))
    stream = frames.encode(longer) + frames.encode(fits)
    assert decoded(stream, capacity=28 + 64) == ([fits], {"too_long": 1, "frames": 1})


def any_frame() -> st.SearchStrategy[Frame]:
    zeros_and_more = st.one_of(st.binary(max_size=700), st.integers(0, MAX_PAYLOAD).map(lambda n: b"\x01" * n))
    u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
    return st.builds(
        lambda *fields: Frame(*fields), st.integers(2, 5), st.integers(0, 255), u32, u32, u64, zeros_and_more
    )  # fmt: skip


@FEW
@given(st.lists(any_frame(), max_size=8))
def test_python_reads_what_c_writes_and_writes_the_same(made: list[Frame]) -> None:
    stream = encoded(made)
    assert stream == b"".join(map(frames.encode, made)) == encoded(made, "stream")
    assert list(StreamDecoder().feed(stream)) == made
    assert decoded(stream)[0] == made


@FEW
@given(st.binary(max_size=9000), st.integers(1, 5000))
def test_any_bytes_are_survived_and_counted_as_python_counts_them(noise: bytes, chunk: int) -> None:
    stream, python = noise + b"\0" + frames.encode(Frame(Type.STATUS, 3, 9, 8, 7, b"payload")), StreamDecoder()
    found = list(python.feed(stream))
    assert decoded(stream, chunk) == (found, {**python.faults, "frames": python.frames})
    assert found[-1].payload == b"payload"


def test_at_five_percent_of_flipped_bits_what_is_accepted_is_right_and_no_good_frame_is_missed() -> None:
    """Frames between which bits flip, with good ones between them: each of those is found, whatever was before it."""
    rng = random.Random(6)
    clean = [Frame(Type.STATUS, i % 256, 7, i, i * i, rng.randbytes(rng.randrange(0, 60))) for i in range(6000)]
    stream, untouched = bytearray(), []
    for frame in clean:
        sent = bytearray(frames.encode(frame))
        if rng.random() < 0.8:
            for bit in range(8 * len(sent)):
                if rng.random() < 0.05:
                    sent[bit // 8] ^= 1 << bit % 8
        # A frame is whole where its own bytes are right, and the delimiter before it, too.
        if bytes(sent) == frames.encode(frame) and (not stream or stream[-1] == 0):
            untouched.append(frame)
        stream += sent
    found, counters = decoded(bytes(stream))
    assert found == untouched
    assert counters["bad_crc"] + counters["bad_cobs"] + counters["too_short"] > 3000


def hello(h: Hello, capacity: int = MAX_BYTES) -> bytes | int:
    """Return the payload that C writes, or its status."""
    text = tool(
        "hello", h.name, h.unit, repr(h.scale), repr(h.rate_hz), h.channels, h.dtype, h.firmware, h.kind, h.max_payload,
        capacity,
    ).decode()  # fmt: skip
    return int(text.split()[1]) if text.startswith("status") else bytes.fromhex(text)


NORMAL = Hello("gyro", "°/s", 0.1, 50.0, 3, 3, "x 1.0", "sensor", 256)
BAD_ARGUMENT, TOO_SMALL = 2, 3


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "a"},
        {"name": "a" * 32, "unit": "°" * 64, "firmware": "é" * 64},
        {"name": "a_b_9", "firmware": ""},
        {"scale": 3e38, "rate_hz": 1e6},
        {"scale": 5e-324, "rate_hz": 1e-12},
        {"channels": 1024, "dtype": 6, "max_payload": 4096},
        {"channels": 24, "kind": "embedding", "max_payload": 64},
    ],
)
def test_python_reads_the_hello_that_c_writes(changed: dict[str, Any]) -> None:
    expected = Hello(**{**NORMAL.__dict__, **changed})
    written = hello(expected)
    assert isinstance(written, bytes)
    assert parse_hello(written) == expected
    assert hello(expected, capacity=len(written)) == written
    assert hello(expected, capacity=len(written) - 1) == TOO_SMALL


@pytest.mark.parametrize(
    "changed",
    [
        {"name": ""},
        {"name": "Gyro"},
        {"name": "9a"},
        {"name": "a" * 33},
        {"name": "a-b"},
        {"name": "clock"},
        {"name": "valid"},
        {"name": "a b"},
        {"unit": ""},
        {"unit": "a\nb"},
        {"firmware": "\x7f"},
        {"unit": "°" * 65},
        {"firmware": "a" * 65},
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"rate_hz": 0.0},
        {"rate_hz": 1000001.0},
        {"rate_hz": float("nan")},
        {"channels": 0},
        {"channels": 1025},
        {"dtype": 0},
        {"dtype": 7},
        {"kind": "other"},
        {"max_payload": 63},
        {"max_payload": 4097},
    ],
)
def test_c_refuses_a_hello_that_a_host_would_refuse(changed: dict[str, Any]) -> None:
    assert hello(Hello(**{**NORMAL.__dict__, **changed})) == BAD_ARGUMENT
