from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from host_samples import ONNX_WIDTH, Recordings
from machine_bundle import Machine

from edge_cmcl.bundle.payloads import golden_from_bytes
from edge_cmcl.bundle.transfer import opened
from edge_cmcl.data import open_pairs
from edge_cmcl.device.evaluate import evaluate
from edge_cmcl.device.golden import TOLERANCE as GOLDEN_TOLERANCE
from edge_cmcl.device.model import Model
from edge_cmcl.errors import ParityError, UsageError
from edge_cmcl.host import parity
from edge_cmcl.host.export import KEPT_EPOCHS, export, exported_model, thinned
from edge_cmcl.host.run import Run
from edge_cmcl.version import SOFTWARE


@dataclass(frozen=True)
class Bundle:
    """The small run's bundle and what `export` said of it."""

    folder: Path
    told: dict[str, Any]


@pytest.fixture(scope="module")
def bundle(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "small"
    return Bundle(folder, export(small_run, folder))


@pytest.fixture
def model(bundle: Bundle) -> Iterator[Model]:
    with opened(bundle.folder) as loaded:
        yield Model(loaded)


def test_a_bundle_is_a_folder_or_a_tar_with_the_same_generation(small_run: Run, bundle: Bundle, tmp_path: Path) -> None:
    told = export(small_run, tmp_path / "small.tar")
    assert told["digest"] == bundle.told["digest"]
    assert (told["bytes"], told["modalities"]) == (bundle.told["bytes"], ["pressure", "text", "vibration"])
    with tarfile.open(tmp_path / "small.tar") as tar:
        in_tar = {member.name.removeprefix("./") for member in tar.getmembers() if member.isfile()}
    in_folder = {str(path.relative_to(bundle.folder)) for path in bundle.folder.rglob("*") if path.is_file()}
    assert in_tar == in_folder
    with opened(tmp_path / "small.tar") as loaded:
        assert loaded.digest == told["digest"]


def test_something_else_at_the_place_of_the_bundle_is_left_alone(small_run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError):
        export(small_run, tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_parity_is_told_for_every_graph(bundle: Bundle) -> None:
    assert bundle.told["parity"].keys() == {"step", "vibration", "pressure"}
    assert all(0 <= difference <= 1e-4 for difference in bundle.told["parity"].values())


@pytest.fixture
def graphs(model: Model, machine: Machine) -> dict[str, onnx.ModelProto]:
    """Every graph that is exported from torch, by its role."""
    with opened(machine.bundle) as loaded:
        conv = Model(loaded).record("current").encoder_blob
        assert conv is not None
        blobs = {
            "universal encoder": model.loaded.read(model.generation.universal),
            "training step": model.loaded.read(model.generation.step),
            "encoder": loaded.read(conv),
        }
    return {role: onnx.load_model_from_string(blob) for role, blob in blobs.items()}


def test_graphs_are_readable_by_onnxruntime_1_20_and_self_contained(graphs: dict[str, onnx.ModelProto]) -> None:
    for graph in graphs.values():
        onnx.checker.check_model(graph, full_check=True)
        assert graph.ir_version <= 10
        assert {used.domain: used.version for used in graph.opset_import} == {"": 18}
        assert not any(tensor.external_data for tensor in graph.graph.initializer)


def test_graphs_say_what_they_are_and_who_made_them(graphs: dict[str, onnx.ModelProto]) -> None:
    for role, graph in graphs.items():
        properties = {entry.key: entry.value for entry in graph.metadata_props}
        assert properties["role"] == role
        assert f"{graph.producer_name} {graph.producer_version}" == SOFTWARE
    assert {e.key: e.value for e in graphs["encoder"].metadata_props}["modality"] == "current"
    assert {e.key: e.value for e in graphs["universal encoder"].metadata_props}["recipe"] == "1"


def test_graphs_hold_no_path_of_this_machine(graphs: dict[str, onnx.ModelProto]) -> None:
    for graph in graphs.values():
        assert b"/edge_cmcl/" not in graph.SerializeToString()


def test_batch_and_length_are_free(graphs: dict[str, onnx.ModelProto]) -> None:
    for role in ("universal encoder", "encoder"):
        shape = graphs[role].graph.input[0].type.tensor_type.shape.dim
        assert [bool(size.dim_param) for size in shape[:2]] == [True, True]


def test_the_generation_says_what_was_learned(small_run: Run, model: Model) -> None:
    generation = model.generation
    assert (generation.counter, generation.action, generation.created) == (1, "export", small_run.created)
    assert {name: record.encoder for name, record in generation.modalities.items()} == {
        "vibration": "universal",
        "pressure": "onnx",
        "text": "text",
    }
    assert generation.modalities["pressure"].width == ONNX_WIDTH
    assert [(pair.modalities, pair.n) for pair in generation.pairs] == [
        (("vibration", "pressure"), 240),
        (("vibration", "text"), 240),
    ]
    (origin,) = model.origins("vibration")
    assert origin.id == f"base:{small_run.run_id}"
    assert origin.partners == ("pressure", "text")
    assert origin.reference == generation.modalities["vibration"].adapter_blob
    assert origin.sketch.n == 480
    assert model.labels.names == small_run.labels


def test_the_users_encoder_is_carried_byte_for_byte(small_run: Run, model: Model) -> None:
    blob = model.record("pressure").encoder_blob
    assert blob is not None
    assert model.loaded.read(blob) == small_run.encoder_file("pressure").read_bytes()


def test_golden_vectors_are_what_the_device_computes(model: Model) -> None:
    for name in ("vibration", "pressure"):
        blob = model.record(name).golden_blob
        assert blob is not None
        golden = golden_from_bytes(model.loaded.read(blob))
        found = model.embed(name, np.asarray(golden.inputs["windows"], np.float32))
        assert np.abs(found - golden.outputs["embeddings"]).max() <= GOLDEN_TOLERANCE


def test_a_run_is_evaluated_as_its_bundle_is(small_run: Run, model: Model, recordings: Recordings) -> None:
    with open_pairs(recordings.test) as test, exported_model(small_run.folder) as of_run:
        assert of_run.loaded.digest == model.loaded.digest
        found = [metrics.as_json() for metrics in evaluate(of_run, test)]
        assert found == [metrics.as_json() for metrics in evaluate(model, test)]
    assert {tuple(metrics["modalities"]) for metrics in found} == {
        ("pressure", "vibration"),
        ("pressure", "text"),
        ("vibration", "text"),
    }


def test_nothing_is_written_where_a_graph_answers_differently(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = parity.UniversalReference.__call__
    monkeypatch.setattr(parity.UniversalReference, "__call__", lambda self, windows: 1.01 * original(self, windows))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("bundle", "bundle.tar"):
        with pytest.raises(ParityError, match="encoder of vibration"):
            export(small_run, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_long_training_history_is_thinned_to_what_a_bundle_has_room_for(small_run: Run, tmp_path: Path) -> None:
    epochs = [{"epoch": n, "loss": 1 / 3, "validation_mrr": 2 / 3, "validation_loss": 4 / 3} for n in range(5001)]
    history = {"best_epoch": 4321, "epochs": epochs}
    metrics = {**small_run.metrics, "adapters": history, "encoders": history}
    long = replace(small_run, metrics=metrics)
    export(long, tmp_path / "long")
    with opened(tmp_path / "long") as loaded:
        told: Any = loaded.generation.metrics["training"]
    for name in ("adapters", "encoders"):
        kept = [epoch["epoch"] for epoch in told[name]["epochs"]]
        assert kept == sorted(set(kept))
        assert {0, 4321, 5000} <= set(kept)
        assert 100 < len(kept) <= KEPT_EPOCHS + 2
        assert told[name]["best_epoch"] == 4321
    assert thinned(small_run.metrics) == small_run.metrics
