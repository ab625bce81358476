from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from machine_bundle import Machine
from numpy.typing import NDArray

import edge_cmcl
from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.device import assess as room
from edge_cmcl.device.assess import Assessment, assess
from edge_cmcl.device.learner import update
from edge_cmcl.device.store import install, open_store
from edge_cmcl.errors import DataError, UsageError

Array = NDArray[np.float32]
Windows = dict[str, Array]


@pytest.fixture(scope="module")
def recorded(machine: Machine) -> Windows:
    with open_pairs(machine.new) as pairs:
        return {name: pairs.read(name)[::2] for name in ("acoustic", "vibration")}


def ask(store: Store, folder: Path, windows: Windows, modality: str = "acoustic", *partners: str) -> Assessment:
    path = folder / "asked.safetensors"
    write_pairs(path, windows, groups=np.arange(len(windows["vibration"])) // 5)
    with open_pairs(path) as pairs:
        return assess(store, pairs, modality, partners=partners or None)


@pytest.fixture(scope="module")
def useful(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Assessment]:
    """A store, and the assessment on it of acoustic beside vibration and the labels."""
    root = tmp_path_factory.mktemp("useful") / "store"
    install(machine.bundle, root, trust=machine.public_key)
    store = open_store(root)
    with open_pairs(machine.new) as pairs:
        return store, assess(store, pairs, "acoustic", partners=["vibration", "text"])


def test_a_sensor_that_predicts_its_partners_is_recommended(useful: tuple[Store, Assessment]) -> None:
    _, found = useful
    assert (found.recommendation, found.known, found.pairs, found.looked_at) == ("learn", False, 240, 240)
    assert [each.partner for each in found.evidence] == ["vibration", "text"]
    for each in found.evidence:
        assert each.p <= 0.005
        assert each.interval[0] > 0.1
        assert each.mrr > each.shuffled >= each.chance - 0.02
    assert found.new_share is not None
    assert 0.1 < found.new_share < 0.9
    assert found.failed == []


def test_the_figures_are_plain_json(useful: tuple[Store, Assessment]) -> None:
    found = json.loads(json.dumps(useful[1].as_json()))
    assert {"recommendation", "reasons", "evidence", "new_share", "certificate", "cost", "judged"} <= set(found)
    assert found["cost"]["joules"] is None or found["cost"]["power_source"]
    assert found["cost"]["total_s"] == pytest.approx(sum(found["cost"]["seconds"].values()))


def test_what_it_predicts_of_an_update_comes_true(useful: tuple[Store, Assessment], machine: Machine) -> None:
    store, found = useful
    with open_pairs(machine.new) as pairs:
        done = update(store, pairs, "acoustic", partners=["vibration", "text"])
    assert [each["origin"] for each in found.certificate] == [each["origin"] for each in done.certificate]
    for predicted, true in zip(found.certificate, done.certificate, strict=True):
        assert predicted["relative"] == pytest.approx(true["relative"], rel=1e-3)
    assert found.judged == done.judged
    assert found.cost is not None
    assert found.cost.bytes_added == pytest.approx(done.bytes_added, rel=0.05)
    assert set(found.cost.seconds) == set(done.seconds)
    assert 0.2 < found.cost.total_s / sum(done.seconds.values()) < 5.0  # other processes share the machine
    assert 0.5 < found.cost.peak_memory_bytes / done.peak_memory_bytes < 2.0


def shuffled(rng: np.random.Generator, windows: Array) -> Array:
    return rng.permutation(windows)


def noise(rng: np.random.Generator, windows: Array) -> Array:
    return (windows.std() * rng.standard_normal(windows.shape)).astype(np.float32)


def constant(_: np.random.Generator, windows: Array) -> Array:
    return np.full_like(windows, 0.5)


@pytest.mark.parametrize(
    ("change", "reason"), [(shuffled, "no better than shuffled"), (noise, "no better"), (constant, "never changes")]
)
def test_a_sensor_that_has_nothing_to_do_with_its_partner_is_advised_against(
    store: Store, recorded: Windows, tmp_path: Path, change: Callable[[np.random.Generator, Array], Array], reason: str
) -> None:
    changed = [change(np.random.default_rng(seed), recorded["acoustic"]) for seed in range(3)]
    found = [ask(store, tmp_path, {**recorded, "acoustic": windows}) for windows in changed]
    against = [each for each in found if each.recommendation == "do not learn"]
    assert len(against) >= 2  # of twenty draws one is "unclear", by design
    assert "learn" not in [each.recommendation for each in found]
    assert all(reason in each.reasons[0] for each in against)


def test_a_copy_of_a_known_sensor_is_advised_against(store: Store, recorded: Windows, tmp_path: Path) -> None:
    copy = recorded["vibration"] + 0.001 * np.random.default_rng(2).standard_normal(recorded["vibration"].shape)
    found = ask(store, tmp_path, {**recorded, "acoustic": copy.astype(np.float32)})
    assert found.recommendation == "do not learn"
    assert "spare" in found.reasons[0]
    assert found.new_share is not None
    assert found.new_share < 0.05


@pytest.mark.parametrize("rows", [31, 12])
def test_too_little_data_is_said_and_is_no_error(store: Store, recorded: Windows, tmp_path: Path, rows: int) -> None:
    found = ask(store, tmp_path, {name: windows[:rows] for name, windows in recorded.items()})
    assert found.recommendation == "unclear"
    assert "too little data" in found.reasons[0]
    assert found.evidence == []
    assert found.cost is None


def test_32_pairs_are_enough_for_an_answer(store: Store, recorded: Windows, tmp_path: Path) -> None:
    rows = np.arange(0, 120, 3)[:32]
    found = ask(store, tmp_path, {name: windows[rows] for name, windows in recorded.items()})
    assert found.recommendation in ("learn", "unclear")
    assert [each.n for each in found.evidence] == [32]
    assert found.cost is not None


def test_of_a_long_recording_a_part_is_looked_at_and_what_the_whole_would_cost_is_told(
    machine: Machine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_ROWS", 130)
    with open_pairs(machine.new) as pairs:
        found = assess(store, pairs, "acoustic", partners=["vibration"])
        done = update(store, pairs, "acoustic", partners=["vibration"])
    assert (found.recommendation, found.pairs, found.looked_at) == ("learn", 240, 130)
    assert found.cost is not None
    assert found.cost.bytes_added == pytest.approx(done.bytes_added, rel=0.05)
    assert 0.2 < found.cost.total_s / sum(done.seconds.values()) < 5.0
    predicted, true = (
        {each["origin"]: each["relative"] for each in report.certificate if each["bound"] > 0}
        for report in (found, done)
    )
    assert predicted.keys() == true.keys()
    for origin, relative in true.items():
        assert relative / 3 < predicted[origin] < relative * 3


def test_it_reads_only_and_beside_a_writer(store: Store, machine: Machine, tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in store.root.rglob("*") if path.is_file()}

    with store.writer(), open_pairs(machine.new) as pairs:
        before = contents()
        assess(store, pairs, "acoustic", partners=["vibration"])
        assert contents() == before


def test_a_known_sensor_is_assessed_by_what_learning_more_would_bring(store: Store, machine: Machine) -> None:
    with open_pairs(machine.new) as pairs:
        found = assess(store, pairs, "vibration", partners=["current"])
    assert found.known
    (pair,) = found.judged
    assert pair.change is not None
    expected = "learn" if pair.change[0] > 0 else "do not learn" if pair.change[1] < 0.01 else "unclear"
    assert found.recommendation == expected


def test_a_partner_that_is_missing_and_labels_alone_are_refused_as_an_update_refuses_them(
    store: Store, machine: Machine
) -> None:
    with open_pairs(machine.new) as pairs:
        with pytest.raises(DataError, match="no windows of pressure"):
            assess(store, pairs, "acoustic", partners=["pressure"])
        with pytest.raises(UsageError):
            assess(store, pairs, "text")


def test_it_is_part_of_the_public_api() -> None:
    assert edge_cmcl.assess is assess
