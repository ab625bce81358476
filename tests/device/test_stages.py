from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.plan import make_plan
from edge_cmcl.device.stages import stages
from edge_cmcl.device.store import CURRENT
from edge_cmcl.errors import RefusedError
from edge_cmcl.limits import MAX_DRIFT


def test_stages_double_are_spread_over_the_recording_and_end_with_all_of_it(machine: Machine, store: Store) -> None:
    with open_pairs(machine.new) as pairs:
        plan = make_plan(Model(store.load(CURRENT)), pairs, "acoustic", ["vibration"])
        parts = list(stages(plan, pairs, 2))
        assert [part.rows for part in parts] == [120, 240]
        assert parts[-1] is plan
        chosen = parts[0].within
        assert chosen is not None
        assert np.array_equal(chosen, parts[0].paired)
        assert [block.sum() for block in np.split(chosen, 4)] == [30, 30, 30, 30]
        for training, held_out in parts[0].splits:
            assert not set(training) & set(held_out)


def test_stages_too_small_to_tell_anything_are_left_out(machine: Machine, store: Store) -> None:
    with open_pairs(machine.new) as pairs:
        plan = make_plan(Model(store.load(CURRENT)), pairs, "acoustic", ["vibration"])
        assert [part.rows for part in stages(plan, pairs, 8)] == [120, 240]
        assert list(stages(plan, pairs, 1)) == [plan]


def test_learning_in_stages_ends_where_learning_at_once_does(machine: Machine, taught: Store, store: Store) -> None:
    with open_pairs(machine.new) as pairs:
        report = update(store, pairs, "acoustic", partners=["vibration", "text"], stages_wanted=2)
    assert report.stages == [120, 240]
    once, staged = (Model(each.load(CURRENT)).adapter("acoustic").weight for each in (taught, store))
    np.testing.assert_allclose(staged, once, atol=2e-4)


def test_a_stage_that_the_guard_refuses_ends_the_update_without_a_trace(
    machine: Machine, taught_copy: Store, tmp_path: Path
) -> None:
    with open_pairs(machine.new) as pairs:
        windows = {name: pairs.read(name) for name in ("vibration", "acoustic")}
        windows["acoustic"] = windows["acoustic"][np.random.default_rng(0).permutation(pairs.n)]
        write_pairs(tmp_path / "shuffled.safetensors", windows, rate_hz=dict.fromkeys(windows, 128.0))
    before, current = {path.name for path in taught_copy.root.rglob("*")}, taught_copy.tags()[CURRENT]
    told: list[str] = []
    with open_pairs(tmp_path / "shuffled.safetensors") as pairs, pytest.raises(RefusedError, match="after 120 of 240"):
        update(
            taught_copy, pairs, "acoustic",
            max_drift=1e-6, stages_wanted=2, progress=lambda stage, done, total: told.append(f"{stage} {done}"),
        )  # fmt: skip
    assert "encode acoustic 240" in told
    assert {path.name for path in taught_copy.root.rglob("*")} == before
    assert taught_copy.tags()[CURRENT] == current


def test_what_the_guard_refuses_can_be_forced_and_the_generation_says_so(machine: Machine, taught_copy: Store) -> None:
    with open_pairs(machine.test) as pairs:
        with pytest.raises(RefusedError, match="may have moved too far"):
            update(taught_copy, pairs, "acoustic", partners=["vibration"], max_drift=1e-6)
        dry = update(taught_copy, pairs, "acoustic", partners=["vibration"], max_drift=1e-6, dry_run=True)
        forced = update(taught_copy, pairs, "acoustic", partners=["vibration"], max_drift=1e-6, force=True)
    assert {failure.check for failure in dry.failed} == {"drift"}
    guard = taught_copy.load(forced.committed).generation.metrics["guard"]
    assert isinstance(guard, dict)
    assert guard["forced"] is True
    assert MAX_DRIFT > 1e-6
