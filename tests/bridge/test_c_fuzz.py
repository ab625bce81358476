"""Noise, damaged frames and nonsense requests into decoder, node and slots, under sanitizers."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from c_build import LIBRARY, PROGRAMS, folder, needs, program, run


def test_ten_million_fuzzed_bytes_are_survived_and_answered_with_frames() -> None:
    count = 10_000_000
    seen = json.loads(run(program("fuzz_decoder"), str(count), "1"))
    print(seen)
    assert seen["bytes"] >= count
    assert seen["frames"] > count // 1000
    assert seen["unusable"] > count // 1000
    assert seen["switches"] > 10  # so the requests reached every state
    assert seen["answers"] > seen["frames"]


@pytest.mark.skipif(
    os.environ.get("EDGE_CMCL_FIRMWARE") != "full", reason="EDGE_CMCL_FIRMWARE=full lets libFuzzer search"
)
def test_libfuzzer_finds_no_input_that_hurts() -> None:
    needs("clang")
    out = folder() / "guided"
    command = ["clang", "-std=gnu99", "-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-DGUIDED", f"-I{LIBRARY}"]
    sources = [PROGRAMS / "fuzz_decoder.c", *sorted(LIBRARY.glob("*.c"))]
    built = subprocess.run([*command, *sources, "-o", out], capture_output=True, text=True, check=False)
    if built.returncode and "libclang_rt" in built.stderr:
        pytest.skip("clang has no libFuzzer here: install libclang-rt-dev")
    assert built.returncode == 0, built.stderr
    run(out, "-runs=300000", "-max_len=1200", "-seed=1")
