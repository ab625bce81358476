from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.continual.metrics import retrieval
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.evaluate import MAX_GALLERY, PairMetrics, evaluate, overall
from edge_cmcl.device.model import Model
from edge_cmcl.device.store import CURRENT
from edge_cmcl.errors import DataError


@pytest.fixture
def model(taught: Store) -> Model:
    return Model(taught.load(CURRENT), threads=1)


def test_every_pair_known_and_every_sensor_against_the_labels_is_measured(model: Model, machine: Machine) -> None:
    with open_pairs(machine.test) as pairs:
        found = {each.modalities: each for each in evaluate(model, pairs)}
        embeddings = [model.embed(name, pairs.read(name)) for name in ("acoustic", "vibration")]
    sensors = ("acoustic", "current", "vibration")
    assert set(found) == {
        ("acoustic", "current"),
        ("acoustic", "vibration"),
        ("current", "vibration"),
        *((name, "text") for name in sensors),
    }
    expected = retrieval(*embeddings)
    assert found["acoustic", "vibration"].metrics == pytest.approx(expected, abs=0.02)
    assert found["acoustic", "vibration"].metrics["chance_recall_at_10"] == 10 / 120
    assert found["acoustic", "text"].metrics["chance_accuracy"] == 1 / 6
    assert not any(each.thinned for each in found.values())


def test_only_rows_with_both_sensors_and_a_label_count(model: Model, machine: Machine, tmp_path: Path) -> None:
    with open_pairs(machine.test) as pairs:
        assert pairs.labels is not None
        row = np.arange(pairs.n)
        write_pairs(
            tmp_path / "some.safetensors",
            {name: pairs.read(name) for name in ("acoustic", "vibration")},
            valid={"acoustic": row % 2 == 0, "vibration": row % 3 == 0},
            labels=np.where(row < 60, pairs.labels, -1),
            label_names=pairs.label_names,
        )
    with open_pairs(tmp_path / "some.safetensors") as pairs:
        counts = {each.modalities: each.metrics["n"] for each in evaluate(model, pairs)}
    assert counts == {("acoustic", "vibration"): 20, ("acoustic", "text"): 30, ("vibration", "text"): 20}


def test_a_large_file_is_thinned_and_says_so(model: Model, machine: Machine, tmp_path: Path) -> None:
    with open_pairs(machine.test) as pairs:
        repeats = -(-(MAX_GALLERY + 1) // pairs.n)
        windows = {name: np.tile(pairs.read(name), (repeats, 1, 1)) for name in ("acoustic", "vibration")}
    write_pairs(tmp_path / "large.safetensors", windows)
    with open_pairs(tmp_path / "large.safetensors") as pairs:
        (found,) = evaluate(model, pairs)
    assert found.thinned
    assert found.metrics["n"] == MAX_GALLERY


def test_a_file_without_a_known_pair_is_refused(model: Model, machine: Machine, tmp_path: Path) -> None:
    with open_pairs(machine.test) as pairs:
        write_pairs(tmp_path / "one.safetensors", {name: pairs.read(name) for name in ("acoustic", "pressure")})
    with open_pairs(tmp_path / "one.safetensors") as pairs, pytest.raises(DataError, match="has no pair that"):
        evaluate(model, pairs)


def test_overall_means_are_over_the_pairs_that_have_the_metric() -> None:
    found = [
        PairMetrics("f", ("a", "b"), {"mrr": 0.25, "recall_at_10": 0.5}, False),
        PairMetrics("f", ("a", "c"), {"mrr": 0.75, "recall_at_10": 0.0}, False),
        PairMetrics("f", ("a", "text"), {"accuracy": 0.9}, False),
    ]
    assert overall(found) == {"recall_at_10": 0.25, "mrr": 0.5, "accuracy": 0.9}
