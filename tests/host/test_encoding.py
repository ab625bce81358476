from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_samples import ONNX_WIDTH, project_text, write_encoder, write_project
from onnx import TensorProto
from torch import Tensor, nn

from edge_cmcl.data import write_pairs
from edge_cmcl.device.text import label_features
from edge_cmcl.errors import DataError, ModelError
from edge_cmcl.host.base_data import PairData, load_pairs
from edge_cmcl.host.encoding import RawOutputs, TorchEncoder, frozen_encoders, user_encoder
from edge_cmcl.project import Project, load_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    encoders = {"current": "onnx:mine.onnx", "pressure": "conv"}
    return load_project(write_project(tmp_path, project_text(encoders, [("current", "pressure")])))


def test_a_users_encoder_is_found_checked_and_run(project: Project) -> None:
    write_encoder(project.folder / "mine.onnx")
    encoders, records = frozen_encoders(project)
    assert encoders.keys() == {"current"}
    assert (records["current"].encoder, records["current"].width) == ("onnx", ONNX_WIDTH)
    assert records["pressure"].width == project.width
    windows = np.random.default_rng(0).standard_normal((3, 200, 1), dtype=np.float32)
    outputs = encoders["current"](windows)
    assert (outputs.shape, outputs.dtype) == ((3, ONNX_WIDTH), np.float32)


@pytest.mark.parametrize(
    ("wrong", "message", "expected"),
    [
        ({"input_name": "x"}, "other inputs", "windows"),
        ({"batch": 4}, "takes another input", "one float32 input windows with shape (any, any, 1)"),
        ({"channels": 3}, "takes another input", "one float32 input windows with shape (any, any, 1)"),
        ({"dtype": TensorProto.DOUBLE}, "takes another input", "one float32 input windows with shape (any, any, 1)"),
        ({"any_width": True}, "no fixed output width", "an output (n, width)"),
        ({"samples": 64}, "fails on windows as", "an answer to windows of shape (2, 200, 1)"),
        ({"ir_version": 11}, "newer onnxruntime", "ONNX IR version 10 and opset 21, or older"),
        ({"opset": 22, "ir_version": 10}, "newer onnxruntime", "ONNX IR version 10 and opset 21, or older"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_users_encoder_that_is_wrong_is_refused(
    project: Project, wrong: dict[str, Any], message: str, expected: str
) -> None:
    path = write_encoder(project.folder / "mine.onnx", **wrong)
    with pytest.raises(ModelError, match=message) as raised:
        user_encoder(project, "current", path)
    assert raised.value.expected == expected
    assert raised.value.got


def truncate(path: Path) -> None:
    path.write_bytes(write_encoder(path).read_bytes()[:-40])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "not a valid ONNX file"),
        (lambda path: path.write_text("no graph"), "not a valid ONNX file"),
        (lambda path: None, "cannot read"),
        (lambda path: path.mkdir(), "cannot read"),
    ],
    ids=["truncated", "text", "missing", "folder"],
)
def test_a_file_that_is_no_encoder_is_refused(project: Project, spoil: Callable[[Path], object], message: str) -> None:
    spoil(project.folder / "mine.onnx")
    with pytest.raises(ModelError, match=message) as raised:
        user_encoder(project, "current", project.folder / "mine.onnx")
    assert "mine.onnx" in raised.value.message


def test_an_unsuited_window_length_is_found_by_trying(project: Project) -> None:
    path = write_encoder(project.folder / "mine.onnx", samples=200)
    _, record = user_encoder(project, "current", path)
    assert record.width == ONNX_WIDTH


class Halves(nn.Module):
    """The mean of the first and of the second half of each window."""

    def forward(self, windows: Tensor) -> Tensor:
        middle = windows.shape[1] // 2
        return torch.stack([windows[:, :middle, 0].mean(1), windows[:, middle:, 0].mean(1)], 1)


def test_a_trained_encoder_sees_windows_in_its_scale() -> None:
    windows = np.concatenate([np.full((300, 8, 1), 2.0), np.full((300, 8, 1), 6.0)], 1).astype(np.float32)
    outputs = TorchEncoder(Halves(), 2, scale=4.0)(windows)
    assert np.array_equal(outputs, np.tile(np.float32([0.5, 1.5]), (300, 1)))
    assert TorchEncoder(Halves(), 2, 1.0)(windows[:0]).shape == (0, 2)


class Counting:
    """An encoder that answers with each window's first value, and counts the windows it gets."""

    width = 1

    def __init__(self) -> None:
        self.windows = 0

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        self.windows += len(windows)
        return np.asarray(windows[:, 0])


def pairs_file(path: Path, n: int, samples: int = 16, **columns: Any) -> None:
    rows = np.arange(n, dtype=np.float32)[:, None, None] * np.ones((1, samples, 1), np.float32)
    write_pairs(path, {"current": rows, "pressure": rows + 1000, "acoustic": rows + 2000}, **columns)


def load(folder: Path, wanted: list[tuple[str, str]]) -> list[PairData]:
    encoders = {name: "conv" for names in wanted for name in names if name != "text"}
    text = project_text(encoders, wanted, pair='validation = ["held_out.safetensors"]')
    return load_pairs(load_project(write_project(folder, text)), 0)


def test_outputs_follow_the_rows_of_the_pair_and_every_window_is_encoded_once(tmp_path: Path) -> None:
    there = np.arange(600) % 3 != 0
    labels = {"labels": np.arange(600) % 2, "label_names": ["idle", "busy"]}
    pairs_file(tmp_path / "train.safetensors", 600, valid={"pressure": there}, **labels)
    pairs_file(tmp_path / "held_out.safetensors", 20, labels=np.zeros(20, int), label_names=["busy"])
    with_pressure, with_acoustic, with_text = load(
        tmp_path, [("current", "pressure"), ("current", "acoustic"), ("current", "text")]
    )
    current, pressure = Counting(), Counting()
    raw = RawOutputs({"current": current, "pressure": pressure}, {})
    rows = np.flatnonzero(there)
    assert raw.outputs(with_pressure, 0)[:, 0].tolist() == [*rows, *range(20)]
    assert raw.outputs(with_pressure, 1)[:, 0].tolist() == [*(rows + 1000), *range(1000, 1020)]
    assert raw.outputs(with_acoustic, 0)[:, 0].tolist() == [*range(600), *range(20)]
    assert current.windows == 620
    names = label_features(["idle", "busy"])
    assert np.array_equal(raw.outputs(with_text, 1), names[[*(np.arange(600) % 2), *[1] * 20]])


def test_windows_come_in_the_encoders_scale(tmp_path: Path) -> None:
    pairs_file(tmp_path / "train.safetensors", 20)
    pairs_file(tmp_path / "held_out.safetensors", 16)
    (pair,) = load(tmp_path, [("current", "pressure")])
    windows = RawOutputs({}, {"pressure": 10.0}).windows(pair, 1)
    assert windows.shape == (36, 16, 1)
    assert windows[5, 0, 0] == np.float32(100.5)


def test_windows_of_different_lengths_cannot_be_trained_on_together(tmp_path: Path) -> None:
    pairs_file(tmp_path / "train.safetensors", 20)
    pairs_file(tmp_path / "held_out.safetensors", 16, samples=20)
    (pair,) = load(tmp_path, [("current", "pressure")])
    with pytest.raises(DataError, match="of different lengths") as raised:
        RawOutputs({}, {"current": 1.0}).windows(pair, 0)
    assert "held_out.safetensors: 20 samples" in raised.value.got
    encoder = Counting()
    assert len(RawOutputs({"current": encoder}, {}).outputs(pair, 0)) == 36  # a frozen encoder takes both
