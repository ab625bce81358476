from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine_bundle import Machine

from edge_cmcl import tensors
from edge_cmcl.bundle import Store
from edge_cmcl.data import Pairs, open_pairs, write_pairs
from edge_cmcl.device.fits import FitWarning
from edge_cmcl.device.model import Model, fuse
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.use import classify, joint_embeddings, retrieve, write_joint
from edge_cmcl.errors import DataError, ModelError, UsageError


@pytest.fixture
def model(taught: Store) -> Model:
    return Model(taught.load(CURRENT), threads=1)


@pytest.fixture
def test_day(machine: Machine) -> Iterator[Pairs]:
    with open_pairs(machine.test) as pairs:
        yield pairs


@pytest.fixture
def gappy_day(test_day: Pairs, tmp_path: Path) -> Iterator[Pairs]:
    """Row 0 lacks acoustic, row 1 lacks vibration, row 2 lacks both."""
    row = np.arange(test_day.n)
    valid = {"acoustic": ~np.isin(row, (0, 2)), "vibration": ~np.isin(row, (1, 2))}
    windows = {name: test_day.read(name) for name in valid}
    write_pairs(tmp_path / "gappy.safetensors", windows, valid=valid)
    with open_pairs(tmp_path / "gappy.safetensors") as pairs:
        yield pairs


def test_by_default_every_known_sensor_is_fused(model: Model, test_day: Pairs) -> None:
    assert set(test_day.modalities) > {"acoustic", "current", "vibration"}
    joint = joint_embeddings(model, test_day)
    assert joint.modalities == ("acoustic", "current", "vibration")
    assert (joint.sensors == 3).all()
    np.testing.assert_allclose(np.linalg.norm(joint.embeddings, axis=1), 1.0, atol=1e-5)


def test_moments_use_the_sensors_that_were_recorded(model: Model, gappy_day: Pairs) -> None:
    joint = joint_embeddings(model, gappy_day)
    assert joint.sensors[:4].tolist() == [1, 1, 0, 2]
    assert joint.present[:4].tolist() == [True, True, False, True]
    assert not joint.embeddings[2].any()
    alone = {name: model.embed(name, gappy_day.read(name, 0, 4)) for name in joint.modalities}
    np.testing.assert_allclose(joint.embeddings[0], alone["vibration"][0], atol=1e-5)
    np.testing.assert_allclose(joint.embeddings[1], alone["acoustic"][1], atol=1e-5)
    both, _ = fuse(alone, {name: np.ones(4, np.bool_) for name in alone})
    np.testing.assert_allclose(joint.embeddings[3], both[3], atol=1e-5)


def test_a_sensor_named_twice_counts_once(model: Model, test_day: Pairs) -> None:
    joint = joint_embeddings(model, test_day, ["vibration", "vibration"])
    assert joint.modalities == ("vibration",)
    assert (joint.sensors == 1).all()


def test_a_sensor_that_is_not_there_or_not_known_is_refused(model: Model, test_day: Pairs, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no windows of thermal"):
        joint_embeddings(model, test_day, ["thermal"])
    with pytest.raises(ModelError, match="has not learned 'pressure'"):
        joint_embeddings(model, test_day, ["pressure"])
    write_pairs(tmp_path / "other.safetensors", {"pressure": test_day.read("pressure")})
    with open_pairs(tmp_path / "other.safetensors") as other, pytest.raises(DataError, match="a known modality") as no:
        joint_embeddings(model, other)
    assert "text" not in no.value.expected
    with pytest.raises(DataError) as no:
        joint_embeddings(model, test_day, ["vibratoin"])
    assert no.value.hint == "did you mean vibration?"


def test_classify_names_the_nearest_label_and_its_margin(model: Model, test_day: Pairs) -> None:
    found = classify(model, test_day, ["acoustic"])
    similarity = model.embed("acoustic", test_day.read("acoustic")) @ model.embed_labels().T
    np.testing.assert_array_equal(found.labels, similarity.argmax(axis=1))
    np.testing.assert_allclose(found.similarity, similarity.max(axis=1), atol=1e-5)
    ordered = np.sort(similarity, axis=1)
    np.testing.assert_allclose(found.margin, ordered[:, -1] - ordered[:, -2], atol=1e-5)
    assert test_day.labels is not None
    assert found.accuracy == (found.labels == test_day.labels).mean()


def test_classify_chooses_among_the_labels_asked_for(model: Model, test_day: Pairs) -> None:
    found = classify(model, test_day, ["acoustic"], ["looseness", "cavitation"])
    assert found.names == ("looseness", "cavitation")
    assert set(found.labels) <= {0, 1}
    assert test_day.labels is not None
    names = np.array(test_day.label_names)[test_day.labels]
    judged = np.isin(names, found.names)
    assert found.accuracy == (names[judged] == np.array(found.names)[found.labels[judged]]).mean()
    assert found.scored == judged.sum() < test_day.n
    with pytest.raises(UsageError, match="nothing to choose from"):
        classify(model, test_day, labels=["looseness"])


def test_a_label_that_was_never_learned_is_refused_with_the_nearest_one(model: Model, test_day: Pairs) -> None:
    with pytest.raises(UsageError, match="'loosness' was never learned") as refused:
        classify(model, test_day, ["acoustic"], ["cavitation", "loosness"])
    assert refused.value.hint == "did you mean looseness?"
    with pytest.raises(UsageError, match="never learned") as refused:
        classify(model, test_day, labels=["xyz", "cavitation"])
    assert "--with text" in refused.value.hint


def test_the_summary_of_each_label_adds_up(model: Model, gappy_day: Pairs, test_day: Pairs) -> None:
    found = classify(model, test_day, ["acoustic"])
    summary = found.per_label()
    assert test_day.labels is not None
    assert [each["label"] for each in summary] == list(found.names)
    assert sum(each["rows"] for each in summary) == sum(each["true"] for each in summary) == test_day.n == found.scored
    assert sum(each["right"] for each in summary) / test_day.n == found.accuracy
    assert [each["true"] for each in summary] == np.bincount(test_day.labels).tolist()
    unlabelled = classify(model, gappy_day)
    assert sum(each["rows"] for each in unlabelled.per_label()) == gappy_day.n - 1
    assert unlabelled.scored == 0


def test_another_unit_is_refused_and_another_rate_or_window_warned_of(
    model: Model, test_day: Pairs, tmp_path: Path
) -> None:
    windows = {"acoustic": test_day.read("acoustic", 0, 20)}

    def written(**metadata: Any) -> Path:
        write_pairs(tmp_path / "other.safetensors", windows, **metadata)
        return tmp_path / "other.safetensors"

    learned = model.record("acoustic")
    assert (learned.unit, learned.rate_hz, learned.window_s) == ("Pa", 128.0, 2.0)
    with open_pairs(written(units={"acoustic": "mbar"})) as pairs, pytest.raises(DataError, match="unit") as refused:
        joint_embeddings(model, pairs)
    assert (refused.value.expected, refused.value.got) == ("Pa", "mbar")
    assert "[Pa]" in refused.value.hint
    with open_pairs(written(rate_hz={"acoustic": 64.0})) as pairs, pytest.warns(FitWarning) as warned:
        joint_embeddings(model, pairs)
    texts = [str(warning.message) for warning in warned]
    assert len(texts) == 2
    assert "a rate of 64 Hz, acoustic of 128 Hz" in texts[0]
    assert "windows of 4 s, acoustic of 2 s" in texts[1]
    with open_pairs(written(rate_hz={"acoustic": 120.0}, units={"acoustic": " Pa"})) as pairs:
        joint_embeddings(model, pairs)
    with open_pairs(written()) as pairs:
        joint_embeddings(model, pairs)


def test_a_moment_without_a_sensor_gets_no_label(model: Model, gappy_day: Pairs) -> None:
    found = classify(model, gappy_day)
    assert found.labels[2] == -1
    assert (np.delete(found.labels, 2) >= 0).all()
    assert found.accuracy is None


def test_retrieve_finds_a_moment_first_by_itself_and_never_one_that_was_not_recorded(
    model: Model, gappy_day: Pairs
) -> None:
    joint = joint_embeddings(model, gappy_day)
    first, second = retrieve(joint, joint, [5, 0], top=4)
    assert (first.query, first.rows[0], second.query, second.rows[0]) == (5, 5, 0, 0)
    assert first.similarity[0] == pytest.approx(1.0, abs=1e-5)
    assert list(first.similarity) == sorted(first.similarity, reverse=True)
    (everything,) = retrieve(joint, joint, [5], top=1000)
    assert sorted(everything.rows) == [row for row in range(gappy_day.n) if row != 2]


@pytest.mark.parametrize("row", [-1, 2, 120])
def test_a_query_must_be_a_recorded_row(model: Model, gappy_day: Pairs, row: int) -> None:
    joint = joint_embeddings(model, gappy_day)
    with pytest.raises(UsageError, match=f"row {row} cannot be a query"):
        retrieve(joint, joint, [row], top=1)


def test_written_embeddings_say_what_made_them(model: Model, gappy_day: Pairs, tmp_path: Path) -> None:
    joint = joint_embeddings(model, gappy_day)
    write_joint(tmp_path / "out.safetensors", joint, model)
    with tensors.TensorFile(tmp_path / "out.safetensors") as file:
        np.testing.assert_array_equal(file.read_whole("embeddings"), joint.embeddings)
        np.testing.assert_array_equal(file.read_whole("present").astype(bool), joint.present)
        assert file.metadata["generation"] == model.loaded.digest
        assert file.metadata["modalities"] == '["acoustic", "vibration"]'
