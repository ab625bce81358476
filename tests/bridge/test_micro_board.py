"""The micro model on emulated Cortex-M boards: the bits that NumPy gives, and what it takes of flash, RAM and time.

The firmware is linked for 256 kB of flash, with the model in two slots, and 64 kB of RAM. `pytest -rP` prints figures.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from micro_samples import random_model, random_windows
from toolchains import FIRMWARE, MICRO, compiled, need

from edge_cmcl.cli.blob_commands import CODE_BYTES
from firmware_bridge import blob, micro

FLASH, RAM = 256 << 10, 64 << 10


@dataclass(frozen=True)
class Board:
    """An emulated board, and the compiler's options for it."""

    name: str
    machine: str
    options: tuple[str, ...]


M4F = Board("M4 with FPU", "mps2-an386", ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"))
M4 = Board("M4 without FPU", "mps2-an386", ("-mcpu=cortex-m4", "-mfloat-abi=soft"))
M3 = Board("M3", "mps2-an385", ("-mcpu=cortex-m3",))
M7 = Board("M7", "mps2-an500", ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"))


@dataclass(frozen=True)
class Answer:
    """What the firmware told.

    Attributes:
        embedding: of the window.
        numbers: instructions of "loop", "open", "quantise", "embed", "nearest"; bytes of "stack" and "scratch"; and
            "label" and "status".
        flash: bytes, both slots and the window included.
        code: bytes of the C library's micro model alone.
    """

    embedding: np.ndarray
    numbers: dict[str, int]
    flash: int
    code: int


def build(folder: Path, board: Board, flash_bytes: int) -> Path:
    """Return the firmware with the model and the window that are in `folder`."""
    options = ("arm-none-eabi-gcc", "-mthumb", *board.options, "-O2")
    library = [compiled(folder / f"{source.stem}.o", *options, "-c", source) for source in MICRO]
    return compiled(
        folder / "board.elf", *options, *library,
        FIRMWARE / "micro_board.c", FIRMWARE / "micro_slots.S", f"-T{FIRMWARE / 'micro_board.ld'}", "-nostartfiles",
        "--specs=nano.specs", "--specs=nosys.specs", f"-Wl,--defsym=flash_bytes={flash_bytes}", "-lm", cwd=folder,
    )  # fmt: skip


def run(folder: Path, board: Board, precision: str, *, flash_bytes: int = FLASH) -> tuple[Answer, np.ndarray]:
    """Return what the board answers for a random model of the default size, and what NumPy does."""
    emulator = need("qemu-system-arm")
    model = random_model(precision)
    window = random_windows(model, 1)
    (folder / "model.ecmm").write_bytes(blob.write(model))
    (folder / "window.f32").write_bytes(window.astype("<f4").tobytes())
    firmware = build(folder, board, flash_bytes)
    done = subprocess.run(
        [emulator, "-M", board.machine, "-icount", "shift=6", "-nographic", "-monitor", "none", "-serial", "none",
         "-semihosting-config", "enable=on,target=native", "-kernel", firmware],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    told = dict(line.split() for line in done.stderr.splitlines())
    embedding = np.frombuffer(bytes.fromhex(told.pop("embedding")), "<i2" if precision == "int8" else "<f4")
    numbers = {name: int(value) for name, value in told.items()}
    text, data = sizes(firmware)
    found = Answer(embedding, numbers, text + data, sum(sum(sizes(folder / f"{source.stem}.o")) for source in MICRO))
    print(f"{board.name}, {precision}: flash {found.flash}, code {found.code}, {numbers}")
    return found, micro.embed(model, window)[0]


def sizes(path: Path) -> tuple[int, int]:
    """Return the bytes of code and constants, and of initialised data."""
    listed = subprocess.run([need("arm-none-eabi-size"), path], capture_output=True, text=True, check=True).stdout
    text, data = listed.splitlines()[1].split()[:2]
    return int(text), int(data)


@pytest.mark.parametrize("board", [M4F, M4, M3, M7], ids=lambda board: board.name)
def test_the_default_model_fits_flash_twice_and_ram_and_gives_numpys_bits(board: Board, tmp_path: Path) -> None:
    found, wanted = run(tmp_path, board, "int8")
    assert found.numbers["status"] == 0
    assert np.array_equal(found.embedding, wanted)
    assert abs(found.numbers["loop"] - 200_000) < 200, "100,000 rounds of two instructions"
    assert found.flash < FLASH
    assert found.code < CODE_BYTES
    model = random_model("int8")
    assert found.numbers["scratch"] == micro.scratch_bytes(model)
    used = found.numbers["scratch"] + micro.window_bytes(model) + 2 * model.dimensions + found.numbers["stack"]
    assert used < RAM // 8
    assert found.numbers["embed"] + found.numbers["quantise"] < 1_600_000


@pytest.mark.parametrize("board", [M4F, M4], ids=lambda board: board.name)
def test_float32_gives_numpys_bits_with_and_without_an_fpu(board: Board, tmp_path: Path) -> None:
    found, wanted = run(tmp_path, board, "float32", flash_bytes=1 << 20)
    assert found.numbers["status"] == 0
    assert np.array_equal(found.embedding, wanted)
