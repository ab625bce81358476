"""The micro model's fit: the kernels of the full model, a head that its sketches give, and what that loses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_cmcl.bundle import Store
from edge_cmcl.continual.origin import Origin
from edge_cmcl.continual.sketch import FrequentDirections
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.encoders import UniversalEncoder
from edge_cmcl.device.features import unit
from edge_cmcl.device.held_out import MIN_PAIRS
from edge_cmcl.device.judgement import kept_pairs
from edge_cmcl.device.learner import update
from edge_cmcl.device.micro import PENALTY, MicroFit, columns_of, fit_micro, fitted_head
from edge_cmcl.device.micro_loss import loss_on_kept, loss_on_pairs, parity
from edge_cmcl.device.model import Model
from edge_cmcl.errors import DataError, ModelError, ParityError, UsageError


@pytest.fixture(scope="module")
def model(taught: Store) -> Model:
    return Model(taught.load("current"))


def embed(model: Model, fit: MicroFit, windows: np.ndarray) -> np.ndarray:
    """Embed through the full encoder's outputs: what the arithmetic of the blob is held to elsewhere."""
    return embed_outputs(fit, model.encoder(fit.modality)(windows)[:, fit.columns])


def embed_outputs(fit: MicroFit, outputs: np.ndarray) -> np.ndarray:
    return unit(np.clip((outputs - fit.mean) / fit.std, -8, 8) @ fit.head.T)


def test_its_features_are_those_of_a_narrower_encoder(model: Model) -> None:
    record = model.record("vibration")
    windows = np.random.default_rng(0).standard_normal((3, 64, 3)).astype(np.float32)
    narrow = UniversalEncoder(model.universal_session, "vibration", replace_width(record, 36))(windows)
    wide = UniversalEncoder(model.universal_session, "vibration", record)(windows)
    by_kernel = narrow.reshape(3, 4, 3, 3).transpose(0, 1, 3, 2).reshape(3, -1)
    assert np.abs(wide[:, columns_of(36, record.width)] - by_kernel).max() < 1e-6


def replace_width(record: object, width: int) -> object:
    return record.model_copy(update={"width": width})  # type: ignore[attr-defined]


def test_the_head_is_the_ridge_regression_onto_the_full_embeddings_that_the_data_would_give() -> None:
    draw = np.random.default_rng(1)
    features = unit((draw.standard_normal((500, 24)) @ draw.standard_normal((24, 24))).astype(np.float32))
    weight = draw.standard_normal((5, 24)).astype(np.float32)
    sketch = FrequentDirections(24)
    sketch.update(features)
    origin = Origin("o", 1, "", "gyro", ("acc",), "", sketch.sketch(kept_energy=1.0), "")
    columns = np.arange(0, 24, 2)
    penalty = PENALTY * len(features) / 24
    x = features[:, columns].astype(np.float64)
    wanted = np.linalg.solve(x.T @ x + penalty * np.eye(12), x.T @ (features @ weight.T)).T
    assert np.abs(fitted_head(weight, (origin,), columns) - wanted).max() < 0.01 * np.abs(wanted).max()


def test_what_the_sketch_does_not_hold_is_spread_evenly() -> None:
    draw = np.random.default_rng(2)
    sketch = FrequentDirections(24)
    sketch.update(unit(draw.standard_normal((500, 24)).astype(np.float32)))
    origin = Origin("o", 1, "", "gyro", ("acc",), "", sketch.sketch(max_rows=6), "")
    rows, trace = origin.sketch.rows.astype(np.float64), origin.sketch.trace
    moment = rows.T @ rows + (trace - np.square(rows).sum()) / 24 * np.eye(24)
    columns = np.array([1, 5, 8])
    weight = draw.standard_normal((4, 24)).astype(np.float32)
    within = moment[np.ix_(columns, columns)] + PENALTY * trace / 24 * np.eye(3)
    wanted = weight @ moment[:, columns] @ np.linalg.inv(within)
    assert np.abs(fitted_head(weight, (origin,), columns) - wanted).max() < 1e-5


def test_it_knows_samples_labels_and_statistics_of_the_generation(model: Model) -> None:
    fit = fit_micro(model, "acoustic", 120)
    assert fit.samples == 256
    assert fit.label_names == model.labels.names
    assert fit.weights.shape == (40, model.record("acoustic").channels, 7)
    assert fit.head.shape == (model.generation.embedding_dim, 120)
    assert np.array_equal(fit.mean, np.asarray(model.adapter("acoustic").mean)[fit.columns])
    assert fit.largest > 1


def test_a_wider_one_is_nearer_to_the_full_model(model: Model, machine: object) -> None:
    with open_pairs(machine.test) as pairs:  # type: ignore[attr-defined]
        windows = pairs.read("acoustic")
    full = model.embed("acoustic", windows)
    near = [
        float(np.einsum("ij,ij->i", embed(model, fit_micro(model, "acoustic", width), windows), full).mean())
        for width in (24, 120, 504)
    ]
    assert near == sorted(near)
    assert near[-1] > 0.8


@pytest.mark.parametrize("width", [0, -12, 13, 1812])
def test_a_width_that_it_cannot_have_is_refused(model: Model, width: int) -> None:
    with pytest.raises(UsageError, match="cannot be that wide"):
        fit_micro(model, "acoustic", width)


@pytest.mark.parametrize("modality", ["current", "text"])
def test_another_encoder_is_refused_with_what_can_be_chosen(model: Model, modality: str) -> None:
    with pytest.raises(UsageError) as raised:
        fit_micro(model, modality)
    assert model.record(modality).encoder in raised.value.got
    assert "acoustic" in raised.value.hint


@pytest.mark.parametrize(
    ("change", "got"), [({"frame": (30, 40), "channels": None}, "frames"), ({"origins": ()}, "none")]
)
def test_frames_and_a_sensor_without_sketches_are_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], got: str
) -> None:
    record = model.record("vibration").model_copy(update=change)
    monkeypatch.setattr(model, "record", lambda modality: record)
    with pytest.raises(UsageError) as raised:
        fit_micro(model, "vibration")
    assert raised.value.got == got


def test_an_unknown_sensor_is_refused(model: Model) -> None:
    with pytest.raises(ModelError):
        fit_micro(model, "sonar")


def test_kernels_that_answer_otherwise_fail_the_parity_check(model: Model) -> None:
    fit = fit_micro(model, "vibration", 60)

    def right(windows: np.ndarray) -> np.ndarray:
        return embed(model, fit, windows)

    same = parity(model, fit, right, lambda outputs: embed_outputs(fit, outputs), lambda windows: -right(windows))
    assert (same.windows, same.kernels, same.cosine) == (4, 0, pytest.approx(-1))
    with pytest.raises(ParityError):
        parity(model, fit, lambda w: right(1.01 * w), lambda outputs: embed_outputs(fit, outputs), right)


def test_the_loss_is_that_of_every_partner_and_of_the_labels(model: Model, machine: object) -> None:
    fit = fit_micro(model, "acoustic", 12)
    with open_pairs(machine.test) as pairs:  # type: ignore[attr-defined]
        found = loss_on_pairs(model, fit, pairs, lambda windows: embed(model, fit, windows))
        same = loss_on_pairs(model, fit, pairs, lambda windows: model.embed("acoustic", windows))
    assert [loss.partner for loss in found] == ["current", "vibration", "text"]
    assert all(loss.full == loss.micro and loss.points == 0 for loss in same)
    assert [loss.full for loss in found] == [loss.full for loss in same]
    assert max(loss.points for loss in found) > 5


def test_windows_of_another_length_are_refused(model: Model, tmp_path: Path) -> None:
    windows = np.random.default_rng(0).standard_normal((20, 64, 3)).astype(np.float32)
    write_pairs(tmp_path / "short.safetensors", {"vibration": windows, "current": windows[:, :, :1]})
    fit = fit_micro(model, "vibration", 60)
    with open_pairs(tmp_path / "short.safetensors") as pairs, pytest.raises(DataError, match="another length"):
        loss_on_pairs(model, fit, pairs, lambda windows: embed(model, fit, windows))


def test_the_loss_on_pairs_kept_back_needs_no_windows(store: Store, machine: object) -> None:
    with open_pairs(machine.new) as pairs:  # type: ignore[attr-defined]
        update(store, pairs, "acoustic", partners=["vibration", "text"], hold_back=0.2)
    model = Model(store.load("current"))
    fit = fit_micro(model, "acoustic", 24)
    found = loss_on_kept(model, fit, kept_pairs(store), lambda outputs: embed_outputs(fit, outputs))
    assert [loss.partner for loss in found] == ["vibration", "text"]
    assert all(loss.n >= MIN_PAIRS for loss in found)
    assert not loss_on_kept(model, replace(fit, modality="current"), kept_pairs(store), lambda outputs: outputs)
