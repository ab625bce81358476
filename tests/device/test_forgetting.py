from __future__ import annotations

import numpy as np
import pytest
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs
from edge_cmcl.device.forgetting import forget
from edge_cmcl.device.generations import rollback
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.status import status
from edge_cmcl.device.store import store_bytes
from edge_cmcl.errors import ModelError, RefusedError


def current(store: Store) -> Model:
    return Model(store.load("current"))


def test_forgetting_a_sensor_is_one_new_generation_without_it(taught_copy: Store) -> None:
    before = current(taught_copy)
    done = forget(taught_copy, "acoustic")
    after = current(taught_copy)
    assert after.loaded.digest == done.committed
    assert (after.generation.action, after.generation.counter) == ("forget", before.generation.counter + 1)
    assert after.generation.parents == (before.loaded.digest,)
    assert after.modalities == done.remaining == ("current", "text", "vibration")
    assert [pair.modalities for pair in after.generation.pairs] == [("vibration", "current")]
    assert set(done.pairs) == {("acoustic", "vibration"), ("acoustic", "text")}
    assert "acoustic" not in {record.modality for record in after.generation.certificate}


def test_what_the_others_know_stays_and_does_not_move(taught_copy: Store, machine: Machine) -> None:
    before = current(taught_copy)
    forget(taught_copy, "acoustic")
    after = current(taught_copy)
    for name in ("current", "text", "vibration"):
        assert after.record(name) == before.record(name)
    assert any("acoustic" in origin.partners for origin in after.origins("vibration"))
    with open_pairs(machine.test) as pairs:
        windows = pairs.read("vibration", 0, 8)
    assert np.array_equal(after.embed("vibration", windows), before.embed("vibration", windows))
    kept = [record for record in before.generation.certificate if record.modality != "acoustic"]
    assert list(after.generation.certificate) == kept


def test_it_is_on_trial_and_a_rollback_brings_the_sensor_back(taught_copy: Store) -> None:
    before = current(taught_copy)
    done = forget(taught_copy, "acoustic")
    trial = taught_copy.state().trial
    assert trial is not None
    assert trial.digest == done.committed
    assert status(taught_copy)["trial"]["starts"] == 0
    rollback(taught_copy)
    assert current(taught_copy).loaded.digest == before.loaded.digest


def test_what_was_forgotten_can_be_learned_again(taught_copy: Store, machine: Machine) -> None:
    (learned,) = current(taught_copy).origins("acoustic")
    forget(taught_copy, "acoustic")
    with open_pairs(machine.new) as pairs:
        report = update(taught_copy, pairs, "acoustic", partners=["vibration", "text"])
    assert report.learned == ("acoustic",)
    after = current(taught_copy)
    (again,) = after.origins("acoustic")
    partner = next(origin for origin in after.origins("vibration") if origin.id == again.id)
    assert again.id == learned.id
    # Later than what was forgotten: where both meet in a merge, this one counts.
    assert again.revision == partner.revision == learned.revision + 1
    judged = {outcome.modalities: outcome for outcome in report.judged}
    assert judged["acoustic", "vibration"].interval[0] > judged["acoustic", "vibration"].chance
    for record in after.generation.certificate:
        assert np.isfinite(record.bound)


def test_forgetting_the_text_forgets_the_labels(taught_copy: Store) -> None:
    count = len(current(taught_copy).labels.names)
    done = forget(taught_copy, "text")
    assert done.labels == count
    after = current(taught_copy)
    assert after.modalities == ("acoustic", "current", "vibration")
    assert ("acoustic", "text") not in [pair.modalities for pair in after.generation.pairs]
    with pytest.raises(ModelError, match="no labels"):
        _ = after.labels


def test_the_last_sensor_stays_with_and_without_labels(taught_copy: Store) -> None:
    forget(taught_copy, "acoustic")
    forget(taught_copy, "current")
    for _ in range(2):
        before = current(taught_copy).loaded.digest
        with pytest.raises(RefusedError, match="last sensor"):
            forget(taught_copy, "vibration")
        assert current(taught_copy).loaded.digest == before
        if "text" in current(taught_copy).modalities:
            forget(taught_copy, "text")


def test_an_unknown_name_is_answered_with_the_nearest_known_one(taught: Store) -> None:
    with pytest.raises(ModelError) as caught:
        forget(taught, "acustic")
    assert "acoustic" in caught.value.hint
    assert taught.load("current").generation.action == "update"


def test_a_dry_run_says_what_would_go_and_changes_nothing(taught_copy: Store) -> None:
    before, size = current(taught_copy).loaded.digest, store_bytes(taught_copy)
    done = forget(taught_copy, "acoustic", dry_run=True)
    assert (done.committed, done.origins, done.remaining) == ("", 1, ("current", "text", "vibration"))
    assert current(taught_copy).loaded.digest == before
    assert store_bytes(taught_copy) == size
