from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine_bundle import Machine

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.bundle.transfer import opened
from edge_cmcl.data import open_pairs
from edge_cmcl.device.benchmark import BATCHES, benchmark
from edge_cmcl.device.encoders import NO_BLOB
from edge_cmcl.device.evaluate import evaluate
from edge_cmcl.device.memory import peak_memory_bytes, reset_peak_memory
from edge_cmcl.device.model import Model
from edge_cmcl.device.roofline import blas_seconds, encoder_products, operations, step_products

STAGES = {"encode", "space", "judge", "train", "fold", "commit"}


@pytest.fixture(scope="module")
def found(machine: Machine) -> dict[str, Any]:
    with opened(machine.bundle) as loaded, open_pairs(machine.new) as pairs:
        return benchmark(loaded, pairs=pairs, learn="acoustic", threads=1, seconds=0.05)


def test_every_sensor_is_measured_at_every_batch_size(found: dict[str, Any]) -> None:
    assert [each["modality"] for each in found["encoders"]] == ["current", "vibration"]
    for each in found["encoders"]:
        assert [one["batch"] for one in each["latency"]] == list(BATCHES)
        for one in each["latency"]:
            assert 0 < one["median_ms"] <= one["p95_ms"] <= one["p99_ms"]
            assert one["windows_per_s"] > 0
            assert one["blas_ms"] > 0
            assert one["share_of_blas"] == pytest.approx(one["blas_ms"] / one["median_ms"])
            assert (one["watts"] is None) == (one["joules_per_window"] is None)
        assert each["load_ms"] > 0
        assert each["peak_memory_bytes"] > 10e6


def test_sizes_are_those_of_the_blobs(machine: Machine, found: dict[str, Any]) -> None:
    with opened(machine.bundle) as loaded:
        for each in found["encoders"]:
            record = loaded.generation.modalities[each["modality"]]
            assert each["encoder_bytes"] == len(loaded.read(str(record.encoder_blob)))
            assert each["adapter_bytes"] == len(loaded.read(record.adapter_blob))


def test_recall_is_that_of_evaluate(machine: Machine, found: dict[str, Any]) -> None:
    with opened(machine.bundle) as loaded, open_pairs(machine.new) as pairs:
        wanted = evaluate(Model(loaded), pairs)
    assert [each["metrics"] for each in found["pairs"]] == [each.metrics for each in wanted]
    assert found["encoders"][0]["recall_at_10"] == pytest.approx(wanted[0].metrics["recall_at_10"])


def test_an_update_is_timed_by_stage_on_a_copy(machine: Machine, found: dict[str, Any]) -> None:
    told = found["update"]
    assert set(told["seconds_per_1000_pairs"]) == STAGES
    assert all(value >= 0 for value in told["seconds_per_1000_pairs"].values())
    for name, value in told["seconds"].items():
        assert told["seconds_per_1000_pairs"][name] == pytest.approx(1e3 * value / told["pairs"])


def test_a_step_of_training_is_compared_with_its_products(found: dict[str, Any]) -> None:
    step = found["step"]
    assert 0 < step["share_of_blas"] == pytest.approx(step["blas_ms"] / step["median_ms"])
    assert step["operations"] == operations(step_products(64, 256, 128))


def test_products_of_the_universal_encoder_are_its_kernels() -> None:
    record = ModalityRecord(
        kind="series", channels=3, rate_hz=50.0, window_s=2.0, encoder="universal",
        encoder_blob=NO_BLOB, width=1800, adapter_blob=NO_BLOB,
    )  # fmt: skip
    assert encoder_products(record) == ((150, 21, 100),) * 4
    assert operations(encoder_products(record)) == 4 * 2 * 150 * 21 * 100


def test_products_of_a_trained_encoder_are_those_of_its_layers(machine: Machine) -> None:
    with opened(machine.bundle) as loaded:
        record = loaded.generation.modalities["current"]
    samples = 200
    halves = [-(-samples // 2 ** (layer + 1)) for layer in range(3)]
    wanted = ((64, 7, halves[0]), (128, 64 * 7, halves[1]), (256, 128 * 7, halves[2]), (900, 256, halves[2]))
    assert encoder_products(record) == wanted


def test_more_windows_take_blas_longer_whatever_the_parts() -> None:
    product = ((64, 4096, 1000),)  # in more than one part
    assert blas_seconds(product, 8) > 2 * blas_seconds(product, 1) > 0


def test_the_peak_of_memory_can_begin_anew() -> None:
    held = np.ones(30_000_000)
    high = peak_memory_bytes()
    del held
    if not reset_peak_memory():
        pytest.skip("this kernel does not reset VmHWM")
    assert peak_memory_bytes() < high - 100e6


def test_the_command_measures_and_the_report_draws(
    run_cli: Callable[..., Any], machine: Machine, tmp_path: Path
) -> None:
    digest = hashlib.sha256(machine.bundle.read_bytes()).hexdigest()
    done = run_cli(
        "benchmark",
        machine.bundle,
        "--threads",
        "1",
        "--seconds",
        "0.05",
        "--providers",
        "CPUExecutionProvider",
        "--json",
    )
    assert done.code == 0, done.stderr
    assert done.json["threads"] == 1
    assert done.json["update"] is None
    assert done.json["encoders"][0]["recall_at_10"] is None
    assert hashlib.sha256(machine.bundle.read_bytes()).hexdigest() == digest
    (tmp_path / "cost.json").write_text(done.stdout)
    pytest.importorskip("jinja2", reason="a device draws no report")
    drawn = run_cli("report", tmp_path / "cost.json", "--out", tmp_path / "cost.html", "--json")
    assert drawn.code == 0, drawn.stderr
    assert "vibration" in (tmp_path / "cost.html").read_text()
    people = run_cli("benchmark", machine.bundle, "--seconds", "0.05")
    assert "of BLAS, %" in people.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--learn", "acoustic"], 2),
        (["--providers", "cuda"], 2),
        (["--data", "missing.safetensors"], 3),
    ],
)
def test_what_cannot_be_measured_is_refused(
    run_cli: Callable[..., Any], machine: Machine, arguments: list[str], code: int
) -> None:
    assert run_cli("benchmark", machine.bundle, *arguments, "--json").code == code
