from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drift_samples import changed, stronger
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.contents import read_origins
from edge_cmcl.data import open_pairs
from edge_cmcl.device.encode import EncodedModality, OutputCache, encode
from edge_cmcl.device.features import standard_scores, unit
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.renewal import Renewed, StatisticsFit, fits, renewed
from edge_cmcl.device.update_report import UpdateReport

OLD = "vibration"


@pytest.fixture
def elsewhere(machine: Machine, tmp_path: Path) -> Path:
    """A recording of acoustic and vibration on another machine, whose vibration is of other strength."""
    return changed(machine.new, tmp_path / "elsewhere.safetensors", OLD, stronger)


def teach(store: Store, file: Path, *, renew: bool, task: str = "elsewhere") -> UpdateReport:
    with open_pairs(file) as pairs:
        return update(store, pairs, "acoustic", partners=[OLD], task=task, renew_stale=renew, force=True)


def encoded(model: Model, file: Path, folder: Path) -> dict[str, EncodedModality]:
    with open_pairs(file) as pairs:
        return {OLD: encode(pairs, OLD, model.encoder(OLD), OutputCache(folder))}


def displaced(store: Store, machine: Machine, file: Path) -> tuple[float, float]:
    """Return how far the base's embeddings have moved, measured on the windows it was trained on, and the bound.

    Old windows are taken with the length that they had when they were learned; see `renewal`.
    """
    now, base = Model(store.load("current")), Model(list(store.lineage([store.tags()["current"]]))[-1])
    with open_pairs(file) as pairs:
        raw = now.encoder(OLD)(pairs.read(OLD))
    then, later = base.adapter(OLD), now.adapter(OLD)
    scores = standard_scores(raw.copy(), statistics_of(then))
    lengths = np.linalg.norm(scores, axis=1, keepdims=True)
    moved = standard_scores(raw, statistics_of(later)) / lengths @ later.weight.T - scores / lengths @ then.weight.T
    (origin,) = (origin for origin in read_origins(now.loaded, OLD) if origin.device == "")
    (stated,) = (c for c in now.generation.certificate if (c.modality, c.origin) == (OLD, origin.id))
    return float(np.square(moved, dtype=np.float64).sum(axis=1).mean()), stated.bound


def test_statistics_that_fit_are_not_stale_and_stay(taught_copy: Store, machine: Machine) -> None:
    before = Model(taught_copy.load("current")).adapter(OLD)
    report = teach(taught_copy, machine.test, renew=True, task="again")
    assert {fit.modality for fit in report.statistics} == {"acoustic", OLD}
    assert not any(fit.stale for fit in report.statistics)
    assert report.renewed == ()
    after = Model(taught_copy.load("current")).adapter(OLD)
    assert np.array_equal(np.asarray(after.std), np.asarray(before.std))


def test_statistics_of_another_machine_are_stale_and_kept_unless_renewal_is_asked_for(
    taught_copy: Store, elsewhere: Path
) -> None:
    before = Model(taught_copy.load("current")).adapter(OLD)
    report = teach(taught_copy, elsewhere, renew=False)
    (fit,) = (fit for fit in report.statistics if fit.modality == OLD)
    assert fit.stale
    assert fit.renewable
    assert fit.as_json()["stale"] is True
    assert report.renewed == ()
    assert np.array_equal(np.asarray(Model(taught_copy.load("current")).adapter(OLD).std), np.asarray(before.std))


def test_renewing_leaves_every_old_embedding_where_it_was_and_calms_the_new_ones(
    store: Store, machine: Machine, elsewhere: Path, tmp_path: Path
) -> None:
    model = Model(store.load("current"))
    recording = encoded(model, elsewhere, tmp_path)
    new = renewed(model, fits(model, recording), recording)
    assert isinstance(new, Renewed)
    assert new.renewed == (OLD,)
    with open_pairs(machine.folder / "base.safetensors") as pairs:
        windows = pairs.read(OLD)
    assert (new.embed(OLD, windows) * model.embed(OLD, windows)).sum(axis=1).min() > 0.999
    (fit,) = fits(new, recording)
    assert fit.energy < fits(model, recording)[0].energy
    assert (np.asarray(new.adapter(OLD).std) >= np.asarray(model.adapter(OLD).std)).all()
    assert np.array_equal(np.asarray(new.adapter(OLD).mean), np.asarray(model.adapter(OLD).mean))


def test_the_sketch_of_an_origin_moves_with_the_statistics(
    store: Store, machine: Machine, elsewhere: Path, tmp_path: Path
) -> None:
    model = Model(store.load("current"))
    recording = encoded(model, elsewhere, tmp_path)
    new = renewed(model, fits(model, recording), recording)
    (before,), (after,) = model.origins(OLD), new.origins(OLD)
    assert (after.id, after.revision) == (before.id, before.revision + 1)
    with open_pairs(machine.folder / "base.safetensors") as pairs:
        raw = model.encoder(OLD)(pairs.read(OLD))
    scores = standard_scores(raw.copy(), statistics_of(model.adapter(OLD)))
    features = standard_scores(raw, statistics_of(new.adapter(OLD))) / np.linalg.norm(scores, axis=1, keepdims=True)
    direction = unit(np.random.default_rng(0).standard_normal((1, features.shape[1])).astype(np.float32))
    seen = np.concatenate([direction, after.sketch.rows[:3]]).astype(np.float64)
    true = np.square(features.astype(np.float64) @ seen.T).mean(axis=0)
    held = np.square(after.sketch.rows.astype(np.float64) @ seen.T).sum(axis=0)
    slack = after.sketch.delta * np.square(seen).sum(axis=1)
    assert (true <= (held + slack) * 1.0001).all()
    assert np.square(features, dtype=np.float64).sum(axis=1).mean() <= after.sketch.trace * 1.0001


@pytest.mark.slow
@pytest.mark.parametrize("renew", [True, False])
def test_the_certificate_bounds_what_was_really_displaced_over_two_more_updates(
    store: Store, machine: Machine, elsewhere: Path, renew: bool
) -> None:
    report = teach(store, elsewhere, renew=renew)
    assert report.renewed == ((OLD,) if renew else ())
    base = machine.folder / "base.safetensors"
    for _ in range(2):
        measured, bound = displaced(store, machine, base)
        assert 0.0 < measured <= bound
        teach(store, machine.new, renew=renew, task="home")


def test_what_was_renewed_is_normal_afterwards_and_can_be_renewed_again(
    store: Store, machine: Machine, elsewhere: Path, tmp_path: Path
) -> None:
    teach(store, elsewhere, renew=True)
    model = Model(store.load("current"))
    recording = encoded(model, elsewhere, tmp_path)
    assert not fits(model, recording)[0].stale
    further = changed(elsewhere, tmp_path / "further.safetensors", OLD, stronger)
    again = teach(store, further, renew=True, task="further")
    assert again.renewed[-1] == OLD
    measured, bound = displaced(store, machine, machine.folder / "base.safetensors")
    assert measured <= bound


def test_statistics_without_calibration_are_never_called_stale() -> None:
    assert not StatisticsFit(OLD, 50.0, None, 50.0, None, False).stale
