"""The library on emulated Cortex-M3, M4 and M7 boards, and built for small ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from c_board import CPUS, Qemu, data_header, transfer
from c_build import LIBRARY, PROGRAMS, make, needs, run
from micro_samples import random_model, random_windows

from firmware_bridge import messages
from firmware_bridge.blob import write
from firmware_bridge.frames import Frame, Type
from firmware_bridge.hello import parse_hello
from firmware_bridge.messages import State
from firmware_bridge.micro import embed

STRICT_ARM = "-Os -mthumb -Wconversion"


def firmware(machine: str, *variables: str) -> Path:
    needs("arm-none-eabi-gcc", "qemu-system-arm")
    return make("mps2", "gcc", "-O2", f"MACHINE={machine}", *variables) / f"ec_mps2_{machine}.elf"


@pytest.mark.parametrize("machine", CPUS)
def test_a_board_plays_its_windows_at_their_rate_and_answers(tmp_path: Path, machine: str) -> None:
    with Qemu(tmp_path, machine, firmware(machine, "SPIN=1"), boot=41) as board:
        host = board.host
        samples: list[Frame] = []

        def played(frame: Frame) -> bool:
            if frame.type == Type.DATA:
                samples.append(frame)
            return sum(f.samples for f in samples) == 64

        host.read(played)
        hello = parse_hello(next(f.payload for f in host.frames if f.type == Type.HELLO))
        host.send(Type.TIME, messages.ping(99))
        pong = host.read(lambda frame: frame.type == Type.TIME)
    assert (hello.name, hello.unit, hello.scale, hello.rate_hz, hello.channels) == ("ramp", "g", 0.001, 50, 3)
    assert {f.boot for f in host.frames} == {42}
    i = np.arange(64)
    expected = np.stack([i, 1000 - i, i * i % 100], axis=1)
    np.testing.assert_array_equal(np.concatenate([f.values() for f in samples]), expected)
    times = np.concatenate([f.time_us + 20_000 * np.arange(f.samples) for f in samples])
    np.testing.assert_allclose(np.diff(times), 20_000, atol=200)  # an instruction takes a microsecond here
    answer = messages.parse_pong(pong.payload)
    assert answer.token == 99
    assert times[-1] <= answer.received_us <= pong.time_us
    assert host.decoder.faults.total() == 0


def test_a_reset_changes_the_boot_id_and_begins_sequences_and_time_anew(tmp_path: Path) -> None:
    with Qemu(tmp_path, "an386", firmware("an386"), fast=False) as board:
        # 1.28 seconds of data: afterwards, too, something wakes the firmware.
        first = board.host.read(lambda frame: frame.type == Type.STATUS and frame.time_us > 2_500_000)
        board.reset()
        again = board.host.read(lambda frame: frame.type == Type.HELLO and frame.boot != first.boot)
    assert again.boot == first.boot + 1
    assert again.sequence == 0
    assert again.time_us < first.time_us


@pytest.mark.parametrize(("machine", "precision"), [("an385", "int8"), ("an386", "float32")])
def test_a_model_goes_down_through_a_reset_and_the_board_embeds_its_windows_as_numpy_does(
    tmp_path: Path, machine: str, precision: str
) -> None:
    model = random_model(precision, width=36, dimensions=256)
    windows = random_windows(model, 5)
    data = write(model)
    id_ = hashlib.sha256(data).digest()[:8]
    header = tmp_path / "data.h"
    header.write_text(data_header("gyro", "rad/s", 50, windows))
    elf = firmware(machine, "MICRO=1", f"DATA={header}")
    with Qemu(tmp_path, machine, elf, fast=False) as board:
        host = board.host
        assert transfer(host, data, id_, stop_at=len(data) // 2).state == State.RECEIVING
        before = host.frames[-1].boot
        board.reset()
        host.read(lambda frame: frame.boot == before + 1)
        host.send(Type.ADAPTER, messages.query())
        held = messages.parse_answer(
            host.read(lambda frame: frame.type == Type.ADAPTER and frame.boot > before).payload
        )
        assert held[:2] == (State.RECEIVING, id_)
        assert len(data) // 2 - 4096 < held.next <= len(data) // 2 + 1040  # whole erase blocks are kept
        assert transfer(host, data, id_) == (State.ACTIVE, id_, 0)
        embeddings = [host.read(lambda frame: frame.type == Type.DATA and frame.stream == 2) for _ in windows]
        kinds = {parse_hello(f.payload).name: parse_hello(f.payload).kind for f in host.frames if f.type == Type.HELLO}
    assert kinds == {"gyro": "sensor", "gyro_embedding": "embedding"}
    # Embedding may take longer than the ring lasts: samples may be dropped, but none is at a wrong time.
    played = [f for f in host.frames if f.type == Type.DATA and f.stream == 1 and f.boot > before]
    for frame in played:
        first = round((frame.time_us - played[0].time_us) / 20_000)
        np.testing.assert_array_equal(frame.values(), windows.reshape(-1, 3)[first : first + frame.samples])
    found = np.concatenate([frame.values() for frame in embeddings])
    expected = embed(model, windows)
    if precision == "int8":
        expected = expected.astype(np.float32) / np.float32(32767)
    np.testing.assert_array_equal(found, expected)
    times = [frame.time_us for frame in embeddings]
    np.testing.assert_array_equal(np.diff(times), 2_560_000)


@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_the_library_builds_without_a_warning(cc: str) -> None:
    assert (make("lib", cc, "-O2 -Wconversion -Wshadow -Wcast-qual") / "libec.a").is_file()
    assert (make("posix", cc, "-O2") / "ec_posix").is_file()


@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m33"])
def test_the_library_builds_for_the_smallest_and_a_newer_cortex_m_without_a_warning(cpu: str) -> None:
    assert (make("lib", "arm-none-eabi-gcc", f"{STRICT_ARM} -mcpu={cpu}", "AR=arm-none-eabi-ar") / "libec.a").is_file()


def test_the_template_is_a_whole_firmware_once_a_port_is_written(tmp_path: Path) -> None:
    needs("arm-none-eabi-gcc", "qemu-system-arm")
    port, template, elf = LIBRARY / "ports" / "mps2", LIBRARY / "ports" / "template", tmp_path / "template.elf"
    sources = [template / "main.c", PROGRAMS / "template_port.c", port / "board.c", port / "startup.c"]
    flags = [
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-pedantic",
        "-Werror",
        "-Os",
        "-mthumb",
        "-mcpu=cortex-m3",
        "-DBOARD_SPINS",
    ]
    places = [f"-I{LIBRARY}", f"-I{port}", f"-I{template}", f"-T{port / 'mps2.ld'}"]
    link = ["-nostartfiles", "--specs=nano.specs", "-ffunction-sections", "-Wl,--gc-sections"]
    run("arm-none-eabi-gcc", *flags, *places, *sources, *sorted(LIBRARY.glob("ec_*.c")), *link, "-lm", "-o", elf)
    with Qemu(tmp_path, "an385", elf) as board:
        samples: list[Frame] = []
        board.host.read(lambda f: f.type == Type.DATA and (samples.append(f) or sum(s.samples for s in samples) > 200))
        hello = parse_hello(next(f.payload for f in board.host.frames if f.type == Type.HELLO))
    assert (hello.name, hello.unit, hello.scale, hello.max_payload) == ("acc", "g", 1 / 4096, 256)
    values = np.concatenate([f.values() for f in samples])
    np.testing.assert_array_equal(values, [[i, -i, 4096] for i in range(len(values))])
    assert sum(line.strip() not in ("", "{", "}") for line in (template / "main.c").read_text().splitlines()) < 40
