from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.contents import check_contents, read_origins
from edge_cmcl.bundle.parts import MOST_PARTS
from edge_cmcl.bundle.tags import generation_tag
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.generations import rollback
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.store import CURRENT, install, store_bytes
from edge_cmcl.device.update_report import UpdateReport
from edge_cmcl.errors import DataError, StorageError, UsageError

Windows = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def learn(store: Store, path: Path, modality: str = "acoustic", **options: Any) -> UpdateReport:
    with open_pairs(path) as pairs:
        return update(store, pairs, modality, **options)


@pytest.fixture(scope="session")
def recorded(machine: Machine) -> Windows:
    with open_pairs(machine.new) as pairs:
        return {name: pairs.read(name) for name in pairs.modalities}


@pytest.fixture(scope="session")
def states(machine: Machine) -> np.ndarray[Any, np.dtype[np.int64]]:
    with open_pairs(machine.new) as pairs:
        assert pairs.labels is not None
        return pairs.labels


def files(store: Store) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(store.root.rglob("*")) if p.is_file() and p.name != "lock"}


def test_an_update_commits_one_whole_generation_and_reports_it(machine: Machine, store: Store) -> None:
    before, size = store.load(CURRENT), store_bytes(store)
    report = learn(store, machine.new)
    loaded = store.load(CURRENT)
    check_contents(loaded)
    assert (report.committed, report.counter) == (loaded.digest, 2)
    assert (report.partners, report.learned) == (("current", "vibration", "text"), ("acoustic", "text"))
    assert (report.pairs, report.held_back) == (240, 0)
    assert report.bytes_added == store_bytes(store) - size
    assert set(report.seconds) == {"encode", "space", "judge", "train", "fold", "commit"}
    generation = loaded.generation
    assert generation.parents == (before.digest,) == (generation.base,)
    assert generation.device_id == store.state().device_id
    assert store.tags()[generation_tag(generation)] == loaded.digest
    assert store.state().highest_counter == 1  # of those before the current one
    assert not list(store.root.glob("work-*"))


def test_held_out_pairs_are_judged_before_and_after(machine: Machine, store: Store) -> None:
    judged = {pair.modalities: pair for pair in learn(store, machine.new, dry_run=True).judged}
    assert set(judged) == {
        ("acoustic", "current"),
        ("acoustic", "vibration"),
        ("acoustic", "text"),
        ("current", "vibration"),
    }
    for pair in judged.values():
        assert pair.interval[0] <= pair.after <= pair.interval[1]
        assert pair.n == 240
        # Four runs per health state say little of labels; of the sensors' moments they say much.
        assert pair.after > (1.0 if "text" in pair.modalities else 1.5) * pair.chance
    known = judged["current", "vibration"]
    assert known.before is not None
    assert known.change is not None
    assert known.after > known.before - 0.05
    assert judged["acoustic", "current"].before is None


def test_two_devices_that_learn_the_same_arrive_at_the_same(machine: Machine, store: Store, tmp_path: Path) -> None:
    install(machine.bundle, tmp_path / "other", trust=machine.public_key)
    other = Store(tmp_path / "other")
    weights = []
    for each in (store, other):
        learn(each, machine.new, partners=["vibration"], seed=3, threads=1)
        model = Model(each.load(CURRENT))
        weights.append({name: model.adapter(name).weight for name in model.modalities})
    for name, weight in weights[0].items():
        np.testing.assert_array_equal(weight, weights[1][name])


def test_only_the_members_of_an_update_change(machine: Machine, store: Store) -> None:
    before = store.load(CURRENT).generation.modalities
    learn(store, machine.new, partners=["vibration"])
    after = store.load(CURRENT).generation.modalities
    assert after["current"] == before["current"]
    assert after["vibration"].adapter_blob != before["vibration"].adapter_blob
    assert before["vibration"].adapter_blob in after["vibration"].references
    assert after["vibration"].encoder_blob == before["vibration"].encoder_blob


def test_a_pair_that_comes_back_ages_its_own_origin(machine: Machine, taught_copy: Store) -> None:
    first = {o.id: o for o in read_origins(taught_copy.load(CURRENT), "vibration")}
    report = learn(taught_copy, machine.new, partners=["text", "vibration"])
    second = {o.id: o for o in read_origins(taught_copy.load(CURRENT), "vibration")}
    assert report.learned == ()
    assert report.penalty is None
    assert set(first) == set(second)
    (own,) = (name for name in first if not name.startswith("base:"))
    assert (first[own].revision, second[own].revision) == (0, 1)
    assert second[own].sketch.n == 2 * 240
    check_contents(taught_copy.load(CURRENT))


def test_two_sensors_that_are_both_new_can_be_learned_together(store: Store, recorded: Windows, tmp_path: Path) -> None:
    windows = {"left": recorded["acoustic"], "right": recorded["vibration"]}
    write_pairs(tmp_path / "new.safetensors", windows)
    report = learn(store, tmp_path / "new.safetensors", "left", partners=["right"])
    assert report.learned == ("left", "right")
    (pair,) = report.judged
    assert pair.after > 3 * pair.chance
    assert [c["bound"] for c in report.certificate] == [0.0, 0.0]


def test_what_the_data_cannot_teach_is_refused_before_the_store_changes(machine: Machine, store: Store) -> None:
    before = files(store)
    for modality, partners in (("text", None), ("acoustic", ["acoustic"])):
        with pytest.raises(UsageError):
            learn(store, machine.new, modality, partners=partners)
    for modality, partners in (("pressure", None), ("acoustic", ["pressure"])):
        with pytest.raises(DataError, match="has no windows of pressure"):
            learn(store, machine.new, modality, partners=partners)
    assert files(store) == before


def test_a_file_with_nothing_known_beside_the_sensor_is_refused(
    store: Store, recorded: Windows, tmp_path: Path
) -> None:
    write_pairs(tmp_path / "alone.safetensors", {"acoustic": recorded["acoustic"]})
    with pytest.raises(DataError, match="nothing to align acoustic with"):
        learn(store, tmp_path / "alone.safetensors")


def test_labels_that_are_all_unknown_are_no_partner(store: Store, recorded: Windows, tmp_path: Path) -> None:
    write_pairs(tmp_path / "unlabelled.safetensors", recorded, labels=np.full(240, -1), label_names=["healthy"])
    report = learn(store, tmp_path / "unlabelled.safetensors", dry_run=True)
    assert report.partners == ("current", "vibration")
    with pytest.raises(DataError, match="too few pairs of acoustic and text"):
        learn(store, tmp_path / "unlabelled.safetensors", partners=["text"])


@pytest.mark.parametrize("grouped", [True, False])
def test_a_sensor_that_was_on_for_one_run_only_is_learned_from_it(
    store: Store, recorded: Windows, tmp_path: Path, grouped: bool
) -> None:
    row = np.arange(240)
    groups = row // 80 if grouped else None
    write_pairs(tmp_path / "short.safetensors", recorded, valid={"acoustic": row < 40}, groups=groups)
    report = learn(store, tmp_path / "short.safetensors", partners=["vibration"])
    assert report.pairs == 40
    assert report.judged[0].n == 40
    assert report.judged[0].after > 1.5 * report.judged[0].chance


def test_labels_of_one_run_only_are_learned_from_it(
    store: Store, recorded: Windows, states: np.ndarray[Any, np.dtype[np.int64]], tmp_path: Path
) -> None:
    row = np.arange(240)
    labels = np.where(row < 80, states, -1)
    write_pairs(tmp_path / "some.safetensors", recorded, groups=row // 80, labels=labels, label_names=list("abcdef"))
    judged = {pair.modalities: pair for pair in learn(store, tmp_path / "some.safetensors", dry_run=True).judged}
    assert judged["acoustic", "text"].n == 80
    assert judged["acoustic", "vibration"].n == 240


def test_new_partners_that_never_meet_must_be_learned_one_by_one(
    store: Store, recorded: Windows, states: np.ndarray[Any, np.dtype[np.int64]], tmp_path: Path
) -> None:
    row = np.arange(240)
    write_pairs(
        tmp_path / "apart.safetensors",
        {"acoustic": recorded["acoustic"], "left": recorded["vibration"]},
        valid={"left": row >= 215},
        labels=np.where(row < 25, states, -1),
        label_names=list("abcdef"),
    )
    with pytest.raises(DataError, match="another part of the recording") as refused:
        learn(store, tmp_path / "apart.safetensors", partners=["left", "text"])
    assert "--with" in refused.value.hint


@contextmanager
def files_of_at_most(limit: int) -> Iterator[None]:
    """Let the kernel refuse to write a larger file, as a full disk would (setrlimit(2), EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_commit_that_fails_half_way_leaves_no_blob_behind(store: Store, recorded: Windows, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(size=(40, 16, 100, 100)).astype(np.float32)
    write_pairs(tmp_path / "frames.safetensors", {"thermal": frames, "vibration": recorded["vibration"][:40]})
    before = files(store)
    adapter, golden = 4 * 256 * 1800, frames[:4].nbytes
    assert adapter < MOST_PARTS * 200_000 < golden
    with files_of_at_most(200_000), pytest.raises(StorageError):
        learn(store, tmp_path / "frames.safetensors", "thermal")
    assert files(store) == before
    assert learn(store, tmp_path / "frames.safetensors", "thermal").counter == 2


def test_a_pressure_that_hardly_varies_around_a_large_value_is_learned_as_well_as_without_it(
    store: Store, recorded: Windows, tmp_path: Path
) -> None:
    after = []
    for offset in (0.0, 100_000.0):
        pressure = (100.0 * recorded["acoustic"] + offset).astype(np.float32)
        write_pairs(tmp_path / "p.safetensors", {"barometer": pressure, "vibration": recorded["vibration"]})
        report = learn(store, tmp_path / "p.safetensors", "barometer", dry_run=True)
        after.append(report.judged[0].after)
    assert after[1] > 0.8 * after[0]


def test_a_time_budget_of_nothing_still_commits_the_closed_form(machine: Machine, store: Store) -> None:
    report = learn(store, machine.new, partners=["vibration"], budget_s=0.0)
    assert (report.steps, report.budget_exhausted, report.counter) == (0, True, 2)
    assert all(c["bound"] == 0.0 for c in report.certificate)
    rollback(store)
    assert learn(store, machine.new, partners=["vibration"]).steps > 0
