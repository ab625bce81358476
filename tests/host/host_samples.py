"""Small projects on the simulated machine, and ONNX encoders of a user's own, right and wrong in one respect each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_cmcl.data.simulator import SENSORS, WINDOW_S

CHANNELS = {"vibration": 3, "current": 1, "acoustic": 1, "temperature": 3, "shaft_speed": 1, "pressure": 1}
ONNX_WIDTH = 24


@dataclass(frozen=True)
class Recordings:
    """Pairs files of the simulated machine: two days, four sensors, labels."""

    train: Path
    test: Path


def project_text(
    encoders: Mapping[str, str], pairs: Sequence[tuple[str, str]], *, train: str = "", pair: str = "", **settings: Any
) -> str:
    """Return a project on the simulated machine.

    Args:
        encoders: encoder of each sensor, for instance {"current": "conv"}.
        pairs: the base pairs, all in train.safetensors.
        train: lines of `[train]`.
        pair: further lines of every `[[pair]]`.
        settings: further keys at the top, for instance width=120.
    """
    lines = ['name = "machine"', *(f"{key} = {value}" for key, value in settings.items())]
    for name, encoder in encoders.items():
        lines += [f"[modality.{name}]", f"channels = {CHANNELS[name]}", f"rate_hz = {SENSORS[name].rate_hz}"]
        lines += [f"window_s = {WINDOW_S}", f'encoder = "{encoder}"']
    for a, b in pairs:
        lines += ["[[pair]]", f'modalities = ["{a}", "{b}"]', 'train = ["train.safetensors"]', pair]
    return "\n".join([*lines, "[train]", train])


def write_project(folder: Path, text: str, *files: Path) -> Path:
    """Write the project file `text` into `folder`, with links to `files` beside it; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "edge-cmcl.toml").write_text(text)
    for file in files:
        (folder / file.name).symlink_to(file)
    return folder


def write_encoder(
    path: Path,
    *,
    channels: int = 1,
    input_name: str = "windows",
    batch: int | str = "n",
    samples: int | str = "t",
    dtype: int = TensorProto.FLOAT,
    ir_version: int = 8,
    opset: int = 17,
    any_width: bool = False,
    batch_dependent: bool = False,
) -> Path:
    """Write an encoder to `path`: the sum over time of |windows x random projection + offset|, and return `path`.

    The defaults are right. With `any_width` the output is as wide as the window is long; with `batch_dependent` each
    answer is relative to the sum over its batch.
    """
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    constants = {
        "projection": np.random.RandomState(0).standard_normal((channels, ONNX_WIDTH)).astype(kind),
        "offset": np.linspace(-1.0, 1.0, ONNX_WIDTH).astype(kind),
        "batch_axis": np.array([0]),
        "time_axis": np.array([1]),
    }
    steps = [
        ("MatMul", [input_name, "projection"], "mixed", {}),
        ("Add", ["mixed", "offset"], "shifted", {}),
        ("Abs", ["shifted"], "size", {}),
        ("ReduceSum", ["size", "time_axis"], "answer", {"keepdims": 0}),
        ("ReduceSum", ["answer", "batch_axis"], "sum", {"keepdims": 1}),
        ("Sub", ["answer", "sum"], "relative", {}),
        ("Flatten", [input_name], "window", {}),
    ]
    chosen = "window" if any_width else "relative" if batch_dependent else "answer"
    nodes = [helper.make_node(name, inputs, [output], **attributes) for name, inputs, output, attributes in steps]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", [chosen], ["features"])],
        "encoder",
        [helper.make_tensor_value_info(input_name, dtype, [batch, samples, channels])],
        [helper.make_tensor_value_info("features", dtype, [batch, "w" if any_width else ONNX_WIDTH])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    path.write_bytes(model.SerializeToString())
    return path
