"""`edge-cmcl blob`: a micro model is written with what it loses, or refused with nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from device_command import Device
from machine_bundle import Machine, make_machine

from firmware_bridge import blob


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The machine at full width: a micro model is smaller."""
    return make_machine(tmp_path_factory)


def test_it_writes_a_blob_and_a_c_header_and_says_what_they_lose(device: Device, machine: Machine) -> None:
    out = device.folder / "vibration.ecmm"
    asked = ("blob", "--modality", "vibration", "--data", machine.test, "--max-loss", "30", "--out", out)
    found = device(*asked, "--c-header")
    model = blob.read(out.read_bytes())
    assert (model.modality, model.precision, model.width, model.samples) == ("vibration", "int8", 252, 256)
    assert found["bytes"] == out.stat().st_size
    assert found["flash_bytes"] < 256 << 10
    assert found["ram_bytes"] < 64 << 10
    assert found["parity"]["kernels"] < 1e-5
    assert found["parity"]["cosine"] > 0.999
    assert [(loss["partner"], loss["n"]) for loss in found["loss"]] == [("current", 120)]
    assert found["loss"][0]["full"]["recall_at_10"] - found["loss"][0]["micro"]["recall_at_10"] < 0.3
    assert "ec_model_vibration" in Path(found["c_header"]).read_text()
    again = device(*asked, "--c-header", "--precision", "float32", "--width", "120")  # both replace their kind
    assert again["bytes"] == len(out.read_bytes()) != found["bytes"]
    assert blob.read(out.read_bytes()).precision == "float32"
    assert again["parity"]["precision"] == 0
    assert model.generation == blob.read(out.read_bytes()).generation
    assert model.generation.hex() == device("log")["generations"][0]["digest"].removeprefix("sha256:")


def test_one_that_loses_too_much_is_refused_by_how_much_and_writes_nothing(device: Device, machine: Machine) -> None:
    asked = ("blob", "--modality", "vibration", "--data", machine.test, "--width", "12", "--max-loss", "0")
    error = device.refused(*asked, "--out", device.folder / "vibration.ecmm", "--c-header", code=5)
    assert error["expected"] == "at most 0 points of R@10"
    assert "too many" in error["got"]


def test_without_anything_to_measure_by_it_asks_for_data(device: Device) -> None:
    error = device.refused("blob", "--modality", "vibration", "--out", device.folder / "v.ecmm", code=2)
    assert "--data" in error["expected"]


def test_pairs_that_were_kept_back_are_measured_where_no_data_is_given(device: Device, machine: Machine) -> None:
    learned = ("update", "--modality", "acoustic", "--data", machine.new, "--with", "vibration", "--with", "text")
    device(*learned, "--hold-back", "0.2")
    asked = ("blob", "--modality", "acoustic", "--max-loss", "50", "--out", device.folder / "acoustic.ecmm")
    assert "was learned from" in device.refused(*asked, "--data", machine.new, code=3)["message"]
    found = device(*asked)
    assert [loss["partner"] for loss in found["loss"]] == ["vibration", "text"]
    assert found["labels"] == len(blob.read((device.folder / "acoustic.ecmm").read_bytes()).label_names) > 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--modality", "current", "--out", "c.ecmm"), 2),
        (("--modality", "sonar", "--out", "s.ecmm"), 3),
        (("--modality", "vibration", "--width", "100", "--out", "v.ecmm"), 2),
        (("--modality", "vibration", "--precision", "int4", "--out", "v.ecmm"), 2),
        (("--modality", "vibration", "--out", "v.h", "--c-header"), 2),
        (("--modality", "vibration", "--out", "store"), 2),
        (("--modality", "vibration", "--out", "missing/v.ecmm"), 7),
    ],
)
def test_what_it_cannot_do_is_refused_and_changes_nothing(
    device: Device, machine: Machine, arguments: tuple[str, ...], code: int
) -> None:
    device.refused("blob", *arguments, "--data", machine.test, code=code)


def test_it_writes_over_no_other_file(device: Device, machine: Machine) -> None:
    (device.folder / "notes.h").write_text("/* mine */")
    (device.folder / "notes.txt").write_text("mine")
    asked = ("blob", "--modality", "vibration", "--data", machine.test, "--max-loss", "30", "--out")
    device.refused(*asked, "notes.txt", code=2)
    device.refused(*asked, "notes.ecmm", "--c-header", code=2)
    device(*asked, "notes.ecmm", "--c-header", "--force")
    assert "ec_model_vibration" in (device.folder / "notes.h").read_text()
