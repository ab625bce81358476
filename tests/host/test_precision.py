from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from host_samples import Recordings, project_text, write_project
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.bundle.transfer import opened
from edge_cmcl.data import open_pairs
from edge_cmcl.device.encoders import NO_BLOB, GraphEncoder, UniversalEncoder
from edge_cmcl.device.evaluate import evaluate, overall
from edge_cmcl.device.features import unit
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.runtime import PRECISIONS, runtime_of
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.sessions import open_session
from edge_cmcl.device.store import install, open_store
from edge_cmcl.errors import ModelError, ParityError, UsageError
from edge_cmcl.host import precision as room
from edge_cmcl.host import prepared, quantise
from edge_cmcl.host.baking import baked_universal
from edge_cmcl.host.export import export
from edge_cmcl.host.graphs import universal_graph
from edge_cmcl.host.precision import at_precision, chosen_precisions, export_id
from edge_cmcl.host.run import PROJECT_FOLDER, Run
from edge_cmcl.host.train import train

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Bundles:
    """Bundles of one run, by precision."""

    run: Run
    paths: dict[str, Path]
    told: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def run(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of vibration (universal) and current (conv)."""
    folder = tmp_path_factory.mktemp("precision")
    text = project_text(
        {"vibration": "universal", "current": "conv"}, [("vibration", "current")],
        width=120, embedding_dim=32, train="epochs = 2",
    )  # fmt: skip
    write_project(folder, text, recordings.train)
    return train(folder, folder / "run", device="cpu")


@pytest.fixture(scope="module")
def quick(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the same two sensors, both with the universal encoder: nothing has to be traced to export it."""
    folder = tmp_path_factory.mktemp("quick")
    encoders = {"vibration": "universal", "current": "universal"}
    text = project_text(encoders, [("vibration", "current")], width=120, embedding_dim=32, train="epochs = 2")
    write_project(folder, text, recordings.train)
    return train(folder, folder / "run", device="cpu")


@pytest.fixture(scope="module")
def bundles(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    folder = tmp_path_factory.mktemp("bundles")
    paths, told = {}, {}
    with pytest.MonkeyPatch.context() as patch:  # one trace of the same module is enough
        patch.setattr(prepared, "encoder_graph", cache(prepared.encoder_graph))
        for precision in PRECISIONS:
            new, encoders = at_precision(run, chosen_precisions(run, [precision]), max_loss=100.0)
            paths[precision] = folder / f"{precision}.tar"
            told[precision] = export(new, paths[precision], encoders=encoders)
    return Bundles(run, paths, told)


def record_of(**more: Any) -> ModalityRecord:
    return ModalityRecord(encoder="universal", encoder_blob=NO_BLOB, adapter_blob=NO_BLOB, **more)


@pytest.mark.parametrize(
    ("shape", "record"),
    [
        ((40, 3), record_of(kind="series", channels=3, width=120)),
        ((20, 2), record_of(kind="series", channels=2, width=120, scale=5.0)),
        ((40, 13, 27), record_of(kind="frames", frame=(13, 27), width=60)),
        ((40, 4, 5), record_of(kind="frames", frame=(4, 5), width=60)),
    ],
)
def test_baked_kernels_answer_as_the_shared_graph_does(shape: tuple[int, ...], record: ModalityRecord) -> None:
    windows = record.scale * np.random.default_rng(0).standard_normal((5, *shape)).astype(np.float32)
    graph = open_session(baked_universal("mine", record, shape[0]), "mine")
    found = GraphEncoder(graph, "mine", record.model_copy(update={"encoder": "onnx"}))(windows)
    wanted = UniversalEncoder(open_session(universal_graph(), "universal"), "mine", record)(windows)
    flips = np.isclose(np.abs(found - wanted) * shape[0], 1.0, atol=0.01)  # of an output within rounding of zero
    assert flips.mean() < 1e-3
    np.testing.assert_allclose(np.where(flips, wanted, found), wanted, atol=1e-4)


def test_every_precision_keeps_its_word(bundles: Bundles) -> None:
    sizes = {}
    for precision, path in bundles.paths.items():
        with opened(path) as loaded:
            for name in ("vibration", "current"):
                record = loaded.generation.modalities[name]
                runtime = runtime_of(record)
                assert (runtime.precision, runtime.target) == (precision, "cpu")
                assert runtime.source == {"vibration": "universal", "current": "conv"}[name]
                sizes[name, precision] = len(loaded.read(str(record.encoder_blob)))
            types = {value.data_type for value in _weights(loaded.read(str(record.encoder_blob)))}
            wanted = {"fp32": 1, "fp16": 10, "int8": 3, "int8-dynamic": 3}[precision]
            assert wanted in types
            assert (1 in types) == (precision == "fp32")
    for precision in ("fp16", "int8", "int8-dynamic"):
        assert sizes["current", precision] < 0.6 * sizes["current", "fp32"]


def _weights(graph: bytes) -> list[onnx.TensorProto]:
    return [value for value in onnx.load_model_from_string(graph).graph.initializer if len(value.dims) >= 3]


def test_static_int8_is_qdq_per_channel_and_calibrated(bundles: Bundles) -> None:
    with opened(bundles.paths["int8"]) as loaded:
        record = loaded.generation.modalities["current"]
        graph = onnx.load_model_from_string(loaded.read(str(record.encoder_blob))).graph
    kinds = [node.op_type for node in graph.node]
    assert "QuantizeLinear" in kinds
    assert "DynamicQuantizeLinear" not in kinds
    scales = {value.name: value for value in graph.initializer}
    sizes = [max(scales[node.input[1]].dims, default=1) for node in graph.node if node.op_type == "DequantizeLinear"]
    assert max(sizes) > 1


def test_a_reduced_bundle_is_as_good_on_another_day(bundles: Bundles, recordings: Recordings) -> None:
    found = {}
    with open_pairs(recordings.test) as test:
        for precision, path in bundles.paths.items():
            with opened(path) as loaded:
                found[precision] = overall(evaluate(Model(loaded), test))["recall_at_10"]
    assert found["fp32"] > 0.3
    for precision in ("fp16", "int8", "int8-dynamic"):
        assert found[precision] > found["fp32"] - 0.1, found


def test_golden_vectors_are_those_of_the_precision(bundles: Bundles) -> None:
    for path in bundles.paths.values():
        with opened(path) as loaded:
            self_test(Model(loaded))


def test_adapters_and_sketches_are_fitted_to_the_features_that_ship(bundles: Bundles, recordings: Recordings) -> None:
    with (
        opened(bundles.paths["int8"]) as reduced,
        opened(bundles.paths["fp32"]) as exact,
        open_pairs(recordings.train) as pairs,
    ):
        model, other = Model(reduced), Model(exact)
        windows = pairs.read("current")
        raw = model.encoder("current")(windows)
        adapter = model.adapter("current")
        assert adapter.mean is not None
        np.testing.assert_allclose(raw.mean(axis=0), adapter.mean, atol=1e-3)
        assert not np.allclose(other.adapter("current").mean, adapter.mean, atol=1e-5)
        (mine,), (theirs,) = model.origins("current"), other.origins("current")
        assert mine.id != theirs.id
        assert mine.id.startswith(theirs.id)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_device_learns_a_sensor_beside_a_reduced_encoder(
    bundles: Bundles, recordings: Recordings, tmp_path: Path, precision: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        install(bundles.paths[precision], tmp_path / "store", allow_unsigned=True)
        store = open_store(tmp_path / "store")
        with open_pairs(recordings.test) as pairs:
            report = update(store, pairs, "pressure", partners=["vibration", "current"], force=True)
    assert report.committed
    model = Model(store.load("current"))
    assert runtime_of(model.record("vibration")).precision == precision
    assert runtime_of(model.record("pressure")).precision == "fp32"
    self_test(model)


def test_the_gate_refuses_a_quantisation_that_loses_too_much(quick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One calibrated on windows a thousand times too small: everything real is beyond its range."""
    real = quantise._static

    def spoilt(source: Path, target: Path, windows: Array, kept: list[str]) -> None:
        real(source, target, 1e-3 * windows, kept)

    monkeypatch.setattr(quantise, "_static", spoilt)
    with pytest.raises(ParityError, match=r"costs vibration-current .* points of R@10") as caught:
        at_precision(quick, chosen_precisions(quick, ["int8"]))
    assert caught.value.exit_code == 4
    assert "at most 0.5" in caught.value.expected
    assert "in fp32" in caught.value.got


def test_what_the_gate_allows_is_the_callers_choice(quick: Run) -> None:
    rows: list[dict[str, Any]] = [
        {"pair": "a-b", "measure": "recall_at_10", "rows": 50, "fp32": 80.0, "now": 79.0, "lost": 1.0},
        {"pair": "a-text", "measure": "accuracy", "rows": 50, "fp32": 80.0, "now": 78.5, "lost": 1.5},
    ]
    room._check(rows, 1.5)
    with pytest.raises(ParityError, match=r"costs a-text 1\.50 points of accuracy") as caught:
        room._check(rows, 1.2)
    assert "a-b" not in caught.value.got
    with pytest.raises(ParityError):
        room._check([{**rows[0], "lost": float("nan")}], 100.0)


def test_features_that_are_no_numbers_count_as_a_total_loss(quick: Run) -> None:
    (row,) = room.compared(quick, _pairs(quick), [{"rows": 50, "recall_at_10": float("nan")}])
    assert row["now"] == 0.0
    assert row["lost"] == row["fp32"] > 0


def _pairs(run: Run) -> Any:
    return room._pairs(run, None)


@pytest.mark.parametrize("wanted", [["int4"], ["acoustic=int8"], ["=fp16x"], ["vibration="]])
def test_what_names_no_precision_of_the_run_is_refused(quick: Run, wanted: list[str]) -> None:
    with pytest.raises(UsageError):
        chosen_precisions(quick, wanted)


def test_precisions_are_chosen_for_all_or_for_one(quick: Run) -> None:
    assert chosen_precisions(quick, []) == {"current": "fp32", "vibration": "fp32"}
    assert chosen_precisions(quick, ["int8", "vibration=fp16"]) == {"current": "int8", "vibration": "fp16"}
    ids = {export_id(quick, chosen_precisions(quick, w)) for w in (["fp32"], ["int8"], ["fp16"], ["current=int8"])}
    assert len(ids) == 4
    assert quick.run_id in ids


def moved(run: Run) -> Run:
    return replace(run, folder=Path("/far/away/run"), metrics={**run.metrics, PROJECT_FOLDER: "/nowhere"})


def older(run: Run) -> Run:
    kept = {name: value for name, value in run.metrics.items() if name != PROJECT_FOLDER}
    return replace(run, folder=Path("/far/away/run"), metrics=kept)


@pytest.mark.parametrize("changed", [moved, older])
def test_without_the_data_there_is_no_reduced_precision(quick: Run, changed: Callable[[Run], Run]) -> None:
    with pytest.raises(ModelError, match="needed for a reduced precision"):
        at_precision(changed(quick), chosen_precisions(quick, ["fp16"]))
    at_precision(
        changed(quick), chosen_precisions(quick, ["fp16"]), max_loss=100.0, project=Path(quick.metrics[PROJECT_FOLDER])
    )


def test_other_data_than_the_run_saw_are_refused(quick: Run, recordings: Recordings, tmp_path: Path) -> None:
    text = (quick.folder / "edge-cmcl.toml").read_text().replace("epochs = 2", "epochs = 3")
    folder = write_project(tmp_path / "other", text, recordings.train)
    with pytest.raises(ModelError, match="is not what"):
        at_precision(quick, chosen_precisions(quick, ["fp16"]), project=folder)


def test_no_path_of_the_host_is_in_a_bundle(bundles: Bundles) -> None:
    folder = str(bundles.run.metrics[PROJECT_FOLDER])
    for path in bundles.paths.values():
        with opened(path) as loaded:
            assert folder not in loaded.generation.model_dump_json()


def test_a_target_of_tensorrt_takes_the_kernels_into_the_graph(quick: Run, tmp_path: Path) -> None:
    new, encoders = at_precision(quick, chosen_precisions(quick, []), "tensorrt")
    export(new, tmp_path / "trt.tar", encoders=encoders)
    with opened(tmp_path / "trt.tar") as loaded:
        record = loaded.generation.modalities["vibration"]
        assert (record.encoder, runtime_of(record).source, runtime_of(record).target) == (
            "onnx", "universal", "tensorrt",
        )  # fmt: skip


def test_int8_embeddings_are_close_to_those_of_float32(bundles: Bundles, recordings: Recordings) -> None:
    with open_pairs(recordings.test) as pairs:
        windows = pairs.read("current")
    features = {}
    for precision, path in bundles.paths.items():
        with opened(path) as loaded:
            features[precision] = unit(Model(loaded).features("current", windows))
    for precision, least in (("fp16", 0.99), ("int8", 0.9), ("int8-dynamic", 0.9)):
        assert (features[precision] * features["fp32"]).sum(axis=1).mean() > least
