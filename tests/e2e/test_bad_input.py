"""Bad input ends with its exit code and changes nothing on disk (issue 2, no. 5)."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from device_command import Device
from machine_bundle import PROJECT, Machine
from onnx import TensorProto, helper
from wrong_generations import file_of

from edge_cmcl import tensors
from edge_cmcl.bundle import Store
from edge_cmcl.bundle.transfer import export_layout

Arrays = dict[str, np.ndarray[Any, Any]]


def contents(path: Path) -> tuple[Arrays, dict[str, str]]:
    with tensors.TensorFile(path) as file:
        return {name: file.read_whole(name) for name in file.names}, file.metadata


def only_nan(arrays: Arrays, metadata: dict[str, str]) -> None:
    arrays["acoustic"] = np.full_like(arrays["acoustic"], np.nan)


def wrong_rank(arrays: Arrays, metadata: dict[str, str]) -> None:
    arrays["acoustic"] = arrays["acoustic"][:, :, 0]


def wrong_dtype(arrays: Arrays, metadata: dict[str, str]) -> None:
    arrays["acoustic"] = arrays["acoustic"].astype(np.float64)


def unequal_n(arrays: Arrays, metadata: dict[str, str]) -> None:
    arrays["acoustic"] = arrays["acoustic"][:-1]


def missing_modality(arrays: Arrays, metadata: dict[str, str]) -> None:
    del arrays["acoustic"]
    metadata.update(rate_hz="{}", units="{}")


def wrong_version(arrays: Arrays, metadata: dict[str, str]) -> None:
    metadata["version"] = "2"


def one_label(arrays: Arrays, metadata: dict[str, str]) -> None:
    arrays["label"][:] = 3


def too_few_pairs(arrays: Arrays, metadata: dict[str, str]) -> None:
    arrays["valid.acoustic"] = (np.arange(240) < 15).astype(np.uint8)


def other_channels(arrays: Arrays, metadata: dict[str, str]) -> None:
    arrays["vibration"] = np.ascontiguousarray(arrays["vibration"][:, :, :2])


CHANGED = [
    (only_nan, "row 0 of 'acoustic'"),
    (wrong_rank, "modality 'acoustic' has the wrong rank"),
    (wrong_dtype, "modality 'acoustic' has the wrong dtype"),
    (unequal_n, "window counts differ"),
    (missing_modality, "has no windows of acoustic"),
    (wrong_version, "has another format version"),
    (one_label, "has one label only"),
    (too_few_pairs, "has too few pairs of acoustic and current"),
    (other_channels, "windows of vibration have another shape"),
]


@pytest.mark.parametrize(("change", "message"), CHANGED, ids=[change.__name__ for change, _ in CHANGED])
def test_a_pairs_file_that_cannot_teach_changes_nothing(
    device: Device, machine: Machine, tmp_path: Path, change: Callable[..., None], message: str
) -> None:
    arrays, metadata = contents(machine.new)
    change(arrays, metadata)
    tensors.write(tmp_path / "bad.safetensors", arrays, metadata)
    error = device.refused("update", "--modality", "acoustic", "--data", "bad.safetensors", code=3)
    assert error["type"] == ("TooLittleDataError" if change is too_few_pairs else "DataError")
    assert message in error["message"]
    assert error["expected"]


def truncated(good: bytes) -> bytes:
    return good[:-1000]


def terabyte_header(good: bytes) -> bytes:
    return struct.pack("<Q", 1 << 40) + good[8:]


def terabyte_tensor(good: bytes) -> bytes:
    (length,) = struct.unpack("<Q", good[:8])
    header = json.loads(good[8 : 8 + length])
    samples, channels = header["acoustic"]["shape"][1:]
    rows = (1 << 40) // (4 * samples * channels)
    header["acoustic"] |= {"shape": [rows, samples, channels], "data_offsets": [0, 4 * rows * samples * channels]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + good[8 + length :]


COMMANDS: dict[str, tuple[str, ...]] = {
    "update": ("update", "--modality", "acoustic", "--data", "bad.safetensors"),
    "embed": ("embed", "bad.safetensors", "--out", "out.safetensors"),
    "classify": ("classify", "bad.safetensors"),
    "retrieve": ("retrieve", "bad.safetensors", "bad.safetensors"),
    "evaluate": ("evaluate", "store", "--data", "bad.safetensors"),
}


@pytest.mark.parametrize("damage", [truncated, terabyte_header, terabyte_tensor], ids=lambda damage: damage.__name__)
def test_a_damaged_pairs_file_is_refused_before_anything_is_read(
    device: Device, machine: Machine, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(damage(machine.new.read_bytes()))
    commands = COMMANDS if damage is truncated else {"update": COMMANDS["update"], "embed": COMMANDS["embed"]}
    for arguments in commands.values():
        error = device.refused(*arguments, code=3)
        assert error["type"] == "DataError"
        assert "cannot read bad.safetensors" in error["message"]


def test_an_error_without_json_is_on_stderr_and_stdout_is_empty(device: Device, tmp_path: Path) -> None:
    for arguments in COMMANDS.values():
        failed = device.run(*arguments, env=device.environment)
        assert (failed.code, failed.stdout) == (3, "")
        assert failed.stderr.startswith("edge-cmcl: ")


def test_a_modality_without_data_is_named_with_what_there_is(device: Device, machine: Machine) -> None:
    error = device.refused("update", "--modality", "pressure", "--data", machine.new, code=3)
    assert (error["expected"], error["got"]) == ("pressure", "acoustic, current, vibration")
    error = device.refused("embed", machine.new, "--modality", "pressure", "--out", "out.safetensors", code=3)
    assert "pressure" in error["message"]
    error = device.refused("update", "--modality", "acoustic", "--with", "pressure", "--data", machine.new, code=3)
    assert error["expected"] == "pressure"
    assert device.refused("update", "--modality", "text", "--data", machine.new, code=2)["type"] == "UsageError"


def test_a_recording_with_unsorted_time_is_refused(device: Device, tmp_path: Path) -> None:
    rows = [f"{i / 50},{i % 7}" for i in range(500)]
    rows[300], rows[301] = rows[301], rows[300]
    (tmp_path / "run.csv").write_text("\n".join(["time_s,ax", *rows]))
    sensor = ("--sensor", "acc=run.csv:time_s:ax@50", "--window", "2")
    error = device.refused("data", "import", "--out", "out.safetensors", *sensor, code=3)
    assert "time" in error["message"]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("form", ["bundle", "bundle.tar"])
def test_a_bundle_with_a_flipped_byte_is_not_installed(device: Device, tmp_path: Path, form: str) -> None:
    store = Store(device.store)
    export_layout(store, "current", tmp_path / form)
    adapter = store.load("current").generation.modalities["vibration"].adapter_blob.removeprefix("sha256:")
    if form == "bundle":
        flip(tmp_path / form / "blobs" / "sha256" / adapter, 5000)
    else:
        flip(tmp_path / form, (tmp_path / form).stat().st_size // 2)
    error = device.refused("install", form, code=4)
    assert error["type"] == "DigestError"
    assert device.refused("install", form, "--store", "new-store", code=4)["type"] == "DigestError"
    assert not (tmp_path / "new-store").exists()


def test_a_store_with_a_flipped_byte_is_noticed_by_whoever_reads_it(device: Device, machine: Machine) -> None:
    store = Store(device.store)
    flip(file_of(store, store.load("current").generation.modalities["vibration"].adapter_blob), 5000)
    for arguments in (
        ("embed", machine.test, "--out", "out.safetensors"),
        ("update", "--modality", "acoustic", "--data", machine.new),
        ("evaluate", "store", "--data", machine.test),
    ):
        assert device.refused(*arguments, code=4)["type"] == "DigestError"
    for place in ("index.json", "copy-of-index.json"):
        before = device("status")["generation"]
        flip(store.root / place, 200)
    assert before == store.load_manifest(before).digest
    for arguments in (("status",), ("log",), ("rollback",), ("embed", machine.test, "--out", "out.safetensors")):
        assert device.refused(*arguments, code=4)["exit_code"] == 4
    device("install", machine.bundle, "--trust", machine.public_key, "--store", "another-store")


def train_here(machine: Machine, folder: Path, old: str, new: str) -> None:
    shutil.copy(machine.folder / "base.safetensors", folder)
    assert old in PROJECT
    (folder / "edge-cmcl.toml").write_text(PROJECT.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "key", "nearest"),
    [
        ("epochs = 4", "epoch = 4", "train.epoch", "epochs"),
        ("channels = 1", "chanels = 1", "modality.current.chanels", "channels"),
        ('name = "machine"', 'name = "machine"\nwith = 240', "with", "width"),
    ],
)
def test_a_misspelt_key_of_the_project_is_named_with_the_nearest(
    run_cli: Callable[..., Any], machine: Machine, tmp_path: Path, old: str, new: str, key: str, nearest: str
) -> None:
    train_here(machine, tmp_path, old, new)
    error = Device(run_cli, tmp_path).refused("train", ".", code=3)
    assert error["type"] == "ProjectError"
    assert f"unknown key {key}" in error["message"]
    assert error["to_do"] == f"did you mean '{nearest}'?"


def encoder(name: str, shape: list[int | str]) -> bytes:
    """Return a valid ONNX graph: the mean over time of its input, (n, channels)."""
    windows = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, [shape[0], shape[2]])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceMean", [name, "axes"], ["features"], keepdims=0)
    graph = helper.make_graph([node], "encoder", [windows], [features], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (encoder("samples", ["n", "t", 3]), "other inputs than expected"),
        (encoder("windows", ["n", "t", 6]), "takes another input"),
        (b"no graph", "is not a valid ONNX file"),
    ],
    ids=["another name", "other channels", "no graph"],
)
def test_an_encoder_with_the_wrong_input_is_refused(
    run_cli: Callable[..., Any], machine: Machine, tmp_path: Path, graph: bytes, message: str
) -> None:
    (tmp_path / "mine.onnx").write_bytes(graph)
    train_here(machine, tmp_path, "channels = 3", 'channels = 3\nencoder = "onnx:mine.onnx"')
    error = Device(run_cli, tmp_path).refused("train", ".", code=3)
    assert error["type"] == "ModelError"
    assert message in error["message"]
