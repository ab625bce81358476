from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from vectors.exported import step_session, universal_session

from edge_cmcl.device.sessions import open_session
from edge_cmcl.device.universal import make_kernels
from edge_cmcl.errors import ModelError
from edge_cmcl.host.graphs import (
    IR_VERSION,
    OPSET,
    STEP_INPUTS,
    STEP_OUTPUTS,
    check_graph_file,
    encoder_graph,
    step_example,
    step_graph,
    universal_graph,
)
from edge_cmcl.host.parity import check_step
from edge_cmcl.host.step import training_step
from edge_cmcl.host.universal_graph import UniversalEncoder


class Pooled(nn.Module):
    """A small trained encoder: one convolution, then the mean and the maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv1d(3, 6, 5, padding=2)

    def forward(self, windows: Tensor) -> Tensor:
        outputs = torch.relu(self.convolution(windows.transpose(1, 2)))
        return torch.cat([outputs.mean(2), outputs.amax(2)], 1)


@pytest.fixture(scope="module")
def pooled() -> tuple[Pooled, bytes]:
    encoder = Pooled()
    return encoder, encoder_graph(encoder, (64, 3), "acc")


@pytest.fixture(scope="module")
def exported(pooled: tuple[Pooled, bytes]) -> dict[str, bytes]:
    return {"step": step_graph(), "universal": universal_graph(), "encoder": pooled[1]}


def run_step(inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    feeds = {name: value.numpy() for name, value in zip(STEP_INPUTS, inputs, strict=True)}
    return list(step_session().run(list(STEP_OUTPUTS), feeds))


@pytest.mark.parametrize("partners", [1, 2, 3])
@pytest.mark.parametrize("batch", [2, 5, 64, 200])
def test_exported_step_answers_as_torch_does(batch: int, partners: int) -> None:
    inputs = step_example(partners=partners, batch=batch, dimensions=48, directions=24, seed=batch)
    if batch == 2:
        # Of its two rows the example leaves one without a partner, and then there is nothing to learn.
        inputs[5][:] = torch.arange(2)
    for name, found, wanted in zip(STEP_OUTPUTS, run_step(inputs), training_step(*inputs), strict=True):
        scale = float(wanted.abs().max())
        assert scale > 0
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize(("dimensions", "directions"), [(256, 128), (2, 3), (64, 2)])
def test_embedding_and_update_space_may_have_any_size(dimensions: int, directions: int) -> None:
    inputs = step_example(partners=1, batch=8, dimensions=dimensions, directions=directions)
    found = run_step(inputs)
    assert found[0].shape == (2, dimensions, directions)
    np.testing.assert_allclose(found[1], training_step(*inputs)[1].numpy(), rtol=0, atol=1e-6)


def test_exported_step_follows_torch_through_a_training_run() -> None:
    inputs = list(step_example(partners=2, batch=16, dimensions=24, directions=8))
    ours, theirs = list(inputs), list(inputs)
    for count in range(3, 23):
        for side in (ours, theirs):
            side[7] = torch.tensor(float(count))
        ours[:3] = [torch.from_numpy(array) for array in run_step(tuple(ours))[:3]]
        theirs[:3] = training_step(*theirs)[:3]
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-4)


def test_exported_step_stays_finite_where_modalities_are_missing() -> None:
    inputs = list(step_example(partners=2, batch=6, dimensions=8, directions=4))
    missing = inputs[5][1] < 0
    inputs[3][2, missing], inputs[4][2, missing] = 0.0, 0.0
    inputs[3][0, 0], inputs[4][0, 0] = 0.0, 0.0
    for ids in (inputs[5], torch.full_like(inputs[5], -1)):
        inputs[5] = ids
        for found, wanted in zip(run_step(tuple(inputs)), training_step(*inputs), strict=True):
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-6)


def test_the_exporters_own_check_of_the_step_passes() -> None:
    assert check_step(step_session()) < 1e-4


@pytest.mark.parametrize(("samples", "channels", "width"), [(16, 1, 12), (128, 3, 60), (300, 60, 24)])
@pytest.mark.parametrize("batch", [1, 7])
def test_exported_universal_encoder_answers_as_torch_does(samples: int, channels: int, width: int, batch: int) -> None:
    kernels = make_kernels("acc", channels, width).for_length(samples)
    windows = np.random.default_rng(0).standard_normal((batch, samples, channels)).astype(np.float32)
    feeds = {"windows": windows, "weights": kernels.weights, "biases": kernels.biases}
    (found,) = universal_session().run(["features"], feeds)
    wanted = UniversalEncoder()(*(torch.from_numpy(array) for array in feeds.values())).numpy()
    assert found.shape == (batch, width)
    # An output on the edge of zero may count on either side: one sample of the share.
    shares = np.tile(np.repeat([True, False, False], width // 12), 4)
    np.testing.assert_allclose(found[:, ~shares], wanted[:, ~shares], rtol=0, atol=1e-5)
    assert np.abs(found - wanted)[:, shares].max() <= 1.001 / samples


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("samples", [16, 200])
def test_exported_encoder_takes_any_batch_and_length(pooled: tuple[Pooled, bytes], batch: int, samples: int) -> None:
    encoder, graph = pooled
    windows = np.random.default_rng(0).standard_normal((batch, samples, 3)).astype(np.float32)
    (found,) = open_session(graph, "acc", threads=1).run(["features"], {"windows": windows})
    with torch.no_grad():
        np.testing.assert_allclose(found, encoder(torch.from_numpy(windows)).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["step", "universal", "encoder"])
def test_graphs_hold_nothing_of_the_machine_that_exported_them(exported: dict[str, bytes], name: str) -> None:
    here = Path(__file__).resolve()
    for trace in (b"site-packages", b".py", b"/work", str(here.parents[2]).encode(), sys.prefix.encode()):
        assert trace not in exported[name], trace
    assert len(exported[name]) < 40_000


@pytest.mark.parametrize("name", ["step", "universal", "encoder"])
def test_graphs_are_plain_onnx_that_onnxruntime_1_20_reads(exported: dict[str, bytes], name: str) -> None:
    model = onnx.load_model_from_string(exported[name])
    assert model.ir_version <= IR_VERSION == 10
    assert [(used.domain, used.version) for used in model.opset_import if used.domain in ("", "ai.onnx")] == [
        ("", OPSET)
    ]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not model.functions
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_graphs_say_what_they_are(exported: dict[str, bytes]) -> None:
    properties = {
        name: {entry.key: entry.value for entry in onnx.load_model_from_string(graph).metadata_props}
        for name, graph in exported.items()
    }
    assert properties["step"] == {"role": "training step"}
    assert properties["universal"] == {"role": "universal encoder", "recipe": "1"}
    assert properties["encoder"] == {"role": "encoder", "modality": "acc"}
    assert {onnx.load_model_from_string(graph).producer_name for graph in exported.values()} == {"edge-cmcl"}


def test_graph_inputs_are_named_and_sized_as_devices_expect(exported: dict[str, bytes]) -> None:
    inputs = {value.name: value.shape for value in step_session().get_inputs()}
    assert tuple(inputs) == STEP_INPUTS
    assert [value.name for value in step_session().get_outputs()] == list(STEP_OUTPUTS)
    free = [size for shape in inputs.values() for size in shape]
    assert not any(isinstance(size, int) for size in free)
    windows, weights, biases = (value.shape for value in universal_session().get_inputs())
    assert [isinstance(size, int) for size in windows] == [False, False, False]
    assert (weights[0], weights[3], biases[0]) == (4, 7, 4)
    acc = open_session(exported["encoder"], "acc").get_inputs()[0].shape
    assert [isinstance(size, int) for size in acc] == [False, False, True]


@pytest.mark.slow
def test_exporting_twice_gives_the_same_bytes() -> None:
    assert step_graph.__wrapped__() == step_graph()
    assert universal_graph.__wrapped__() == universal_graph()


def test_bytes_that_are_no_onnx_file_are_refused() -> None:
    for graph in (b"", b"not an onnx file", step_graph()[:-100]):
        with pytest.raises(ModelError, match="is not a valid ONNX file"):
            check_graph_file(graph, "encoder.onnx")


@pytest.mark.parametrize(("ir_version", "opset"), [(11, 18), (10, 22)])
def test_a_graph_that_devices_are_too_old_for_is_refused(ir_version: int, opset: int) -> None:
    model = onnx.load_model_from_string(universal_graph())
    model.ir_version = ir_version
    model.opset_import[0].version = opset
    with pytest.raises(ModelError, match="needs a newer onnxruntime"):
        check_graph_file(model.SerializeToString(), "encoder.onnx")
