from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge_cmcl.device.text import TEXT
from edge_cmcl.host.conv import make_encoder
from edge_cmcl.host.epochs import History
from edge_cmcl.host.pretrain import PairInputs, autocast_dtype, train_encoders
from edge_cmcl.project import TrainTable

N, WIDTH, SHAPE = 120, 24, (32, 1)
OPTIONS = TrainTable(epochs=4, patience=4, learning_rate=3e-3, batch_size=32)


def moments(partner: str) -> PairInputs:
    """Windows of a tone, paired with a frozen sensor's features or with the name of its pitch."""
    rng = np.random.default_rng(0)
    pitch = rng.integers(0, 8, N)
    time = np.arange(SHAPE[0])[None, :, None]
    windows = np.sin(2 * np.pi * (pitch[:, None, None] + 1) * time / SHAPE[0] + rng.uniform(0, 6, (N, 1, 1)))
    codes = rng.standard_normal((8, WIDTH))[pitch]
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    ids = pitch if partner == TEXT else np.arange(N)
    inputs = (windows.astype(np.float32), codes.astype(np.float32))
    return PairInputs(("current", partner), inputs, ids, np.arange(90), np.arange(90, N))


def train(partner: str, seed: int = 0, precision: str = "float32") -> tuple[nn.Module, History]:
    torch.manual_seed(seed)
    encoder = make_encoder(SHAPE, WIDTH)
    options = OPTIONS.model_copy(update={"seed": seed, "precision": precision})
    widths = {"current": WIDTH, partner: WIDTH}
    history = train_encoders(
        {"current": encoder},
        widths,
        [moments(partner)],
        8,
        options,
        device="cpu",
        checkpoint=None,
        fingerprint="",
    )
    return encoder, history


def weights(encoder: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in encoder.state_dict().items()}


@pytest.mark.parametrize("partner", ["pressure", TEXT])
def test_encoders_learn_what_both_sides_share(partner: str) -> None:
    encoder, history = train(partner)
    start, best = (history.epochs[epoch] for epoch in (0, history.best_epoch))
    assert history.best_epoch > 0
    assert best["validation_mrr"] > 1.5 * start["validation_mrr"]
    assert history.epochs[-1]["loss"] < history.epochs[1]["loss"]
    assert not encoder.training


def test_the_seed_decides() -> None:
    (first, history), (second, again), (other, _) = train("pressure"), train("pressure"), train("pressure", seed=1)
    for name, value in weights(first).items():
        assert np.array_equal(value, weights(second)[name])
    assert history.epochs[1:] == again.epochs[1:]
    assert not np.array_equal(weights(first)["widen.weight"], weights(other)["widen.weight"])


def test_mixed_precision_trains_float32_weights() -> None:
    encoder, history = train("pressure", precision="bfloat16")
    exact, _ = train("pressure")
    assert {value.dtype for value in weights(encoder).values()} == {np.dtype(np.float32)}
    assert history.epochs[history.best_epoch]["validation_mrr"] > 1.5 * history.epochs[0]["validation_mrr"]
    assert not np.array_equal(weights(encoder)["widen.weight"], weights(exact)["widen.weight"])


@pytest.mark.parametrize(
    ("precision", "device", "wanted"),
    [
        ("auto", "cpu", None),
        ("auto", "cuda:1", torch.bfloat16),
        ("float32", "cuda", None),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float16", "cuda", torch.float16),
    ],
)
def test_mixed_precision_is_for_cuda_unless_asked_for(precision: str, device: str, wanted: Any) -> None:
    assert autocast_dtype(precision, device) is wanted
