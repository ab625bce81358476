"""The firmware's main loop, as a process: HELLO, DATA, STATUS, TIME and ADAPTER as SPEC.md says."""

from __future__ import annotations

import hashlib
import itertools
import socket
import subprocess
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from c_board import Host, Posix, transfer
from c_build import make, program, run
from micro_samples import random_model

from firmware_bridge import messages
from firmware_bridge.blob import write
from firmware_bridge.decoder import StreamDecoder
from firmware_bridge.frames import DTYPES, Frame, Type, data_frame, encode
from firmware_bridge.hello import parse_hello
from firmware_bridge.messages import State

GYRO = "name=gyro,unit=rad/s,scale=0.5,rate=1000,channels=3,dtype=int16"


def of(kind: Type, stream: int | None = None):  # type: ignore[no-untyped-def]
    return lambda frame: frame.type == kind and (stream is None or frame.stream == stream)


def pieces(frames: list[Frame], stream: int) -> np.ndarray:
    return np.concatenate([frame.values() for frame in frames if of(Type.DATA, stream)(frame)])


@pytest.mark.parametrize("code", DTYPES)
def test_all_samples_of_a_file_arrive_with_their_times_in_every_dtype(tmp_path: Path, code: int) -> None:
    dtype = DTYPES[code]
    samples = np.arange(3000).reshape(1000, 3).astype(dtype)
    (tmp_path / "gyro.raw").write_bytes(samples.tobytes())
    name = dtype.name
    stream = f"name=a,unit=g,scale=0.25,rate=400,channels=3,dtype={name},data={tmp_path / 'gyro.raw'}"
    with Posix(tmp_path, "--stream", stream, "--speed", "0", "--exit", "--boot", "77") as board:
        frames = board.host().read_all()
    hello = parse_hello(next(frame for frame in frames if of(Type.HELLO, 1)(frame)).payload)
    assert (hello.name, hello.unit, hello.scale, hello.rate_hz, hello.channels, hello.dtype) == (
        "a",
        "g",
        0.25,
        400,
        3,
        code,
    )
    assert (hello.kind, hello.max_payload) == ("sensor", 1024)
    assert {frame.boot for frame in frames} == {77}
    np.testing.assert_array_equal(pieces(frames, 1), samples)
    sent = 0
    for frame in filter(of(Type.DATA, 1), frames):
        assert frame.time_us == sent * 2500
        sent += frame.samples


def test_sequence_counts_all_frames_of_a_stream_and_streams_are_told_apart(tmp_path: Path) -> None:
    streams = [f"name=s{i},rate={100 * (i + 1)},channels={i + 1},dtype=int16,count=500" for i in range(3)]
    arguments = [word for stream in streams for word in ("--stream", stream)]
    with Posix(tmp_path, *arguments, "--speed", "0", "--exit") as board:
        frames = board.host().read_all()
    for stream in range(4):
        assert [f.sequence for f in frames if f.stream == stream] == list(
            range(sum(f.stream == stream for f in frames))
        )
    assert [pieces(frames, stream).shape for stream in (1, 2, 3)] == [(500, 1), (500, 2), (500, 3)]
    assert {f.type for f in frames if f.stream == 1} == {Type.HELLO, Type.DATA, Type.STATUS}


def test_hello_comes_at_once_again_within_five_seconds_and_when_asked(tmp_path: Path) -> None:
    with Posix(tmp_path, "--stream", GYRO, "--stream", "name=b", "--speed", "40") as board:
        host = board.host()
        first = host.read(of(Type.HELLO, 2))
        again = host.read(of(Type.HELLO, 2))
        assert [frame.stream for frame in host.frames if frame.type == Type.HELLO] == [1, 2, 1, 2]
        assert 3_900_000 < again.time_us - first.time_us <= 5_000_000
        host.send(Type.HELLO)
        asked = host.read(of(Type.HELLO, 2))
        assert asked.time_us - again.time_us < 3_900_000


def test_a_ping_is_answered_with_its_token_and_when_it_came(tmp_path: Path) -> None:
    with Posix(tmp_path, "--stream", GYRO) as board:
        host = board.host()
        host.read(of(Type.DATA))
        before = host.frames[-1].time_us
        host.send(Type.TIME, messages.ping(123456789012345678))
        frame = host.read(of(Type.TIME, 0))
    answer = messages.parse_pong(frame.payload)
    assert answer.token == 123456789012345678
    assert before <= answer.received_us <= frame.time_us < before + 5_000_000


def test_the_clock_drifts_as_told(tmp_path: Path) -> None:
    with Posix(
        tmp_path, "--stream", "name=a,rate=100,count=10001", "--speed", "0", "--exit", "--drift", "-200"
    ) as board:
        frames = board.host().read_all()
    last = [frame for frame in frames if of(Type.DATA)(frame)][-1]
    assert last.time_us + (last.samples - 1) * 10_000 == pytest.approx(100e6 * (1 - 200e-6), abs=12_000)
    assert last.time_us < 100_000_000 - (last.samples - 1) * 10_000 - 15_000


def test_samples_that_find_no_room_are_counted_and_no_frame_bridges_them(tmp_path: Path) -> None:
    """Nobody reads for a while, so the line and then the ring fill up."""
    with Posix(tmp_path, "--stream", GYRO + ",count=60000", "--speed", "100", "--ring", "50", "--exit") as board:
        host = board.host()
        host.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        host.read(of(Type.DATA))
        time.sleep(0.8)
        frames = host.read_all()
    data = [frame for frame in frames if of(Type.DATA)(frame)]
    dropped = max(messages.parse_status(frame.payload).dropped for frame in frames if of(Type.STATUS, 1)(frame))
    got = sum(frame.samples for frame in data)
    assert dropped > 0
    assert got + dropped <= 60000
    gaps = 0
    for before, after in itertools.pairwise(data):
        gap = after.time_us - before.time_us - 1000 * before.samples
        assert gap >= -1
        gaps += round(gap / 1000)
        # Every value of a frame is where its time says: one second of sine, 100 times the amplitude, three phases.
        at = (after.time_us / 1e6 + np.arange(after.samples)[:, None] / 1000 + np.arange(3) / 3) * 2 * np.pi
        np.testing.assert_allclose(after.values(), 100 * np.sin(at), atol=1.2)
    assert gaps > 0


def test_status_counts_what_a_host_sent_and_nobody_can_use(tmp_path: Path) -> None:
    broken = bytearray(encode(Frame(Type.TIME, 0, 0, 0, 0, messages.ping(1))))
    broken[5] ^= 0x40
    useless = [
        Frame(Type.STATUS, 0, 0, 0, 0, bytes(24)),
        Frame(Type.TIME, 1, 0, 0, 0, messages.ping(1)),
        Frame(Type.TIME, 0, 0, 0, 0, messages.pong(1, 2)),
        Frame(Type.ADAPTER, 0, 0, 0, 0, messages.query()),  # this firmware takes no model
        data_frame(1, 0, 0, 0, np.zeros((1, 1), np.int8)),
    ]
    with Posix(tmp_path, "--stream", GYRO, "--speed", "20") as board:
        host = board.host()
        host.socket.sendall(bytes(broken) + b"\x05ab\0" + b"".join(map(encode, useless)))
        frame = host.read(lambda f: of(Type.STATUS, 0)(f) and messages.parse_status(f.payload).unusable >= 7)
    status = messages.parse_status(frame.payload)
    assert (status.unusable, status.dropped, status.model, status.slot) == (7, 0, bytes(8), 255)
    assert status.sent == frame.sequence


def micro_model(seed: int, **shape: int) -> tuple[bytes, bytes]:
    """Return a micro model of the gyro, 86 kB where no shape is given, and its id."""
    data = write(random_model("int8", seed=seed, **shape))
    return data, hashlib.sha256(data).digest()[:8]


SMALL = {"width": 12, "dimensions": 64, "labels": 1}


def query(host: Host) -> messages.Answer:
    return messages.parse_answer(host.ask(Type.ADAPTER, messages.query()))


def test_a_model_goes_down_through_a_reset_and_is_in_use_after_another(tmp_path: Path) -> None:
    (data, id_), flash = micro_model(1), ("--flash", str(tmp_path / "flash"), "--stream", GYRO)
    with Posix(tmp_path, *flash) as board:
        host = board.host()
        assert query(host) == (State.NONE, bytes(8), 0)
        assert transfer(host, data, id_, stop_at=30_000).next >= 30_000
    with Posix(tmp_path, *flash) as board:
        host = board.host()
        held = query(host)
        assert held[:2] == (State.RECEIVING, id_)
        assert 24_576 <= held.next <= 30_000  # whole erase blocks of 4096
        assert transfer(host, data, id_) == (State.ACTIVE, id_, 0)
        status = host.read(of(Type.STATUS, 0))
        assert messages.parse_status(status.payload)[3:] == (id_, 0)
    with Posix(tmp_path, *flash) as board:
        host = board.host()
        assert query(host) == (State.ACTIVE, id_, 0)
        assert transfer(host, data, id_) == (State.ACTIVE, id_, 0)
        newer, newer_id = micro_model(2)
        assert transfer(host, newer, newer_id) == (State.ACTIVE, newer_id, 0)
        # The one before is still there: to go back to it takes no chunk.
        answer = messages.parse_answer(host.ask(Type.ADAPTER, messages.begin(id_, len(data), zlib.crc32(data))))
        assert answer == (State.RECEIVING, id_, len(data))
        assert messages.parse_answer(host.ask(Type.ADAPTER, messages.commit(id_))) == (State.ACTIVE, id_, 0)


def test_lost_repeated_and_wrong_chunks_are_answered_with_what_is_wanted(tmp_path: Path) -> None:
    data, id_ = micro_model(3, **SMALL)
    size = len(data)
    with Posix(tmp_path, "--flash", str(tmp_path / "flash"), "--stream", GYRO) as board:
        host = board.host()

        def ask(payload: bytes) -> messages.Answer:
            return messages.parse_answer(host.ask(Type.ADAPTER, payload))

        assert ask(messages.chunk(id_, 0, data[:100])) == (State.NONE, bytes(8), 0)
        assert ask(messages.begin(id_, size, zlib.crc32(data))) == (State.RECEIVING, id_, 0)
        assert ask(messages.chunk(id_, 0, data[:100])).next == 100
        assert ask(messages.chunk(id_, 0, data[:100])).next == 100
        assert ask(messages.chunk(id_, 300, data[300:400])).next == 100
        assert ask(messages.chunk(bytes(8), 100, data[100:200])) == (State.RECEIVING, id_, 100)
        assert ask(messages.commit(id_)) == (State.RECEIVING, id_, 100)
        assert ask(messages.begin(id_, size, zlib.crc32(data))).next == 100
        assert ask(messages.chunk(id_, 100, b"wrong")).next == 105
        for offset in range(105, size - 50, 200):
            assert (
                ask(messages.chunk(id_, offset, data[offset : min(offset + 200, size - 50)])).state == State.RECEIVING
            )
        assert ask(messages.chunk(id_, size - 50, bytes(51))).next == size - 50
        assert ask(messages.chunk(id_, size - 50, data[-50:])).next == size
        # Five bytes were wrong: refused, and refused again, until it begins anew.
        assert ask(messages.commit(id_)) == (State.BAD_CRC, id_, 0)
        assert ask(messages.commit(id_)) == (State.BAD_CRC, id_, 0)
        assert query(host) == (State.NONE, bytes(8), 0)
        assert transfer(host, data, id_) == (State.ACTIVE, id_, 0)
        assert ask(messages.commit(id_)) == (State.ACTIVE, id_, 0)


def test_what_is_no_model_or_too_large_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    (data, id_), flash = micro_model(4, **SMALL), ("--flash", str(tmp_path / "flash"), "--stream", GYRO)
    other_shape, other_id = micro_model(5, channels=2, **SMALL)
    with Posix(tmp_path, *flash) as board:
        host = board.host()
        assert transfer(host, data, id_) == (State.ACTIVE, id_, 0)
        assert transfer(host, b"x" * 3000, b"nomodel.") == (State.BAD_MODEL, b"nomodel.", 0)
        assert transfer(host, other_shape, other_id) == (State.BAD_MODEL, other_id, 0)
        assert query(host) == (State.ACTIVE, id_, 0)
        large = messages.begin(b"too.much", 256 * 1024 + 1, 0)
        assert messages.parse_answer(host.ask(Type.ADAPTER, large)) == (State.TOO_LARGE, b"too.much", 0)
        empty = messages.begin(b"no.bytes", 0, 0)
        assert messages.parse_answer(host.ask(Type.ADAPTER, empty)) == (State.BAD_MODEL, b"no.bytes", 0)
        assert query(host) == (State.ACTIVE, id_, 0)


def test_a_host_may_leave_and_another_come_and_both_understand_what_they_hear(tmp_path: Path) -> None:
    with Posix(tmp_path, "--stream", GYRO) as board:
        first = board.host()
        first.read(of(Type.DATA))
        first.socket.close()
        second = board.host()
        later = second.read(of(Type.DATA))
        assert later.boot == first.frames[0].boot
        assert later.sequence > first.frames[-1].sequence
        assert second.decoder.faults.total() <= 1  # the rest of a frame, at the beginning


def test_it_talks_over_tcp_a_pseudo_terminal_and_stdio(tmp_path: Path) -> None:
    binary = make("posix") / "ec_posix"
    with subprocess.Popen([binary, "--tcp", "127.0.0.1:0", "--stream", GYRO], stdout=subprocess.PIPE, text=True) as tcp:
        assert tcp.stdout is not None
        host, port = tcp.stdout.readline().strip().removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port))) as line:
            found: list[Frame] = []
            decoder = StreamDecoder()
            while not found:
                found += decoder.feed(line.recv(4096))
        tcp.kill()
    with subprocess.Popen([binary, "--pty", "--stream", GYRO], stdout=subprocess.PIPE, text=True) as pty:
        assert pty.stdout is not None
        with Path(pty.stdout.readline().strip()).open("rb", buffering=0) as line:
            found = []
            while not found:
                found += StreamDecoder().feed(line.read(4096))
        pty.kill()
    limited = [binary, "--stdio", "--speed", "0", "--exit", "--stream", GYRO + ",count=100"]
    out = subprocess.run(limited, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    assert len(pieces(list(StreamDecoder().feed(out)), 1)) == 100


def test_what_a_node_cannot_do_it_refuses_at_start() -> None:
    run(program("node_limits"))
