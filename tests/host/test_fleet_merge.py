"""Merging generations of real device stores on the simulated machine; with real sensors, tests/bench/merging.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fleet_devices import Fleet
from machine_bundle import Machine

from edge_cmcl.bundle import Loaded, Store
from edge_cmcl.bundle.contents import check_contents, read_golden
from edge_cmcl.bundle.transfer import export_layout
from edge_cmcl.data import open_pairs
from edge_cmcl.device.features import standard_scores
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.store import CURRENT, install, open_store
from edge_cmcl.errors import RefusedError, UsageError, WrongBaseError
from edge_cmcl.host.fleet import Merged, merge
from edge_cmcl.host.fleet.statistics import check_finite

LABELS = ("fine", "unbalanced", "loose", "worn", "hot", "wet")


@pytest.fixture(scope="module")
def fleet(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """a and b taught acoustic, from recordings and with label names of their own; c temperature; n nothing.

    Read only: a test that teaches more does so on a branch.
    """
    made = Fleet(machine, tmp_path_factory.mktemp("fleet"))
    made.teach("a", "acoustic", ["vibration", "text"], made.recording(11))
    made.teach("b", "acoustic", ["vibration", "text"], made.recording(12, LABELS))
    made.teach("c", "temperature", ["vibration"], made.recording(13))
    made.device("n")
    return made


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.create(tmp_path_factory.mktemp("host") / "store")


@pytest.fixture(scope="module")
def merged(fleet: Fleet, host: Store) -> Merged:
    """a, b and c together."""
    return merge(host, fleet.current("abc"))


@pytest.fixture(scope="module")
def model(host: Store, merged: Merged) -> Model:
    return Model(host.load(merged.digest))


def ids(model: Model, modality: str) -> list[str]:
    return [origin.id for origin in model.origins(modality)]


def test_the_merged_generation_knows_all_sensors_and_names_all_parents(
    fleet: Fleet, merged: Merged, model: Model
) -> None:
    parents = fleet.current("abc")
    generation = model.generation
    assert model.modalities == ("acoustic", "current", "temperature", "text", "vibration")
    assert (generation.action, generation.device_id, generation.base) == ("merge", "", parents[0].base)
    assert generation.parents == merged.parents == tuple(parent.digest for parent in parents)
    assert generation.counter == merged.counter == 1 + max(parent.generation.counter for parent in parents)
    assert {name: one["how"] for name, one in merged.modalities.items()} == {
        "acoustic": "fitted under common statistics",
        "current": "taken as it is",
        "temperature": "taken as it is",
        "text": "fitted",
        "vibration": "fitted",
    }
    assert generation.metrics["merge"] == merged.as_json()["modalities"]
    check_contents(model.loaded)


def test_origins_are_united_and_the_base_counts_once(fleet: Fleet, model: Model) -> None:
    of_devices = [fleet.model(name) for name in "abc"]
    assert ids(model, "vibration") == sorted({name for each in of_devices for name in ids(each, "vibration")})
    assert len(ids(model, "vibration")) == 4
    assert len(ids(model, "acoustic")) == 2
    certified = {(each.modality, each.origin) for each in model.generation.certificate}
    assert certified == {(name, origin) for name in model.modalities for origin in ids(model, name)} - {
        ("current", ids(model, "current")[0])  # of the base, and never moved
    }


def test_what_one_device_alone_knows_is_taken_as_it_is(fleet: Fleet, model: Model) -> None:
    assert model.record("temperature") == fleet.model("c").record("temperature")
    assert model.record("current") == fleet.model("n").record("current")


def test_pairs_and_labels_are_united(fleet: Fleet, model: Model) -> None:
    learned = {(frozenset(pair.modalities), pair.origin) for pair in model.generation.pairs}
    parents = [pair for parent in fleet.current("abc") for pair in parent.generation.pairs]
    assert learned == {(frozenset(pair.modalities), pair.origin) for pair in parents}
    assert len(model.generation.pairs) == len(learned)
    own = fleet.model("a").labels.names
    assert model.labels.names == (*own, *(name for name in LABELS if name not in own))
    assert model.labels.features.shape == (len(model.labels.names), 1024)


def test_a_sensor_of_several_devices_answers_each_nearly_as_its_own_adapter_did(fleet: Fleet, model: Model) -> None:
    means = [statistics_of(fleet.model(name).adapter("acoustic")).mean for name in "ab"]
    assert not np.array_equal(*means)
    for name, other, recording in (("a", "b", fleet.recording(11)), ("b", "a", fleet.recording(12, LABELS))):
        with open_pairs(recording) as pairs:
            windows = pairs.read("acoustic")
        own, after, elsewhere = (
            each.embed("acoustic", windows) for each in (fleet.model(name), model, fleet.model(other))
        )
        near, far = ((own * each).sum(axis=1).mean() for each in (after, elsewhere))
        assert near > 0.9
        assert near > far + 0.01


@pytest.mark.parametrize(("name", "modality"), [("a", "acoustic"), ("b", "acoustic"), ("a", "vibration")])
def test_the_certificate_bounds_the_displacement_really_measured(
    fleet: Fleet, model: Model, name: str, modality: str
) -> None:
    before = fleet.model(name)
    with open_pairs(fleet.recording(11) if name == "a" else fleet.recording(12, LABELS)) as pairs:
        raw = before.encoder(modality)(pairs.read(modality))
    old, new = before.adapter(modality), model.adapter(modality)
    scores = standard_scores(raw.copy(), statistics_of(old))
    lengths = np.linalg.norm(scores, axis=1, keepdims=True)
    moved = (standard_scores(raw.copy(), statistics_of(new)) @ new.weight.T - scores @ old.weight.T) / lengths
    real = float(np.square(moved, dtype=np.float64).sum(axis=1).mean())
    (origin,) = (origin for origin in before.origins(modality) if origin.device)
    (stated,) = (c for c in model.generation.certificate if (c.modality, c.origin) == (modality, origin.id))
    assert 0 < real <= stated.bound


def test_golden_windows_are_those_of_a_parent_and_embed_as_the_merged_adapter_does(fleet: Fleet, model: Model) -> None:
    golden, before = read_golden(model.loaded, "acoustic"), read_golden(fleet.current("a")[0], "acoustic")
    assert golden is not None
    assert before is not None
    windows = golden.inputs["windows"]
    assert np.array_equal(windows, before.inputs["windows"])
    assert np.allclose(golden.outputs["embeddings"], model.embed("acoustic", windows), atol=1e-5)
    assert not np.allclose(golden.outputs["embeddings"], before.outputs["embeddings"], atol=1e-2)


def test_thresholds_of_the_drift_watch_stay_where_statistics_did(model: Model) -> None:
    def entries(name: str) -> dict[str, set[str]]:
        found = model.record(name).calibration["drift"]
        assert isinstance(found, dict)
        return {origin: set(entry) for origin, entry in found.items()}  # type: ignore[arg-type]

    assert list(entries("acoustic").values()) == [{"clipped", "clipped_outputs", "inverse_energy"}] * 2
    assert len(entries("vibration")) == 4
    assert all("thresholds" in entry for entry in entries("vibration").values())


def test_the_order_of_devices_does_not_matter(fleet: Fleet, tmp_path: Path, model: Model) -> None:
    store = Store.create(tmp_path / "other")
    again = Model(store.load(merge(store, fleet.current("cba")).digest))
    for name in ("acoustic", "vibration", "temperature", "current"):
        assert again.record(name) == model.record(name)
    assert again.record("text").adapter_blob == model.record("text").adapter_blob


def test_merging_a_merge_with_the_next_device_is_merging_all_at_once(fleet: Fleet, host: Store, model: Model) -> None:
    first = merge(host, fleet.current("ac"))
    both = Model(host.load(merge(host, [host.load(first.digest), *fleet.current("b")]).digest))
    for name in model.modalities:
        assert ids(both, name) == ids(model, name)
        assert np.allclose(both.adapter(name).weight, model.adapter(name).weight, atol=1e-4)
    assert {origin.revision for origin in both.origins("vibration")} == {0}


def test_a_pair_that_a_device_learned_again_counts_once_as_it_is_now(fleet: Fleet, host: Store, merged: Merged) -> None:
    store = fleet.branch("a", "later")
    later = fleet.teach("later", "acoustic", ["vibration", "text"], fleet.recording(21))
    device = store.state().device_id
    for others in ([*fleet.current("b")], [host.load(merged.digest)]):
        # By force: this day's sound is clipped so often under the statistics of the first that the bound says little.
        found = Model(host.load(merge(host, [*others, later], force=True).digest))
        (mine,) = (origin for origin in found.origins("vibration") if origin.device == device)
        assert (mine.revision, mine.sketch.n) == (1, 200)
        (pair,) = (p for p in found.generation.pairs if p.origin == mine.id and "text" not in p.modalities)
        (wanted,) = (p for p in later.generation.pairs if p.origin == mine.id and "text" not in p.modalities)
        assert pair == wanted


def test_a_device_takes_the_merged_generation_and_goes_on_learning(
    fleet: Fleet, host: Store, merged: Merged, tmp_path: Path
) -> None:
    export_layout(host, merged.digest, tmp_path / "merged.tar")
    fleet.branch("a", "updated")
    root = fleet.stores["updated"].root
    install(tmp_path / "merged.tar", root, allow_unsigned=True)
    store = open_store(root)
    with open_pairs(fleet.recording(22)) as pairs:
        update(store, pairs, "acoustic", partners=["temperature"], force=True)
    after = Model(store.load(CURRENT))
    assert after.generation.counter == merged.counter + 1
    assert len(ids(after, "acoustic")) == 3
    bounds = {c.origin: c.bound for c in after.generation.certificate if c.modality == "acoustic"}
    before = {c.origin: c.bound for c in merged.certificate if c.modality == "acoustic"}
    assert all(bounds[origin] >= bound for origin, bound in before.items())


def test_one_generation_alone_is_no_merge(fleet: Fleet, host: Store) -> None:
    for parents in ([], fleet.current("a"), fleet.current("aa")):
        with pytest.raises(UsageError, match="needs several"):
            merge(host, parents)


def test_an_ancestor_of_another_is_refused(fleet: Fleet, host: Store, merged: Merged) -> None:
    for older, newer in (("n", fleet.current("a")[0]), ("c", host.load(merged.digest))):
        with pytest.raises(RefusedError, match="history") as caught:
            merge(host, [newer, *fleet.current(older)])
        assert "leave it out" in caught.value.hint


def test_what_has_learned_all_that_the_others_have_is_not_merged_although_its_history_is_not_here(
    fleet: Fleet, host: Store, merged: Merged, tmp_path: Path
) -> None:
    fleet.branch("c", "c2")
    later = merge(host, [host.load(merged.digest), fleet.teach("c2", "temperature", ["current"], fleet.recording(23))])
    export_layout(host, later.digest, tmp_path / "alone")
    with pytest.raises(RefusedError, match="nothing to merge"):
        merge(host, [Store(tmp_path / "alone").load(later.digest), *fleet.current("a")])


def doctored(loaded: Loaded, **update: object) -> Loaded:
    return replace(loaded, generation=loaded.generation.model_copy(update=update))


@pytest.mark.parametrize(
    ("update", "what"),
    [({"name": "other"}, "project"), ({"base": f"sha256:{1:064x}"}, "base"), ({"device_class": "x"}, "device class")],
)
def test_generations_of_another_project_or_base_are_refused(
    fleet: Fleet, host: Store, update: dict[str, object], what: str
) -> None:
    a, b = fleet.current("ab")
    with pytest.raises(WrongBaseError, match=f"no common {what}"):
        merge(host, [a, doctored(b, **update)])


def test_a_sensor_that_two_devices_know_in_different_scales_is_refused_and_both_are_named(
    fleet: Fleet, host: Store
) -> None:
    loud = fleet.recording(14, acoustic=lambda windows: 1000 * windows)
    other = fleet.teach("loud", "acoustic", ["vibration"], loud)
    a = fleet.current("a")[0]
    with pytest.raises(RefusedError, match="acoustic cannot be merged") as caught:
        merge(host, [a, other])
    assert all(each.generation.device_id[:12] in caught.value.message for each in (a, other))
    assert "scale" in caught.value.expected
    assert caught.value.got == str(other.generation.modalities["acoustic"].scale)


def test_a_harmless_difference_is_noted_and_the_larger_recording_decides(fleet: Fleet, tmp_path: Path) -> None:
    a, b = fleet.current("ab")
    record = b.generation.modalities["acoustic"].model_copy(update={"rate_hz": 8000.0})
    other = doctored(b, modalities={**b.generation.modalities, "acoustic": record})
    (note,) = merge(Store.create(tmp_path / "notes"), [a, other]).modalities["acoustic"]["notes"]
    assert note.startswith("rate_hz")


def test_an_origin_that_would_move_too_far_is_refused_and_leaves_no_trace(fleet: Fleet, tmp_path: Path) -> None:
    store = Store.create(tmp_path / "strict")
    with pytest.raises(RefusedError, match="may have moved too far"):
        merge(store, fleet.current("ab"), max_drift=1e-4)
    assert store.tags() == {}
    assert list(store.blob_path("").iterdir()) == []
    forced = merge(store, fleet.current("ab"), max_drift=1e-4, force=True)
    assert {failure.check for failure in forced.failed} == {"drift"}
    assert store.load(forced.digest).generation.metrics["guard"]["forced"] is True  # type: ignore[index, call-overload]


def test_what_cannot_be_certified_for_want_of_figures_is_refused(fleet: Fleet, host: Store) -> None:
    a, b = fleet.current("ab")
    record = b.generation.modalities["acoustic"].model_copy(update={"calibration": {}})
    other = doctored(b, modalities={**b.generation.modalities, "acoustic": record})
    with pytest.raises(RefusedError, match="cannot be brought to the statistics") as caught:
        merge(host, [a, other])
    assert "longer recording" in caught.value.hint


def test_a_result_beyond_the_range_of_float32_is_refused() -> None:
    with pytest.raises(RefusedError, match="acoustic is not finite"):
        check_finite("acoustic", np.array([[1.0, np.inf]], np.float32))
