"""The library on emulated Cortex-M3, M4 and M7 boards, and built for small ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from c_board import CPUS, Qemu
from c_build import LIBRARY, PROGRAMS, make, needs, run

from firmware_bridge import messages
from firmware_bridge.frames import Frame, Type
from firmware_bridge.hello import parse_hello

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
        first = board.host.read(lambda frame: frame.type == Type.STATUS)
        board.reset()
        again = board.host.read(lambda frame: frame.type == Type.HELLO and frame.boot != first.boot)
    assert again.boot == first.boot + 1
    assert again.sequence == 0
    assert again.time_us < first.time_us


@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_the_library_builds_without_a_warning(cc: str) -> None:
    assert (make("lib", cc, "-O2 -Wconversion -Wshadow -Wcast-qual") / "libec.a").is_file()
    assert (make("posix", cc, "-O2") / "ec_posix").is_file()


@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33"])
def test_the_library_builds_for_every_cortex_m_without_a_warning(cpu: str) -> None:
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
