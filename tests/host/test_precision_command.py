"""`edge-cmcl export --precision`, as it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machine_bundle import Machine

Run = Callable[..., Any]


@pytest.mark.slow
def test_a_sensor_is_exported_in_the_precision_that_it_is_named_with(
    run_cli: Run, machine: Machine, tmp_path: Path
) -> None:
    done = run_cli(
        "export",
        machine.run,
        "--out",
        tmp_path / "half.tar",
        "--precision",
        "vibration=fp16",
        "--max-loss",
        "5",
        "--json",
    )
    assert done.code == 0, done.stderr
    told = {name: each["precision"] for name, each in done.json["runtime"].items()}
    assert told == {"vibration": "fp16", "current": "fp32"}
    (row,) = done.json["gate"]["pairs"]
    assert row["pair"] == "vibration-current"
    assert row["lost"] == pytest.approx(row["fp32"] - row["now"])
    store = {"EDGE_CMCL_STORE": str(tmp_path / "store")}
    signer = done.json["signed_by"][0]
    assert run_cli("install", tmp_path / "half.tar", "--trust", signer, "--json", env=store).code == 0
    status = run_cli("status", env=store)
    assert "vibration: fp16 for cpu, run by CPUExecutionProvider" in status.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--precision", "int4"], 2),
        (["--precision", "acoustic=int8"], 2),
        (["--target", "npu"], 2),
        (["--precision", "fp16", "--project", "nowhere"], 3),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    run_cli: Run, machine: Machine, tmp_path: Path, arguments: list[str], code: int
) -> None:
    done = run_cli("export", machine.run, "--out", tmp_path / "no.tar", *arguments, "--json")
    assert done.code == code, done.stdout + done.stderr
    assert not (tmp_path / "no.tar").exists()
