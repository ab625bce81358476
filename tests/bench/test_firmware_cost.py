"""What the firmware library costs stays within what its users are told."""

from __future__ import annotations

import shutil
from pathlib import Path

import firmware_cost
import pytest


@pytest.fixture(autouse=True)
def _tools() -> None:
    for program in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the cost of the firmware library is not measured")


def test_encoding_and_decoding_take_few_instructions_a_byte(tmp_path: Path) -> None:
    """Measured: 29, 31, 30 and 14; at 10 kHz x 3 int16 that is 4 % of a Cortex-M4 at 100 MHz."""
    cost = firmware_cost.instructions("an386", "-Os", tmp_path)
    assert cost["encode_buffer"] < 35
    assert cost["encode_stream"] < 37
    assert cost["decode"] < 36
    assert cost["push"] < 17


def test_it_is_small_has_no_memory_of_its_own_and_a_bounded_stack(tmp_path: Path) -> None:
    sizes = firmware_cost.sizes(tmp_path)
    assert sum(part["flash_bytes"] for part in sizes.values()) < 8000
    assert sum(part["ram_bytes"] for part in sizes.values()) == 0
    stack = firmware_cost.deepest(tmp_path)
    assert stack["ec_stream_push"] < 64
    assert max(stack.values()) < 1024
