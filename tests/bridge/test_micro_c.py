"""The micro model in C: the bits that NumPy gives, no byte read beyond a blob, no warning from any compiler."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micro_samples import PRECISIONS, mutated, patched, random_model, random_windows, resealed, vectors
from numpy.typing import NDArray
from test_blob import HEADER_FAULTS, INTEGER_FAULTS
from toolchains import FIRMWARE, MICRO, SANITIZED, compiled, need

from edge_cmcl.errors import FormatError
from firmware_bridge import blob, micro
from firmware_bridge.c_header import c_header

OK, BAD_FORMAT, BAD_VALUE = 0, 9, 10  # ec_status.h
MUTATIONS = int(os.environ.get("EDGE_CMCL_MUTATIONS", "3000"))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test driver, which ends at the first bad access or undefined operation."""
    sources = (FIRMWARE / "micro_driver.c", *MICRO, "-lm")
    return compiled(tmp_path_factory.mktemp("c") / "micro_driver", "gcc", *SANITIZED, *sources)


def run(driver: Path, *arguments: str | Path, given: bytes) -> tuple[int, bytes]:
    done = subprocess.run([driver, *arguments], input=given, capture_output=True, check=False, timeout=300)
    assert not done.stderr, done.stderr.decode()[:3000]
    return done.returncode, done.stdout


def embedded(driver: Path, folder: Path, data: bytes, windows: NDArray[np.float32]) -> Any:
    """Return what C gives for a blob and windows: a record array of embedding, label and cosine."""
    model = blob.read(data)
    (folder / "model.ecmm").write_bytes(data)
    code, answer = run(driver, "embed", folder / "model.ecmm", given=windows.astype("<f4").tobytes())
    assert code == OK
    number = "<i2" if model.precision == "int8" else "<f4"
    return np.frombuffer(answer, [("embedding", number, (model.dimensions,)), ("label", "<u2"), ("cosine", "<f4")])


def opened(driver: Path, blobs: list[bytes]) -> list[int]:
    """Return the status that C gives for each blob; those that open are used, too."""
    code, answer = run(driver, "open", given=b"".join(struct.pack("<I", len(each)) + each for each in blobs))
    assert code == OK
    assert len(answer) == len(blobs)
    return list(answer)


def refused(data: bytes) -> FormatError | None:
    """Return why Python refuses a blob, None where it does not."""
    try:
        blob.read(data)
    except FormatError as error:
        return error
    return None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_c_gives_the_golden_embeddings_labels_and_cosines_bit_by_bit(
    driver: Path, tmp_path: Path, precision: str
) -> None:
    golden = vectors()
    found = embedded(driver, tmp_path, golden[f"{precision}.blob"].tobytes(), golden["windows"])
    assert np.array_equal(found["embedding"], golden[f"{precision}.embeddings"])
    assert np.array_equal(found["label"], golden[f"{precision}.labels"])
    assert np.array_equal(found["cosine"], golden[f"{precision}.cosines"])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"channels": 1, "samples": 16, "width": 12, "dimensions": 1, "labels": 0},
        {"channels": 9, "samples": 17, "width": 24, "dimensions": 3, "labels": 1},
        {"channels": 40, "samples": 66, "width": 60, "dimensions": 33, "labels": 4},
        {"channels": 2, "samples": 1027, "width": 1020, "dimensions": 5, "labels": 2},
        {"width": 24, "dimensions": 8, "largest": 2e6},
        {"width": 24, "dimensions": 8, "largest": 1e-5},
    ],
    ids=["default", "smallest", "odd", "many channels", "widest", "coarse samples", "fine samples"],
)
def test_c_gives_the_bits_that_numpy_gives(driver: Path, tmp_path: Path, precision: str, shape: dict[str, Any]) -> None:
    model = random_model(precision, seed=3, **shape)
    windows = random_windows(model, 8)
    windows[1] *= 1000  # saturates samples and scores
    windows[2] = 0
    found = embedded(driver, tmp_path, blob.write(model), windows)
    wanted = micro.embed(model, windows)
    assert np.abs(wanted).max() > 0
    assert np.array_equal(found["embedding"], wanted)
    if model.label_names:
        labels, cosines = micro.nearest(model, wanted)
        assert np.array_equal(found["label"], labels)
        assert np.array_equal(found["cosine"], cosines)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_window_that_is_not_finite_or_too_large_is_refused_in_float32_and_saturates_in_int8(
    driver: Path, tmp_path: Path, value: float
) -> None:
    model = random_model("float32", width=12, dimensions=4)
    windows = random_windows(model, 1)
    windows[0, 50, 1:] = value
    (tmp_path / "model.ecmm").write_bytes(blob.write(model))
    assert run(driver, "embed", tmp_path / "model.ecmm", given=windows.tobytes()) == (BAD_VALUE, b"")
    whole = random_model("int8", width=12, dimensions=4)
    assert np.array_equal(
        embedded(driver, tmp_path, blob.write(whole), windows)["embedding"], micro.embed(whole, windows)
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_breaks_the_format_is_refused_and_never_read_beyond(driver: Path, precision: str) -> None:
    golden = vectors()[f"{precision}.blob"].tobytes()
    faults = {**HEADER_FAULTS, **(INTEGER_FAULTS if precision == "int8" else {})}
    faults.pop("a name that is not UTF-8")  # C hands bytes on
    broken = [patched(golden, at % len(golden), new) for at, new in faults.values()]
    broken += [golden[:end] for end in range(len(golden))] + [resealed(golden[:end]) for end in range(16, len(golden))]
    assert set(opened(driver, broken)) == {BAD_FORMAT}
    assert opened(driver, [golden]) == [OK]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_c_and_python_accept_the_same_of_blobs_with_bytes_changed(driver: Path, precision: str) -> None:
    golden = vectors()[f"{precision}.blob"].tobytes()
    rng = np.random.default_rng(11)
    blobs = [mutated(golden, rng) for _ in range(MUTATIONS)]
    verdicts = opened(driver, blobs)
    assert {OK, BAD_FORMAT} == set(verdicts)
    for data, status in zip(blobs, verdicts, strict=True):
        fault = refused(data)
        if fault is None:
            assert status == OK, data.hex()
        elif fault.expected != "UTF-8":  # C hands the bytes of names on
            assert status == BAD_FORMAT, (str(fault), data.hex())


@pytest.mark.parametrize(
    "compiler",
    [
        ("gcc",),
        ("clang",),
        ("arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m0"),
        ("arm-none-eabi-gcc", "-mthumb", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("optimised", ["-O0", "-O2", "-Os"])
def test_it_compiles_without_a_warning(compiler: tuple[str, ...], optimised: str, tmp_path: Path) -> None:
    for source in MICRO:
        compiled(tmp_path / "object.o", *compiler, optimised, "-Wconversion", "-Wshadow", "-c", source)


def test_the_c_header_compiles_and_its_model_opens_with_the_sizes_that_it_states(tmp_path: Path) -> None:
    model = random_model("int8", width=24, dimensions=8)
    (tmp_path / "model.h").write_text(c_header(model, blob.write(model)))
    (tmp_path / "main.c").write_text(
        """
        #include "ec_micro.h"
        #include "model.h"
        int main(void) {
            ec_micro m;
            if (ec_micro_open((const uint8_t *)ec_model_gyro, EC_MODEL_GYRO_BYTES, &m) != EC_OK) return 1;
            if (ec_micro_scratch_bytes(&m) != EC_MODEL_GYRO_SCRATCH_BYTES) return 2;
            return m.samples != EC_MODEL_GYRO_SAMPLES || m.channels != EC_MODEL_GYRO_CHANNELS ||
                   m.dimensions != EC_MODEL_GYRO_DIMENSIONS;
        }
        """
    )
    program = compiled(tmp_path / "main", "gcc", "-O2", tmp_path / "main.c", *MICRO, "-lm")
    assert run(program, given=b"") == (0, b"")


def test_clang_gives_the_golden_bits_optimised(tmp_path: Path) -> None:
    sources = (FIRMWARE / "micro_driver.c", *MICRO, "-lm")
    fast = compiled(tmp_path / "driver", need("clang"), "-O3", *sources)
    golden = vectors()
    for precision in PRECISIONS:
        found = embedded(fast, tmp_path, golden[f"{precision}.blob"].tobytes(), golden["windows"])
        assert np.array_equal(found["embedding"], golden[f"{precision}.embeddings"])
