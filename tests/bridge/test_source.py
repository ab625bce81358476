"""What comes over a link, made sense of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from firmware_bridge import frames, messages
from firmware_bridge.frames import Frame, Type, data_frame
from firmware_bridge.hello import Hello
from firmware_bridge.messages import State, Status
from firmware_bridge.recording import Exchange, Samples, StreamInfo
from firmware_bridge.source import Source, Taken

GYRO = Hello("gyro", "rad/s", 0.5, 50.0, 3, 3)
RAW = np.arange(6, dtype=np.int16).reshape(2, 3)


def hello(sequence: int = 0, boot: int = 1, stream: int = 1, what: Hello = GYRO) -> Frame:
    return Frame(Type.HELLO, stream, boot, sequence, 0, what.to_bytes())


def data(sequence: int, boot: int = 1, stream: int = 1) -> Frame:
    return data_frame(stream, boot, sequence, 1000 * sequence, RAW)


def take(source: Source, sent: Iterable[Frame], arrived_ns: int = 10**18) -> list[Taken]:
    return list(source.take(arrived_ns, b"".join(map(frames.encode, sent))))


def test_samples_come_scaled_in_the_unit_that_was_announced() -> None:
    (got,) = take(Source("x"), [hello(), data(1)])
    assert isinstance(got, Samples)
    assert (got.stream, got.boot, got.sequence, got.device_time_us) == (StreamInfo("x", 1, GYRO), 1, 1, 1000)
    np.testing.assert_array_equal(got.values, RAW * 0.5)
    assert got.values.dtype == np.float32


def test_samples_that_nobody_announced_are_counted_and_dropped() -> None:
    source = Source("x")
    assert [type(each) for each in take(source, [data(0), hello(1), data(2)])] == [Samples]
    assert source.faults == {"unannounced": 1}


def test_after_a_reboot_a_stream_must_be_announced_again_and_old_frames_are_dropped() -> None:
    source = Source("x")
    got = take(
        source, [hello(), data(1), data(0, boot=2), hello(1, boot=2), data(2, boot=2), data(2), data(5, stream=2)]
    )
    assert [(each.boot, each.sequence) for each in got if isinstance(each, Samples)] == [(1, 1), (2, 2)]
    assert source.faults == {"unannounced": 1}
    counts = source.counts()["streams"]
    assert counts["gyro"] == {
        "taken": 5, "lost": 0, "duplicates": 0, "reordered": 0, "stale": 1, "reboots": 1, "samples": 4,
        "dropped_by_firmware": 0,
    }  # fmt: skip
    assert counts["stream 2"]["stale"] == 1


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Type.HELLO, 2, 1, 0, 0, b"\xff"),
        Frame(Type.HELLO, 2, 1, 0, 0, GYRO.to_bytes()),  # a name that is taken
    ],
)
def test_a_hello_that_cannot_be_used_is_told_in_words(frame: Frame) -> None:
    source = Source("x")
    assert not take(source, [hello(), frame])
    assert source.faults == {"bad_hello": 1}
    assert "expected" in source.bad_hello
    assert list(source.streams) == [1]


@pytest.mark.parametrize("values", [RAW[:, :2], RAW.astype(np.float32)])
def test_samples_of_another_shape_than_announced_are_dropped(values: np.ndarray) -> None:
    source = Source("x")
    assert not take(source, [hello(), data_frame(1, 1, 1, 0, values)])
    assert source.faults == {"not_as_announced": 1}


def test_an_exchange_has_the_four_times() -> None:
    source = Source("x")
    asked = frames.decode(source.ask_for_time(500)[:-1])
    answer = Frame(Type.TIME, 0, 7, 0, 1200, messages.pong(messages.parse_ping(asked.payload), 1100))
    assert take(source, [answer], arrived_ns=900) == [Exchange("x", 7, 500, 900, 1100, 1200)]


@pytest.mark.parametrize(("arrived_ns", "time_us"), [(499, 1200), (900, 1099)])
def test_an_answer_from_before_the_question_is_none(arrived_ns: int, time_us: int) -> None:
    source = Source("x")
    assert not take(source, [Frame(Type.TIME, 0, 7, 0, time_us, messages.pong(500, 1100))], arrived_ns)
    assert source.faults == {"bad_fields": 1}


def test_what_a_firmware_says_of_itself_is_kept() -> None:
    source = Source("x")
    (answer,) = take(
        source,
        [
            hello(),
            Frame(Type.STATUS, 1, 1, 1, 0, messages.status(Status(17, 4, 2, bytes(8), 255))),
            Frame(Type.ADAPTER, 0, 1, 0, 0, messages.answer(State.RECEIVING, b"12345678", 512)),
        ],
    )
    assert answer == messages.Answer(State.RECEIVING, b"12345678", 512)
    assert source.counts()["streams"]["gyro"]["dropped_by_firmware"] == 17


def test_requests_are_numbered() -> None:
    source = Source("x")
    sent = [source.ask_for_time(1), source.ask(messages.query()), source.ask_for_hello()[1:]]
    assert [frames.decode(each[:-1]).sequence for each in sent] == [0, 1, 2]
