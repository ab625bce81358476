"""Exporting torch code as single-file ONNX graphs that onnxruntime 1.20 reads (design.md sections 2 and 7)."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

from edge_cmcl.device.universal import DILATIONS, LENGTH
from edge_cmcl.errors import ModelError
from edge_cmcl.host.graph_cache import kept
from edge_cmcl.host.step import training_step
from edge_cmcl.host.universal_graph import UniversalEncoder
from edge_cmcl.version import SOFTWARE

OPSET = 18
IR_VERSION = 10
"""The newest ONNX file version that onnxruntime 1.20 reads."""
NEWEST_OPSET = 21
"""The newest operators that onnxruntime 1.20 has, those of ONNX 1.16."""

STEP_INPUTS = ("changes", "first", "second", "base", "inputs", "ids", "rate", "count")
STEP_OUTPUTS = ("changes_out", "first_out", "second_out", "loss")


@kept
def universal_graph() -> bytes:
    """Return the ONNX of the universal encoder: inputs windows, weights, biases; output features."""
    windows = torch.zeros(3, 40, 2)
    weights = torch.zeros(len(DILATIONS), 5, 2, LENGTH)
    biases = torch.zeros(len(DILATIONS), 5)
    shapes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC}, {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}, {1: Dim.DYNAMIC})
    return _export(
        UniversalEncoder(),
        (windows, weights, biases),
        shapes,
        ("windows", "weights", "biases"),
        ("features",),
        {"role": "universal encoder", "recipe": "1"},
    )


@kept
def step_graph() -> bytes:
    """Return the ONNX of the training step; every size is free: modalities, batch, embedding, update space."""
    example = step_example(partners=2, batch=6, dimensions=16, directions=8)
    traced = make_fx(
        training_step,
        decomposition_table=dict(core_aten_decompositions()),
        tracing_mode="symbolic",
        _allow_non_fake_inputs=True,
    )(*example)
    cube, plane = {0: Dim.AUTO, 1: Dim.AUTO, 2: Dim.AUTO}, {0: Dim.AUTO, 1: Dim.AUTO}
    shapes = (cube, cube, plane, cube, cube, plane, None, None)
    return _export(traced, example, shapes, STEP_INPUTS, STEP_OUTPUTS, {"role": "training step"})


def encoder_graph(encoder: nn.Module, window_shape: Sequence[int], modality: str, *, free_length: bool = True) -> bytes:
    """Return the ONNX of a trained encoder of `modality`: input windows (n, *window_shape), output features (n, width).

    The batch is free, and unless `free_length` is False the length, too; channels or frame size are fixed.
    """
    windows = torch.zeros(2, *window_shape)
    shapes = ({0: Dim.DYNAMIC, **({1: Dim.DYNAMIC} if free_length else {})},)
    metadata = {"role": "encoder", "modality": modality}
    return _export(encoder.eval(), (windows,), shapes, ("windows",), ("features",), metadata)


def step_example(*, partners: int, batch: int, dimensions: int, directions: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Return random inputs of the training step, in the middle of a training run.

    They hold what training meets: unused directions that were never moved, rows of equal label, missing partners.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    cube = (1 + partners, dimensions, directions)
    used = torch.ones(1 + partners, 1, directions)
    used[-1, :, directions // 2 :] = 0.0
    ids = torch.arange(batch).repeat(partners, 1)
    ids[-1] = torch.arange(batch) % 3 - 1
    return (
        0.01 * normal(*cube) * used,
        1e-3 * normal(*cube) * used,
        1e-6 * normal(1 + partners, dimensions).abs(),
        normal(1 + partners, batch, dimensions),
        0.1 * normal(1 + partners, batch, directions) * used,
        ids,
        torch.tensor(1e-3),
        torch.tensor(3.0),
    )


def check_graph_file(graph: bytes, name: str) -> None:
    """Check `graph` with the onnx library: valid, self-contained, and not newer than onnxruntime 1.20 reads.

    Raises:
        ModelError: it is not.
    """
    try:
        model = onnx.load_model_from_string(graph)
        onnx.checker.check_model(model)
    except Exception as error:  # onnx and protobuf raise unrelated classes
        got = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{name} is not a valid ONNX file", expected="a single-file ONNX model", got=got) from error
    opset = max((used.version for used in model.opset_import if used.domain in ("", "ai.onnx")), default=0)
    if model.ir_version > IR_VERSION or opset > NEWEST_OPSET:
        raise ModelError(
            f"{name} needs a newer onnxruntime than devices have",
            expected=f"ONNX IR version {IR_VERSION} and opset {NEWEST_OPSET}, or older",
            got=f"IR version {model.ir_version} and opset {opset}",
            hint="export it again with an older opset",
        )


def _export(
    module: Any,
    example: tuple[Tensor, ...],
    shapes: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: Mapping[str, str],
) -> bytes:
    with _quiet():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    model.producer_name, _, model.producer_version = SOFTWARE.partition(" ")
    onnx.helper.set_model_props(model, dict(metadata))
    _strip(model)
    graph = model.SerializeToString(deterministic=True)
    check_graph_file(graph, metadata["role"])
    return bytes(graph)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes for debugging: it holds source paths of this machine and changes the digest."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns about packages that we do not need (torchvision) and prints to stdout."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
