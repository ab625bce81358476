from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from host_samples import ONNX_WIDTH, write_encoder
from machine_bundle import Machine
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.bundle.transfer import opened
from edge_cmcl.device.encoders import NO_BLOB, Encoder, GraphEncoder
from edge_cmcl.device.model import Model
from edge_cmcl.device.sessions import open_session
from edge_cmcl.errors import ParityError
from edge_cmcl.host.encoding import TorchEncoder
from edge_cmcl.host.parity import TOLERANCE, OneByOne, UniversalReference, check_embeddings, check_step
from edge_cmcl.host.run import load_run

Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def model(machine: Machine) -> Iterator[Model]:
    """Vibration with the universal encoder and current with a trained one."""
    with opened(machine.bundle) as loaded:
        yield Model(loaded)


@pytest.fixture(scope="module")
def references(machine: Machine, model: Model) -> dict[str, Encoder]:
    run = load_run(machine.run)
    current = model.record("current")
    return {
        "vibration": UniversalReference("vibration", model.record("vibration")),
        "current": TorchEncoder(run.encoders["current"], current.width, current.scale),
    }


class Watched:
    """A reference that is changed by `tamper`, and notes the batch sizes it is asked for."""

    def __init__(self, source: Encoder, tamper: Any = lambda raw: raw) -> None:
        self.width = source.width
        self.batches: list[int] = []
        self._source, self._tamper = source, tamper

    def __call__(self, windows: Array) -> Array:
        self.batches.append(len(windows))
        return np.asarray(self._tamper(self._source(windows)))


@pytest.mark.parametrize("samples", [16, 37, 256])
@pytest.mark.parametrize("name", ["vibration", "current"])
def test_what_was_exported_agrees_with_its_source(
    model: Model, references: dict[str, Encoder], name: str, samples: int
) -> None:
    assert 0 <= check_embeddings(model, name, references[name], samples) <= TOLERANCE


def test_batches_of_1_7_and_64_windows_are_compared(model: Model, references: dict[str, Encoder]) -> None:
    watched = Watched(references["current"])
    check_embeddings(model, "current", watched, 64)
    assert watched.batches == [1, 7, 64]


def test_a_users_encoder_must_answer_one_window_as_it_answers_many(tmp_path: Path) -> None:
    windows = np.random.default_rng(0).standard_normal((5, 40, 1), dtype=np.float32)
    record = ModalityRecord(
        kind="series",
        channels=1,
        rate_hz=10.0,
        window_s=4.0,
        encoder="onnx",
        encoder_blob=NO_BLOB,
        width=ONNX_WIDTH,
        adapter_blob=NO_BLOB,
    )
    for dependent in (False, True):
        graph = write_encoder(tmp_path / "mine.onnx", batch_dependent=dependent).read_bytes()
        encoder = GraphEncoder(open_session(graph, "mine"), "current", record)
        assert np.allclose(OneByOne(encoder)(windows), encoder(windows), rtol=1e-5) is not dependent


def nan_in_the_last_row(raw: Array) -> Array:
    raw = raw.copy()
    raw[-1] = np.nan
    return raw


@pytest.mark.parametrize(
    "tamper",
    [lambda raw: 1.01 * raw, lambda raw: raw[:, ::-1], nan_in_the_last_row],
    ids=["scaled", "reversed", "nan"],
)
@pytest.mark.parametrize("name", ["vibration", "current"])
def test_an_encoder_that_answers_differently_is_refused(
    model: Model, references: dict[str, Encoder], name: str, tamper: Any
) -> None:
    with pytest.raises(ParityError, match=f"the exported encoder of {name} .* at batch 1") as raised:
        check_embeddings(model, name, Watched(references[name], tamper), 64)
    assert raised.value.expected == "embeddings within 0.0001"


def test_an_answer_that_is_wrong_in_large_batches_only_is_refused(model: Model, references: dict[str, Encoder]) -> None:
    def wrong_when_large(raw: Array) -> Array:
        return raw + (len(raw) > 7)

    with pytest.raises(ParityError, match="at batch 64"):
        check_embeddings(model, "current", Watched(references["current"], wrong_when_large), 64)


def test_one_count_of_the_universal_encoder_may_fall_on_either_side_of_zero_but_not_many(model: Model) -> None:
    record = model.record("vibration")
    reference = UniversalReference("vibration", record)
    windows = np.random.default_rng(0).standard_normal((8, 50, 3), dtype=np.float32)
    wanted = reference(windows)
    kernels = record.width // 12
    one = wanted.copy()
    one[3, 1] += 1 / 50
    assert np.array_equal(reference.settle(one, wanted, 50), wanted)
    two_at_once, maximum, many = wanted.copy(), wanted.copy(), wanted.copy()
    two_at_once[3, 1] += 2 / 50
    maximum[3, kernels] += 1 / 50  # no count
    many[:, :5] += 1 / 50
    for wrong in (two_at_once, maximum, many):
        assert np.array_equal(reference.settle(wrong, wanted, 50), wrong)


def test_the_training_step_agrees(model: Model) -> None:
    assert 0 < check_step(model.step_session) < 1e-4


@pytest.mark.parametrize(("operator", "other"), [("Sqrt", "Exp"), ("Neg", "Identity")])
def test_a_training_step_that_answers_differently_is_refused(model: Model, operator: str, other: str) -> None:
    graph = onnx.load_model_from_string(model.loaded.read(model.generation.step))
    next(node for node in graph.graph.node if node.op_type == operator).op_type = other
    with pytest.raises(ParityError, match="training step answers differently from torch at batch 5"):
        check_step(open_session(graph.SerializeToString(), "a wrong step"))
