from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine_bundle import Machine

from edge_cmcl import tensors
from edge_cmcl.bundle import Store
from edge_cmcl.bundle.documents import SyncState
from edge_cmcl.bundle.store_files import HELD_OUT_FOLDER
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device import held_out
from edge_cmcl.device.forgetting import forget
from edge_cmcl.device.generations import collect_garbage
from edge_cmcl.device.held_out import HeldOutWarning, keep_back, read, saved
from edge_cmcl.device.judgement import judge, kept_pairs, worse
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.plan import make_plan
from edge_cmcl.device.starting import confirm
from edge_cmcl.device.store import CURRENT, install, open_store
from edge_cmcl.errors import DataError


@pytest.fixture(scope="module")
def learned(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("held-out") / "store"
    install(machine.bundle, root, trust=machine.public_key)
    store = open_store(root)
    with open_pairs(machine.new) as pairs:
        report = update(store, pairs, "acoustic", partners=["vibration", "text"], hold_back=0.1)
    assert report.held_back == 20
    return store


def test_what_is_kept_back_is_of_the_whole_recording_and_never_trained_on(machine: Machine, learned: Store) -> None:
    (path,) = saved(learned).values()
    held = read(path)
    assert held.members == ("acoustic", "vibration", "text")
    with open_pairs(machine.new) as pairs:
        model = Model(learned.load(learned.load(CURRENT).generation.parents[0]))
        plan = make_plan(model, pairs, "acoustic", ["vibration", "text"])
        rest, rows = keep_back(plan, pairs, 0.1)
        assert not rest.paired[rows].any()
        assert rest.paired.sum() == pairs.n - rows.sum()  # these windows do not overlap
        assert pairs.n / 10 > np.diff(np.flatnonzero(rows)).max() > 1
        expected = model.encoder("vibration")(pairs.read("vibration")[rows])
        assert pairs.labels is not None
        np.testing.assert_array_equal(held.labels, pairs.labels[rows])
    np.testing.assert_allclose(held.raw["vibration"], expected, rtol=1e-5, atol=1e-6)
    assert learned.load(CURRENT).generation.pairs[-1].n == 220


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.08, 0), (0.1, 20), (0.5, 120)])
def test_too_few_to_judge_by_are_learned_from_instead(
    machine: Machine, learned: Store, share: float, kept: int
) -> None:
    with open_pairs(machine.new) as pairs:
        plan = make_plan(Model(learned.load(CURRENT)), pairs, "acoustic", ["vibration"])
        rest, rows = keep_back(plan, pairs, share)
        assert rows.sum() == kept
        assert rest.rows == pairs.n - kept


def test_windows_that_overlap_one_that_is_kept_back_are_not_learned_from(
    machine: Machine, learned: Store, tmp_path: Path
) -> None:
    with open_pairs(machine.new) as pairs:
        windows = {name: pairs.read(name) for name in ("acoustic", "vibration")}
        length = pairs.longest_window_s(("acoustic", "vibration"))
        assert length is not None
        path = tmp_path / "overlapping.safetensors"
        write_pairs(
            path, windows, time=np.arange(pairs.n) * length / 2, rate_hz={name: pairs.rate_hz[name] for name in windows}
        )
    with open_pairs(path) as pairs:
        plan = make_plan(Model(learned.load(CURRENT)), pairs, "acoustic", ["vibration"])
        rest, rows = keep_back(plan, pairs, 0.1)
    kept = np.flatnonzero(rows)
    assert len(kept) == 20
    assert np.abs(np.flatnonzero(rest.paired)[:, None] - kept).min() == 2
    assert rest.rows == 240 - 20 - 2 * held_out.BLOCKS


def test_a_device_keeps_pairs_back_once_it_syncs(machine: Machine, learned: Store, tmp_path: Path) -> None:
    store = clone(learned, tmp_path)
    for remote, kept in (("", 0), ("oci://host/machine", 20)):
        with store.writer():
            state = store.state()
            store.save_state(state.model_copy(update={"sync": SyncState(remote=remote)}))
        with open_pairs(machine.new) as pairs:
            assert update(store, pairs, "acoustic", partners=["vibration"], dry_run=True).pairs == 240 - kept


def test_the_same_step_again_replaces_what_was_kept_and_another_one_adds_to_it(
    machine: Machine, learned: Store, tmp_path: Path
) -> None:
    store = clone(learned, tmp_path)
    with open_pairs(machine.new) as pairs:
        update(store, pairs, "acoustic", partners=["vibration", "text"], force=True, hold_back=0.1)
        assert len(saved(store)) == 1
        update(store, pairs, "acoustic", partners=["vibration"], force=True, hold_back=0.1)
    assert sorted(read(path).members for path in saved(store).values()) == [
        ("acoustic", "vibration"),
        ("acoustic", "vibration", "text"),
    ]


def test_forgetting_a_sensor_takes_what_was_kept_of_it_with_the_last_generation_that_knew_it(
    learned: Store, tmp_path: Path
) -> None:
    store = clone(learned, tmp_path)
    confirm(store)
    forget(store, "acoustic")
    confirm(store)
    collect_garbage(store, keep=2)
    assert len(saved(store)) == 1
    collect_garbage(store, keep=1)
    assert saved(store) == {}


def test_it_judges_the_generation_in_use_and_one_that_is_worse(learned: Store) -> None:
    model, kept = Model(learned.load(CURRENT)), kept_pairs(learned)
    found = {frozenset(each.modalities): each for each in judge(model, kept)}
    assert set(found) == {
        frozenset(p) for p in (("acoustic", "vibration"), ("acoustic", "text"), ("vibration", "text"))
    }
    both = found[frozenset(("acoustic", "vibration"))]
    assert (both.n, both.gallery, both.before, both.change) == (20, 20, None, None)
    assert both.mrr > 0.5  # by chance 0.18
    assert both.recall_at_1 <= both.recall_at_10 <= 1.0
    assert found[frozenset(("acoustic", "text"))].gallery == 6

    same = judge(model, kept, model)
    assert all(each.change == (0.0, 0.0) and each.before == each.mrr for each in same)
    assert worse(same) == []

    broken = Model(learned.load(CURRENT))
    weight = broken.adapter("acoustic").weight
    weight[:] = np.random.default_rng(0).standard_normal(weight.shape)
    bad = worse(judge(broken, kept, model))
    assert {"acoustic"} < {name for each in bad for name in each.modalities}
    assert all("acoustic" in each.modalities for each in bad)


def test_pairs_that_a_model_does_not_know_or_encodes_otherwise_are_left_out(learned: Store) -> None:
    model, kept = Model(learned.load(CURRENT)), kept_pairs(learned)
    base = Model(learned.load(model.generation.parents[0]))
    assert judge(base, kept) == ()
    against = judge(model, kept, base)
    assert all(each.before is None and each.change is None for each in against)
    other = [held_out.HeldOut(**{**vars(held), "encoders": dict.fromkeys(held.encoders, "other")}) for held in kept]
    assert judge(model, other) == ()


@pytest.mark.parametrize("change", ["cut", "format", "nan", "label", "rows", "other"])
def test_a_damaged_file_is_left_out_with_a_warning(learned: Store, tmp_path: Path, change: str) -> None:
    store = clone(learned, tmp_path)
    (path,) = saved(store).values()
    held = read(path)
    arrays: dict[str, Any] = {
        **{f"raw.{name}": np.array(raw) for name, raw in held.raw.items()},
        **{f"valid.{name}": valid.astype(np.uint8) for name, valid in held.valid.items()},
        "label": np.array(held.labels),
    }
    with tensors.TensorFile(path) as file:
        metadata = dict(file.metadata)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        if change == "format":
            metadata["version"] = "9"
        elif change == "nan":
            arrays["raw.acoustic"][3, 4] = np.nan
        elif change == "label":
            arrays["label"][0] = 99
        elif change == "rows":
            arrays["raw.vibration"] = arrays["raw.vibration"][:-1]
        else:
            metadata["members"] = "{"
        tensors.write(path, arrays, metadata)
    with pytest.raises(DataError):
        read(path)
    with pytest.warns(HeldOutWarning):
        assert kept_pairs(store) == []


def test_a_full_disk_costs_the_kept_pairs_and_not_the_update(machine: Machine, learned: Store, tmp_path: Path) -> None:
    store = clone(learned, tmp_path)
    folder = store.root / HELD_OUT_FOLDER
    for path in saved(store).values():
        path.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    with open_pairs(machine.new) as pairs, pytest.warns(HeldOutWarning, match="could not be kept"):
        report = update(store, pairs, "acoustic", partners=["vibration", "text"], force=True, hold_back=0.1)
    assert report.committed == store.load(CURRENT).digest
    assert report.held_back == 0


def clone(store: Store, folder: Path) -> Store:
    import shutil

    shutil.copytree(store.root, folder / "store")
    return open_store(folder / "store")
