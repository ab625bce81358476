from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine_bundle import Machine
from numpy.typing import NDArray

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.contents import read_origins
from edge_cmcl.cli.update_commands import describe_update
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device.generations import rollback
from edge_cmcl.device.learner import update
from edge_cmcl.device.store import CURRENT
from edge_cmcl.device.update_report import UpdateReport
from edge_cmcl.errors import DataError

Windows = dict[str, NDArray[np.float32]]


def learn(store: Store, path: Path, modality: str = "acoustic", **options: Any) -> UpdateReport:
    with open_pairs(path) as pairs:
        return update(store, pairs, modality, **{"partners": ["vibration"], **options})


@pytest.fixture
def recorded(machine: Machine) -> Windows:
    with open_pairs(machine.new) as pairs:
        return {name: pairs.read(name) for name in pairs.modalities}


@pytest.mark.parametrize(
    ("dead", "value"), [("acoustic", 0.0), ("acoustic", 9.81), ("vibration", 0.0), ("vibration", 1e5)]
)
def test_a_dead_sensor_is_refused(store: Store, recorded: Windows, tmp_path: Path, dead: str, value: float) -> None:
    before = store.tags()
    recorded[dead] = np.full_like(recorded[dead], value)
    write_pairs(tmp_path / "dead.safetensors", recorded)
    with pytest.raises(DataError, match=f"{dead} never changes") as raised:
        learn(store, tmp_path / "dead.safetensors")
    assert "connected" in raised.value.hint
    assert store.tags() == before


def test_a_pair_learned_the_other_way_round_is_the_same_pair(machine: Machine, store: Store) -> None:
    learn(store, machine.new)
    learn(store, machine.new, "vibration", partners=["acoustic"])
    pairs = [({*pair.modalities}, pair.origin) for pair in store.load(CURRENT).generation.pairs]
    assert len(pairs) == 2
    assert sorted(len(names) for names, _ in pairs) == [2, 2]


def test_only_windows_that_have_a_partner_are_remembered(store: Store, recorded: Windows, tmp_path: Path) -> None:
    write_pairs(tmp_path / "some.safetensors", recorded, valid={"acoustic": np.arange(240) < 40})
    assert learn(store, tmp_path / "some.safetensors").pairs == 40
    for name in ("acoustic", "vibration"):
        (own,) = (o for o in read_origins(store.load(CURRENT), name) if not o.id.startswith("base:"))
        assert own.sketch.n == 40


@pytest.mark.slow
def test_a_recording_that_is_learned_twice_is_noticed(
    machine: Machine, store: Store, recorded: Windows, tmp_path: Path
) -> None:
    first = learn(store, machine.new)
    assert first.learned_before is None
    assert "WARNING" not in describe_update(first)
    second = learn(store, machine.new)
    assert second.learned_before == first.counter == 2
    assert "WARNING: generation 2 learned this very file" in describe_update(second)
    assert learn(store, machine.new, "vibration", partners=["acoustic"], dry_run=True).learned_before == 3
    assert learn(store, machine.new, "vibration", partners=["current"], dry_run=True).learned_before == 3
    assert learn(store, machine.new, "current", dry_run=True).learned_before is None
    write_pairs(tmp_path / "other.safetensors", {name: rows[:100] for name, rows in recorded.items()})
    assert learn(store, tmp_path / "other.safetensors").learned_before is None
    assert learn(store, machine.new, dry_run=True).learned_before == 3
    rollback(store, "1")
    assert learn(store, machine.new, dry_run=True).learned_before is None


def test_a_new_pair_that_is_no_better_than_chance_is_said_to_be(
    machine: Machine, store: Store, recorded: Windows, tmp_path: Path
) -> None:
    # One draw in twenty lies above its 95 % interval (0 is near it); this one is as good as chance.
    recorded["noise"] = np.random.default_rng(4).standard_normal((240, 64, 1)).astype(np.float32)
    write_pairs(tmp_path / "noise.safetensors", recorded)
    report = learn(store, tmp_path / "noise.safetensors", "noise")
    assert "WARNING: noise - vibration: no better than chance on held-out pairs; `edge-cmcl rollback` undoes it" in (
        describe_update(report)
    )
    assert [pair["no_better_than_chance"] for pair in json.loads(json.dumps(report.as_json()))["judged"]] == [True]
    fine = learn(store, machine.new, dry_run=True)
    assert [pair.no_better_than_chance for pair in fine.judged] == [False]
