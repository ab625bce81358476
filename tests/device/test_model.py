from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.contents import read_golden
from edge_cmcl.bundle.payloads import Adapter, adapter_to_bytes
from edge_cmcl.data import open_pairs
from edge_cmcl.data.machine import STATES
from edge_cmcl.device.features import CLIP
from edge_cmcl.device.golden import TOLERANCE
from edge_cmcl.device.model import Model, fuse, statistics_of
from edge_cmcl.device.store import CURRENT
from edge_cmcl.errors import FormatError, ModelError


@pytest.fixture
def model(taught: Store) -> Model:
    return Model(taught.load(CURRENT), threads=1)


@pytest.mark.parametrize("modality", ["acoustic", "current", "vibration"])
def test_every_sensor_embeds_its_golden_windows_as_it_should(model: Model, modality: str) -> None:
    golden = read_golden(model.loaded, modality)
    assert golden is not None
    found = model.embed(modality, golden.inputs["windows"].astype(np.float32))
    np.testing.assert_allclose(found, golden.outputs["embeddings"], atol=TOLERANCE)


def test_an_embedding_is_the_adapter_on_standardised_clipped_unit_features(model: Model, machine: Machine) -> None:
    with open_pairs(machine.test) as pairs:
        windows = pairs.read("vibration", 0, 9)
    adapter = model.adapter("vibration")
    assert adapter.mean is not None
    assert adapter.std is not None
    scores = np.clip((model.encoder("vibration")(windows).astype(np.float64) - adapter.mean) / adapter.std, -CLIP, CLIP)
    features = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    embeddings = features @ adapter.weight.T.astype(np.float64)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(model.embed("vibration", windows), embeddings, atol=1e-5)
    np.testing.assert_allclose(model.embed("vibration", windows[3:4]), embeddings[3:4], atol=1e-5)


def test_label_names_embed_to_unit_rows_near_their_windows(model: Model, machine: Machine) -> None:
    assert model.labels.names == STATES
    labels = model.embed_labels()
    np.testing.assert_allclose(np.linalg.norm(labels, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(model.embed_labels(model.labels.names[2:4]), labels[2:4], atol=1e-5)
    with open_pairs(machine.new) as pairs:
        assert pairs.labels is not None
        similarity = model.embed("acoustic", pairs.read("acoustic")) @ labels.T
        assert (similarity.argmax(axis=1) == pairs.labels).mean() > 0.5


def test_what_was_not_learned_is_named_with_how_to_learn_it(model: Model, store: Store) -> None:
    with pytest.raises(ModelError, match="'pressure'") as unknown:
        model.embed("pressure", np.zeros((1, 160, 1), np.float32))
    assert unknown.value.hint == "`edge-cmcl update --modality pressure` teaches it"
    with pytest.raises(ModelError, match="no labels have been learned"):
        Model(store.load(CURRENT)).embed_labels()
    with pytest.raises(ModelError, match="text has no encoder"):
        model.encoder("text")


def test_text_features_are_left_as_they_are() -> None:
    statistics = statistics_of(Adapter(np.ones((2, 5), np.float32)))
    assert (statistics.mean == 0).all()
    assert (statistics.std == 1).all()


@given(valid=hnp.arrays(np.bool_, st.tuples(st.just(3), st.integers(1, 6))))
def test_a_joint_embedding_is_the_normalised_mean_of_the_sensors_present(valid: np.ndarray) -> None:
    n = valid.shape[1]
    drawn = np.random.default_rng(n).normal(size=(3, n, 4))
    rows = (drawn / np.linalg.norm(drawn, axis=2, keepdims=True)).astype(np.float32)
    names = ("a", "b", "c")
    fused, present = fuse(dict(zip(names, rows, strict=True)), dict(zip(names, valid, strict=True)))
    assert fused.dtype == np.float32
    np.testing.assert_array_equal(present, valid.any(axis=0))
    for moment in range(n):
        mean = rows[valid[:, moment], moment].sum(axis=0)
        expected = mean / np.linalg.norm(mean) if present[moment] else np.zeros(4)
        np.testing.assert_allclose(fused[moment], expected, atol=1e-5)


@pytest.mark.parametrize("what", ["adapter", "older adapter", "sketch"])
def test_a_blob_that_does_not_fit_its_generation_is_an_integrity_error_wherever_it_is_read(
    taught_copy: Store, what: str
) -> None:
    """Each digest is right: a wrong writer's work, or a forger's."""
    with taught_copy.writer():
        loaded = taught_copy.load(CURRENT)
        record = loaded.generation.modalities["vibration"]
        wrong = taught_copy.put(adapter_to_bytes(Adapter(*(np.ones(s, np.float32) for s in ((256, 9), (9,), (9,))))))
        update = {
            "adapter": {"adapter_blob": wrong},
            "older adapter": {"references": (wrong,)},
            "sketch": {"origins": loaded.generation.modalities["acoustic"].origins},
        }[what]
        modalities = {**loaded.generation.modalities, "vibration": record.model_copy(update=update)}
        digest = taught_copy.commit(loaded.generation.model_copy(update={"modalities": modalities}), [])
    model = Model(taught_copy.load(digest))
    read: Callable[[], object] = {
        "adapter": lambda: model.embed("vibration", np.zeros((1, 256, 3), np.float32)),
        "older adapter": lambda: model.reference(wrong),
        "sketch": lambda: model.origins("vibration"),
    }[what]
    with pytest.raises(FormatError, match="does not fit the generation") as caught:
        read()
    assert caught.value.exit_code == 4
