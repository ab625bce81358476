"""The universal encoder with a sensor's kernels inside: what a reduced precision, or TensorRT, needs to start from.

The shared graph takes its kernels as inputs, so that one graph serves every sensor. A quantiser needs them as
constants, because it reads their ranges; the graph is then an encoder of the one sensor, of kind `onnx`.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.device.encoders import series_channels
from edge_cmcl.device.universal import MAX_CELLS, Kernels, make_kernels
from edge_cmcl.host.graphs import universal_graph

POOL = "pool_"
"""How the names of the nodes begin that pool frames to cells: as exact as on the device, in every precision."""

WINDOWS = "windows"
_SERIES = "series"

Array = NDArray[np.float32]


def baked_universal(modality: str, record: ModalityRecord, samples: int) -> bytes:
    """Return the universal encoder of `modality` as a graph of its own: windows (n, T, C) or (n, T, H, W) to features.

    Args:
        modality: its name, which seeds the kernels.
        record: its channels or frame and its width.
        samples: T of the modality's windows. Kernels that are too long for it are silent at every length.
    """
    channels = series_channels(record)
    kernels = make_kernels(modality, channels, record.width).for_length(samples)
    model = onnx.load_model_from_string(universal_graph())
    _fix_kernels(model, kernels)
    _declare(model, record, channels)
    if record.frame is not None:
        _pool(model, record.frame)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _fix_kernels(model: onnx.ModelProto, kernels: Kernels) -> None:
    """Replace the kernel inputs, and the nodes that take the kernels of one dilation out of them, by constants."""
    graph = model.graph
    constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    sources = {"weights": kernels.weights, "biases": kernels.biases}
    for node in [node for node in graph.node if node.op_type == "Gather" and node.input[0] in sources]:
        chosen = sources[node.input[0]][int(constants[node.input[1]])]
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(chosen), node.output[0]))
        graph.node.remove(node)
    for value in [value for value in graph.input if value.name in sources]:
        graph.input.remove(value)
    used = {name for node in graph.node for name in node.input}
    for value in [value for value in graph.initializer if value.name not in used]:
        graph.initializer.remove(value)
    del graph.value_info[:]


def _declare(model: onnx.ModelProto, record: ModalityRecord, channels: int) -> None:
    """Declare the input and the output as fixed as the sensor is."""
    sides = record.frame or (channels,)
    windows = helper.make_tensor_value_info(WINDOWS, TensorProto.FLOAT, ["batch", "samples", *sides])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", record.width])
    for values, value in ((model.graph.input, windows), (model.graph.output, features)):
        del values[:]
        values.append(value)


def _pool(model: onnx.ModelProto, frame: tuple[int, int]) -> None:
    """Let the graph take frames, and begin with what `universal.pool_frames` does: two products with means."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = [_SERIES if name == WINDOWS else name for name in node.input]
    rows, columns = (_means(side) for side in frame)
    shape = np.array([0, 0, len(rows) * len(columns)], np.int64)
    constants = {f"{POOL}rows": rows, f"{POOL}columns": np.ascontiguousarray(columns.T), f"{POOL}shape": shape}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    steps = [
        helper.make_node("MatMul", [f"{POOL}rows", WINDOWS], [f"{POOL}high"], name=f"{POOL}high"),
        helper.make_node("MatMul", [f"{POOL}high", f"{POOL}columns"], [f"{POOL}cells"], name=f"{POOL}cells"),
        helper.make_node("Reshape", [f"{POOL}cells", f"{POOL}shape"], [_SERIES], name=f"{POOL}series"),
    ]
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _means(size: int) -> Array:
    """Return (cells, size), the mean over each cell of one side of a frame."""
    count = min(size, MAX_CELLS)
    edges = np.arange(count + 1) * size // count
    means = np.zeros((count, size), np.float32)
    for cell, (first, last) in enumerate(pairwise(edges.tolist())):
        means[cell, first:last] = 1.0 / (last - first)
    return means
