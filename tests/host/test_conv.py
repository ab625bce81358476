from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.device.encoders import NO_BLOB, GraphEncoder
from edge_cmcl.device.sessions import open_session
from edge_cmcl.host.conv import make_encoder
from edge_cmcl.host.encoding import TorchEncoder
from edge_cmcl.host.graphs import encoder_graph

WIDTH = 48
SERIES, FRAMES = (64, 3), (32, 12, 10)
LENGTHS = (16, 17, 23, 31, 64, 101, 255)


@pytest.fixture(scope="module", params=[SERIES, FRAMES], ids=["series", "frames"])
def encoders(request: pytest.FixtureRequest) -> tuple[tuple[int, ...], TorchEncoder, GraphEncoder]:
    """The shape of its windows, the encoder in torch, and the same as the device runs it."""
    shape = request.param
    torch.manual_seed(0)
    module = make_encoder(shape, WIDTH)
    record = ModalityRecord(
        kind="series" if len(shape) == 2 else "frames",
        channels=shape[1] if len(shape) == 2 else None,
        frame=shape[1:] if len(shape) == 3 else None,
        rate_hz=10.0,
        window_s=shape[0] / 10.0,
        scale=2.0,
        encoder="conv",
        encoder_blob=NO_BLOB,
        width=WIDTH,
        adapter_blob=NO_BLOB,
    )
    graph = encoder_graph(module, shape, "camera")
    return shape, TorchEncoder(module, WIDTH, 2.0), GraphEncoder(open_session(graph, "camera"), "camera", record)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_export_agrees_at_any_length_and_batch(
    encoders: tuple[tuple[int, ...], TorchEncoder, GraphEncoder], length: int
) -> None:
    shape, source, exported = encoders
    rng = np.random.default_rng(length)
    for batch in (1, 2, 7):
        windows = rng.standard_normal((batch, length, *shape[1:]), dtype=np.float32)
        wanted = source(windows)
        assert wanted.shape == (batch, WIDTH)
        assert wanted.std() > 0.01
        np.testing.assert_allclose(exported(windows), wanted, atol=1e-5)


def test_a_window_is_encoded_alike_whatever_else_is_in_its_batch(
    encoders: tuple[tuple[int, ...], TorchEncoder, GraphEncoder],
) -> None:
    shape, source, _ = encoders
    windows = np.random.default_rng(1).standard_normal((5, *shape), dtype=np.float32)
    alone = np.concatenate([source(window[None]) for window in windows])
    np.testing.assert_allclose(source(windows), alone, atol=1e-5)


@pytest.mark.parametrize("shape", [SERIES, FRAMES])
def test_every_weight_takes_part(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = make_encoder(shape, WIDTH)
    module(torch.randn(4, *shape)).square().sum().backward()
    still = [name for name, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []
