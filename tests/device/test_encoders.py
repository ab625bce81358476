from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from machine_bundle import Machine
from onnx import TensorProto, helper

from edge_cmcl.bundle import ModalityRecord, Store
from edge_cmcl.device.encoders import BATCH, NO_BLOB, GraphEncoder, UniversalEncoder, check_graph
from edge_cmcl.device.model import Model
from edge_cmcl.device.sessions import open_session
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.universal import DILATIONS
from edge_cmcl.errors import DataError, ModelError

WIDTH = 24


def record(**fields: Any) -> ModalityRecord:
    defaults = {"kind": "series", "channels": 3, "encoder": "universal", "encoder_blob": NO_BLOB, "width": WIDTH}
    return ModalityRecord.model_validate({**defaults, "adapter_blob": NO_BLOB, **fields})


def windows(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def session(taught: Store) -> ort.InferenceSession:
    return Model(taught.load(CURRENT)).universal_session


def test_a_window_has_the_same_features_in_any_batch(session: ort.InferenceSession) -> None:
    encoder = UniversalEncoder(session, "acc", record())
    x = windows(2 * BATCH + 5, 64, 3)
    features = encoder(x)
    assert (features.shape, features.dtype) == ((2 * BATCH + 5, WIDTH), np.float32)
    for rows in (slice(0, 1), slice(60, 70), slice(BATCH, BATCH + 7)):
        np.testing.assert_allclose(encoder(x[rows]), features[rows], atol=1e-5)
    assert encoder(x[:0]).shape == (0, WIDTH)


def test_the_scale_is_what_the_encoder_sees_as_one(session: ort.InferenceSession) -> None:
    x = windows(4, 64, 3)
    plain, scaled = (UniversalEncoder(session, "acc", record(scale=scale)) for scale in (1.0, 250.0))
    np.testing.assert_allclose(scaled(250.0 * x), plain(x), atol=1e-4)


def test_features_depend_on_the_modality_and_its_channels(session: ort.InferenceSession) -> None:
    x = windows(4, 64, 3)
    one, other = (UniversalEncoder(session, name, record())(x) for name in ("acc", "gyro"))
    assert np.abs(one - other).max() > 0.1


def test_kernels_that_reach_too_far_for_a_short_window_are_silent(session: ort.InferenceSession) -> None:
    encoder = UniversalEncoder(session, "acc", record())
    silent = {length: int((encoder(windows(5, length, 3)) == 0).all(axis=0).sum()) for length in (16, 32, 64)}
    each = WIDTH // len(DILATIONS)
    assert silent == {length: each * sum(9 * d > 2 * length for d in DILATIONS) for length in (16, 32, 64)}
    assert silent[16] > 0


def test_frames_are_seen_as_means_over_cells(session: ort.InferenceSession) -> None:
    frames = record(kind="frames", channels=None, frame=(20, 30))
    cells = windows(3, 32, 10, 10)
    fine = np.repeat(np.repeat(cells, 2, axis=2), 3, axis=3)
    coarse = record(kind="frames", channels=None, frame=(10, 10))
    found = UniversalEncoder(session, "depth", frames)(fine)
    np.testing.assert_allclose(found, UniversalEncoder(session, "depth", coarse)(cells), atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 64, 2), (4, 64), (4, 15, 3), (4, 64, 3, 1)])
def test_windows_of_another_shape_are_refused(session: ort.InferenceSession, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="windows of acc have another shape") as refused:
        UniversalEncoder(session, "acc", record())(windows(*shape))
    assert refused.value.got == str(shape)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_windows_that_are_not_finite_are_refused(session: ort.InferenceSession, value: float) -> None:
    x = windows(4, 64, 3)
    x[3, 5, 1] = value
    with pytest.raises(DataError, match="NaN or infinity"):
        UniversalEncoder(session, "acc", record())(x)


def graph(
    name: str = "windows",
    shape: tuple[int | str, ...] = ("n", "t", 3),
    dtype: int = TensorProto.FLOAT,
    outputs: int = 1,
) -> ort.InferenceSession:
    """Return a session of a graph whose outputs are the mean over time of its input."""
    value = helper.make_tensor_value_info
    ends = [shape[0], *shape[2:]]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("ReduceMean", [name, "axes"], [f"out{i}"], keepdims=0) for i in range(outputs)]
    outs = [value(f"out{i}", dtype, ends) for i in range(outputs)]
    made = helper.make_graph(nodes, "encoder", [value(name, dtype, shape)], outs, [axes])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return open_session(model.SerializeToString(), "the test's encoder")


def test_a_graph_of_ones_own_gives_its_outputs() -> None:
    encoder = GraphEncoder(graph(), "acc", record(encoder="onnx", width=3, scale=2.0))
    x = windows(BATCH + 3, 20, 3)
    np.testing.assert_allclose(encoder(x), (x / 2).mean(axis=1), atol=1e-5)
    assert encoder(x[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("session", "fields", "message"),
    [
        (graph(name="samples"), {}, "other inputs than expected"),
        (graph(shape=("n", "t", 6)), {}, "takes another input"),
        (graph(shape=("n", "t")), {}, "takes another input"),
        (graph(shape=(4, "t", 3)), {}, "takes another input"),
        (graph(dtype=TensorProto.DOUBLE), {}, "takes another input"),
        (graph(outputs=2), {}, "gives another output"),
        (graph(), {"width": 5}, "gives another output"),
        (graph(), {"kind": "frames", "channels": None, "frame": (4, 3)}, "takes another input"),
    ],
    ids=["name", "channels", "rank", "fixed batch", "float64", "two outputs", "width", "frames"],
)
def test_a_graph_that_does_not_fit_the_modality_is_refused(
    session: ort.InferenceSession, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        check_graph(session, "acc", record(encoder="onnx", **{"width": 3, **fields}))
    assert refused.value.expected
    assert refused.value.got


def test_what_is_no_graph_is_refused(machine: Machine) -> None:
    with pytest.raises(ModelError, match="cannot load the graph of mine"):
        open_session(machine.new.read_bytes()[:500], "mine")
