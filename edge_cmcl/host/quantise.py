"""Encoder graphs in a reduced precision, through onnxruntime's own tools. Inputs and outputs stay float32.

Static int8 is QDQ, per channel, calibrated on windows of the training data: the graph holds the ranges, and answers
one window as it answers many. Dynamic int8 takes the range of what it is given, so an embedding depends on the windows
beside it in a batch. Static int8 rounds weights and what goes into a product; what comes out stays float32. Measured on
BorealTC acc - gyro (test R@10): of conv 94.7 in float32, 93.5 so, and 87.0 with outputs rounded, too; of the universal
encoder (ranges from least to most) 73.1, 71.9 and 68.7: it counts positive outputs, and one rounded to zero is none.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from edge_cmcl.data.splits import evenly
from edge_cmcl.device.runtime import FP16, FP32, INT8_DYNAMIC
from edge_cmcl.errors import ModelError
from edge_cmcl.host.baking import POOL
from edge_cmcl.host.graphs import IR_VERSION, check_graph_file
from edge_cmcl.version import SOFTWARE

PRODUCTS = ("Conv", "MatMul", "Gemm")
"""Operators that are quantised: where the time and the bytes are."""

CALIBRATION_WINDOWS = 256
_CALIBRATION_BATCH = 16

Array = NDArray[np.float32]


def reduced(graph: bytes, precision: str, windows: Array, name: str) -> bytes:
    """Return an encoder's graph in another precision.

    Args:
        graph: float32, input "windows".
        precision: "fp16", "int8" or "int8-dynamic"; "fp32" returns the graph as it is.
        windows: (n, T, ...) of the training data, as the graph sees them: the ranges of static int8.
        name: for errors.

    Raises:
        ModelError: onnxruntime's tools cannot convert it.
    """
    if precision == FP32:
        return graph
    try:
        with _quiet():
            model = _converted(onnx.load_model_from_string(graph), precision, windows)
    except Exception as error:  # the tools raise whatever their parts raise
        raise ModelError(
            f"{name} cannot be converted to {precision}",
            expected="operators that onnxruntime's tools know",
            got=(str(error) or type(error).__name__).splitlines()[0],
            hint="export it in another precision",
        ) from error
    return _finished(model, precision, name)


def _converted(model: onnx.ModelProto, precision: str, windows: Array) -> onnx.ModelProto:
    if precision == FP16:
        # The window itself may be beyond what float16 holds; it is cut to that, and the gate tells what it costs.
        halved = ONNXModel(convert_float_to_float16(model, keep_io_types=True))
        halved.topological_sort()  # the converter appends its casts at the end
        converted: onnx.ModelProto = halved.model
        return converted
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-quantise-") as folder:
        given, source, target = (Path(folder) / f"{name}.onnx" for name in ("given", "source", "target"))
        # As a file: a model in memory is taken apart into files that are not found again. Symbolic shape inference
        # crashes on these graphs (design.md section 7).
        onnx.save(model, given)
        quant_pre_process(given, source, skip_symbolic_shape=True)
        kept = [node.name for node in onnx.load(source).graph.node if node.name.startswith(POOL)]
        if precision == INT8_DYNAMIC:
            quantize_dynamic(source, target, list(PRODUCTS), True, False, QuantType.QInt8, [], kept)
        else:
            _static(source, target, windows, kept)
        return onnx.load(target)


def _static(source: Path, target: Path, windows: Array, kept: list[str]) -> None:
    quantize_static(
        source,
        target,
        _Windows(windows),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(PRODUCTS),
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
        calibrate_method=CalibrationMethod.Percentile,
        extra_options={"OpTypesToExcludeOutputQuantization": list(PRODUCTS)},
    )


class _Windows(CalibrationDataReader):  # type: ignore[misc]
    """Real windows, spread evenly over what there is, in small batches."""

    def __init__(self, windows: Array) -> None:
        chosen = evenly(len(windows), CALIBRATION_WINDOWS)
        whole = len(chosen) - len(chosen) % _CALIBRATION_BATCH or len(chosen)  # histograms take batches of one size
        self._batches = iter(np.split(windows[chosen[:whole]], range(_CALIBRATION_BATCH, whole, _CALIBRATION_BATCH)))

    def get_next(self) -> dict[str, Array] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"windows": batch}


def _finished(model: onnx.ModelProto, precision: str, name: str) -> bytes:
    """Return a converted graph without what the tools note on the way, checked for devices as every other."""
    model.ir_version = min(model.ir_version, IR_VERSION)
    model.producer_name, _, model.producer_version = SOFTWARE.partition(" ")
    onnx.helper.set_model_props(model, {"role": "encoder", "precision": precision})
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    graph = bytes(model.SerializeToString(deterministic=True))
    check_graph_file(graph, name)
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tools: they print what they do, and log advice about options that we do not take."""
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
