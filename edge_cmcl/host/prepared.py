"""A sensor's encoder as a bundle will hold it: its graph in some precision, its record, and what it must equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.device.encoders import Encoder, GraphEncoder, UniversalEncoder
from edge_cmcl.device.runtime import CPU, FP32, KEY, TENSORRT, Runtime
from edge_cmcl.device.sessions import open_session
from edge_cmcl.host.baking import baked_universal
from edge_cmcl.host.encoding import TorchEncoder, modality_record, user_encoder
from edge_cmcl.host.graphs import encoder_graph, universal_graph
from edge_cmcl.host.parity import OneByOne, UniversalReference
from edge_cmcl.host.products import products_of
from edge_cmcl.host.quantise import reduced
from edge_cmcl.host.run import Run

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """One sensor's encoder.

    Attributes:
        graph: its ONNX.
        record: its record, blobs still missing.
        encoder: the graph through the device's own class.
        reference: what it must answer as (`parity.check_embeddings`).
        golden: gives its golden embeddings: the source where that is exact, else the graph itself.
    """

    graph: bytes
    record: ModalityRecord
    encoder: Encoder
    reference: Encoder
    golden: Encoder


def prepared(run: Run, name: str, precision: str, target: str, windows: Callable[[], Array]) -> Prepared:
    """Return the encoder of sensor `name` in `precision`.

    Args:
        run: a finished run.
        name: the sensor.
        precision: one of `runtime.PRECISIONS`.
        target: one of `runtime.TARGETS`.
        windows: gives training windows (n, T, ...) in recorded units, where the precision needs them.

    Raises:
        ModelError: an encoder of the user's own cannot be used, or cannot be converted.
    """
    table = run.project.modality[name]
    record = modality_record(run.project, name)
    if table.encoder == "universal" and precision == FP32 and target != TENSORRT:
        graph = universal_graph()
        shared = UniversalEncoder(open_session(graph, name), name, record)
        reference = UniversalReference(name, record)
        return Prepared(graph, _told(record, Runtime(target=target)), shared, reference, reference)
    source, record, exact = _source(run, name, record)
    runtime = Runtime(precision, table.encoder.partition(":")[0], target, products_of(source, table.window_shape))
    graph = source
    if precision != FP32:
        graph = reduced(source, precision, windows() / np.float32(record.scale), f"the encoder of {name}")
    record = _told(record, runtime)
    encoder = GraphEncoder(open_session(graph, name), name, record)
    if precision != FP32 or exact is None:
        return Prepared(graph, record, encoder, OneByOne(encoder), encoder if precision != FP32 else OneByOne(encoder))
    return Prepared(graph, record, encoder, exact, exact)


def _source(run: Run, name: str, record: ModalityRecord) -> tuple[bytes, ModalityRecord, Encoder | None]:
    """Return a sensor's graph in float32, its record, and the torch code that it comes from, if it does."""
    table = run.project.modality[name]
    if table.encoder == "universal":
        baked = record.model_copy(update={"encoder": "onnx"})
        return baked_universal(name, record, table.samples), baked, UniversalReference(name, record)
    if table.encoder == "conv":
        module = run.encoders[name]
        return encoder_graph(module, table.window_shape, name), record, TorchEncoder(module, record.width, record.scale)
    graph, record = user_encoder(run.project, name, run.encoder_file(name))
    return graph, record, None


def _told(record: ModalityRecord, runtime: Runtime) -> ModalityRecord:
    """Return `record` with how its encoder was exported; a universal encoder as ever needs no word of it."""
    if runtime == Runtime(target=CPU):
        return record
    return record.model_copy(update={"calibration": {**record.calibration, KEY: runtime.as_json()}})
