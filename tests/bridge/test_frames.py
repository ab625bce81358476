"""The wire format: golden vectors, what is refused, and what a decoder makes of noise."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bad_frames import BAD_FRAMES
from hypothesis import given
from hypothesis import strategies as st

from edge_cmcl.errors import DataError
from firmware_bridge import frames, messages
from firmware_bridge.decoder import StreamDecoder
from firmware_bridge.frames import DTYPES, MAX_ENCODED, Frame, FrameFault, Type, data_frame
from firmware_bridge.source import Source

VECTORS = Path(__file__).parent.parent / "vectors"
GOLDEN = json.loads((VECTORS / "frames.json").read_text())


def golden(entry: dict[str, object]) -> Frame:
    fields = {name: entry[name] for name in Frame._fields}
    return Frame(**{**fields, "payload": bytes.fromhex(str(entry["payload"]))})  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", GOLDEN["frames"], ids=lambda entry: entry["name"])
def test_a_golden_frame_is_encoded_and_decoded_to_the_letter(entry: dict[str, object]) -> None:
    encoded = bytes.fromhex(str(entry["encoded"]))
    assert frames.encode(golden(entry)) == encoded
    assert frames.decode(encoded[:-1]) == golden(entry)


@pytest.mark.parametrize(("encoded", "reason"), BAD_FRAMES)
def test_what_is_no_frame_is_counted_and_the_next_one_is_read(encoded: bytes, reason: str) -> None:
    decoder = StreamDecoder()
    good = frames.encode(Frame(Type.HELLO, 1, 1, 0, 0, b"x"))
    assert [f.payload for f in decoder.feed(encoded + b"\0" + good)] == [b"x"]
    assert decoder.faults == {reason: 1}


@given(st.binary(max_size=4000), st.lists(st.integers(1, 400), max_size=20))
def test_any_bytes_in_any_pieces_are_survived_and_the_next_frame_is_read(noise: bytes, cuts: list[int]) -> None:
    good = frames.encode(Frame(Type.STATUS, 3, 9, 8, 7, b"payload"))
    stream, found, decoder = noise + b"\0" + good, [], StreamDecoder()
    for cut in [*cuts, len(stream)]:
        found += list(decoder.feed(stream[:cut]))
        stream = stream[cut:]
    assert found[-1].payload == b"payload"
    assert len(decoder._pending) <= MAX_ENCODED


def test_an_endless_frame_takes_no_more_memory_than_one() -> None:
    decoder = StreamDecoder()
    for _ in range(1000):
        assert not list(decoder.feed(b"\xff" * 10_000))
    assert decoder.faults == {"too_long": 1}
    assert len(decoder._pending) <= MAX_ENCODED


def test_of_a_stream_with_5_percent_of_its_bits_flipped_every_accepted_frame_is_right() -> None:
    """At 5 % no frame of any length survives whole, so bursts are flipped: half of the frames stay clean."""
    rng = np.random.default_rng(0)
    sent, stream = {}, bytearray()
    for i in range(2000):
        frame = data_frame(1, 7, i, i, rng.integers(-2000, 2000, (8, 3)).astype(np.int16))
        sent[i] = frame
        encoded = bytearray(frames.encode(frame))
        if i % 2:
            flips = rng.random(len(encoded) * 8) < 0.05
            encoded = bytearray(np.frombuffer(encoded, np.uint8) ^ np.packbits(flips))
        stream += encoded
    decoder = StreamDecoder()
    got = list(decoder.feed(bytes(stream)))
    assert all(sent[frame.sequence] == frame for frame in got)
    # The frame after a bad one is lost only where a flip has eaten the delimiter between them.
    assert len(got) > 950 - 0.4 * 1000
    assert sum(decoder.faults.values()) > 900


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_samples_come_out_as_they_went_in(dtype: np.dtype[np.generic]) -> None:
    values = np.arange(12).reshape(4, 3).astype(dtype)
    sent = data_frame(1, 2, 3, 4, values[:, ::-1])
    got = frames.decode(frames.encode(sent)[:-1]).values()
    np.testing.assert_array_equal(got, values[:, ::-1])
    assert got.dtype == dtype


@pytest.mark.parametrize("values", [np.zeros(3, np.int16), np.zeros((2, 2)), np.zeros((1, 5000), np.int8)])
def test_samples_that_cannot_travel_are_refused(values: np.ndarray) -> None:
    with pytest.raises(DataError):
        frames.encode(data_frame(1, 1, 0, 0, values))


@pytest.mark.parametrize("payload", [b"", bytes(11), bytes(12), bytes(13), messages.pong(1, 2)])
def test_what_is_no_ping_is_told(payload: bytes) -> None:
    with pytest.raises(FrameFault):
        messages.parse_ping(payload)


def test_an_answer_in_an_unknown_state_is_none() -> None:
    payload = bytearray(messages.answer(messages.State.BUSY, bytes(8), 0))
    payload[4] = 8
    with pytest.raises(FrameFault):
        messages.parse_answer(bytes(payload))


def test_ten_million_fuzzed_bytes_are_survived_in_bounded_memory_and_no_wrong_frame_is_taken() -> None:
    """Golden frames, whole and cut, with flipped, dropped and added bytes, and noise between them."""
    rng = np.random.default_rng(5)
    good = [bytes.fromhex(entry["encoded"]) for entry in GOLDEN["frames"]]
    right = {frames.decode(encoded[:-1]) for encoded in good}
    source, fed, taken = Source("fuzz"), 0, 0
    tracemalloc.start()
    while fed < 10_000_000:
        pieces = [_fuzzed(good[int(rng.integers(len(good)))], rng) for _ in range(500)]
        stream = b"".join(pieces)
        for frame in StreamDecoder().feed(stream):
            assert frame in right
            taken += 1
        for _ in source.take(1 << 62, stream):
            pass
        fed += len(stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken > 1000
    assert source.decoder.frames == pytest.approx(taken, rel=0.01)
    assert peak < 30_000_000


def _fuzzed(encoded: bytes, rng: np.random.Generator) -> bytes:
    kind, at = int(rng.integers(6)), int(rng.integers(len(encoded)))
    if kind == 0:
        return encoded
    if kind == 1:
        return rng.bytes(int(rng.integers(1, 6000)))
    if kind == 2:
        return encoded[:at]
    if kind == 3:
        return encoded[:at] + rng.bytes(int(rng.integers(1, 9))) + encoded[at:]
    changed = bytearray(encoded)
    for place in rng.integers(0, len(encoded), int(rng.integers(1, 5))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)
