from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from vectors.exported import step_session

from edge_cmcl.continual.alignment import PENALTIES
from edge_cmcl.continual.certificate import certify
from edge_cmcl.continual.metrics import chance_mrr, retrieval
from edge_cmcl.continual.origin import Origin, Origins
from edge_cmcl.data.splits import folds
from edge_cmcl.device.encode import EncodedModality
from edge_cmcl.device.features import RunningStatistics, Statistics, standardise, unit
from edge_cmcl.device.fitting import FOLDS, CrossValidation, cross_validate, fit, fold, start
from edge_cmcl.device.judging import label_scores, pair_scores
from edge_cmcl.device.members import Member, known_member, new_member
from edge_cmcl.device.text import label_features
from edge_cmcl.device.training import MAX_EPOCHS, changed, no_change, train

WIDTH, DIMENSIONS, LATENT, N = 120, 24, 6, 160

Array = NDArray[np.float32]
Rows = NDArray[np.int64]


class World:
    """Sensors that see one latent state, each through its own frozen encoder: wide, non-linear, noisy outputs."""

    def __init__(self, seed: int = 0, n: int = N) -> None:
        self.rng = np.random.default_rng(seed)
        self.latent = self.rng.standard_normal((n, LATENT))
        self.mixing = np.random.default_rng(1234)

    def outputs(self, noise: float = 0.15) -> Array:
        mixed = self.latent @ self.mixing.standard_normal((LATENT, WIDTH)) + self.mixing.standard_normal(WIDTH)
        return (np.tanh(mixed) + noise * self.rng.standard_normal(mixed.shape)).astype(np.float32)


def encoded(raw: Array, valid: NDArray[np.bool_] | None = None) -> EncodedModality:
    valid = np.ones(len(raw), bool) if valid is None else valid
    running = RunningStatistics(raw.shape[1])
    running.update(raw[valid])
    return EncodedModality(np.where(valid[:, None], raw, 0).astype(np.float32), valid, running.statistics())


def fresh(name: str, raw: Array, folder: Path, valid: NDArray[np.bool_] | None = None) -> Member:
    each = encoded(raw, valid)
    return new_member(name, each, each.statistics, folder)


def embed(weight: Array, raw: Array, statistics: Statistics) -> Array:
    return unit(standardise(raw, statistics) @ weight.T)


def mrr(chosen: CrossValidation, place: int = 0, epoch: int | None = None) -> float:
    return float(np.nanmean(chosen.scores[chosen.epochs if epoch is None else epoch, place]))


def blocks_of_time(ids: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    return folds(ids.shape[1], None, FOLDS)


@dataclass
class Learned:
    """Two new sensors aligned with each other, and windows of the same two that came later."""

    members: list[Member]
    chosen: CrossValidation
    weights: list[Array]
    later: list[Array]
    statistics: list[Statistics]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    world = World(n=N + 60)
    sides = [world.outputs(noise=1.5), world.outputs(noise=1.5)]
    halves = [encoded(raw[:N]) for raw in sides]
    folder = tmp_path_factory.mktemp("members")
    members = [new_member(name, h, h.statistics, folder) for name, h in zip(("gyro", "acc"), halves, strict=True)]
    ids = np.arange(N)[None]
    chosen = cross_validate(step_session(), members, ids, blocks_of_time(ids), DIMENSIONS)
    weights, *_ = fit(step_session(), members, ids, chosen, DIMENSIONS)
    return Learned(members, chosen, weights, [raw[N:] for raw in sides], [h.statistics for h in halves])


def test_two_sensors_that_share_a_state_find_each_other_in_later_windows(learned: Learned) -> None:
    a, b = (embed(w, raw, s) for w, raw, s in zip(learned.weights, learned.later, learned.statistics, strict=True))
    found = retrieval(a, b)
    assert found["mrr"] > 5 * found["chance_mrr"]
    assert found["recall_at_1"] > 0.3


def test_cross_validation_says_beforehand_what_later_windows_will_show(learned: Learned) -> None:
    # Galleries of 32 held-out windows; the same size out of the later ones.
    a, b = (embed(w, raw[:32], s) for w, raw, s in zip(learned.weights, learned.later, learned.statistics, strict=True))
    assert mrr(learned.chosen) == pytest.approx(retrieval(a, b)["mrr"], abs=0.1)
    assert learned.chosen.gallery == (32,)
    assert learned.chosen.complete
    assert learned.chosen.scores.shape == (MAX_EPOCHS + 1, 1, N)
    assert not np.isnan(learned.chosen.scores).any()


def test_epochs_are_those_that_serve_held_out_pairs_best(learned: Learned) -> None:
    curve = learned.chosen.scores[:, 0].mean(axis=1)
    assert learned.chosen.epochs == int(curve.argmax())
    assert curve[learned.chosen.epochs] >= curve[0]


def test_penalty_is_the_largest_that_held_out_pairs_cannot_tell_from_the_best(learned: Learned) -> None:
    ids = np.arange(N)[None]
    splits = folds(N, None, FOLDS)
    scores = np.empty((len(PENALTIES), len(splits)))
    for row, penalty in enumerate(PENALTIES):
        for column, (training, held_out) in enumerate(splits):
            base = start(learned.members, ids, training, penalty, DIMENSIONS).problem.base
            scores[row, column] = pair_scores(unit(base[0][held_out]), unit(base[1][held_out])).mean()
    best = scores[scores.mean(axis=1).argmax()]
    tolerated = best.mean() - best.std() / np.sqrt(len(splits))
    assert learned.chosen.penalty == max(np.array(PENALTIES)[scores.mean(axis=1) >= tolerated])


def test_adapters_are_single_precision_and_contiguous(learned: Learned) -> None:
    for weight in learned.weights:
        assert weight.shape == (DIMENSIONS, WIDTH)
        assert weight.dtype == np.float32
        assert weight.flags.c_contiguous


def test_pairs_that_have_nothing_in_common_are_judged_as_chance(tmp_path: Path) -> None:
    world = World()
    a, b = world.outputs(), world.rng.permutation(world.outputs())
    members = [fresh("gyro", a, tmp_path), fresh("acc", b, tmp_path)]
    chosen = cross_validate(step_session(), members, np.arange(N)[None], blocks_of_time(np.arange(N)[None]), DIMENSIONS)
    # The best of 21 epochs and 5 penalties is a little above chance even where there is nothing to learn.
    assert 0.7 * chance_mrr(32) < mrr(chosen) < 1.4 * chance_mrr(32)


def test_training_scores_of_meaningless_pairs_would_have_claimed_success(tmp_path: Path) -> None:
    """What the judge is there for: on its own training rows the same fit looks excellent."""
    world = World()
    a, b = world.outputs(), world.rng.permutation(world.outputs())
    members, rows = [fresh("gyro", a, tmp_path), fresh("acc", b, tmp_path)], np.arange(N)
    problem = start(members, rows[None], rows, 0.1, DIMENSIONS).problem
    assert pair_scores(unit(problem.base[0]), unit(problem.base[1])).mean() > 5 * chance_mrr(N)


def known(name: str, raw: Array, folder: Path, origins: Origins = (), seed: int = 0) -> tuple[Member, Statistics]:
    """A modality with an adapter: the leading directions of its features."""
    each = encoded(raw)
    weight = (
        standardise(raw, each.statistics).T @ np.random.default_rng(seed).standard_normal((len(raw), DIMENSIONS))
    ).T
    weight = np.ascontiguousarray(weight / np.linalg.norm(standardise(raw, each.statistics) @ weight.T, axis=1).mean())
    weight = weight.astype(np.float32)
    return known_member(name, each, each.statistics, weight, origins, folder), each.statistics


def test_a_new_sensor_joins_a_known_one_without_moving_it_much(tmp_path: Path) -> None:
    world = World()
    raw = world.outputs()
    acc, statistics = known("acc", raw, tmp_path)
    origin = Origin("base", 0, "", "acc", ("gyro",), "2026-01-01T00:00:00Z", acc.sketch, "sha256:0")
    acc, _ = known("acc", raw, tmp_path, (origin,))
    members = [fresh("gyro", world.outputs(), tmp_path), acc]
    chosen = cross_validate(step_session(), members, np.arange(N)[None], blocks_of_time(np.arange(N)[None]), DIMENSIONS)
    assert mrr(chosen) > 5 * chance_mrr(32)
    (_, now), *_ = fit(step_session(), members, np.arange(N)[None], chosen, DIMENSIONS)
    assert acc.weight is not None
    certificate = certify("acc", "base", acc.sketch, now, acc.weight)
    features = standardise(raw, statistics).astype(np.float64)
    moved = np.square(features @ (now - acc.weight).T).sum(1).mean()
    assert moved <= certificate.bound
    assert certificate.relative < 0.05


def test_known_sensors_start_from_where_they_are_and_have_no_penalty(tmp_path: Path) -> None:
    world = World()
    members = [known("gyro", world.outputs(), tmp_path, seed=1)[0], known("acc", world.outputs(), tmp_path, seed=2)[0]]
    ids = np.arange(N)[None]
    started = start(members, ids, np.arange(N), 1.0, DIMENSIONS)
    assert started.maps == (None, None)
    for member, base in zip(members, started.problem.base, strict=True):
        assert base is member.base
    chosen = cross_validate(step_session(), members, ids, blocks_of_time(ids), DIMENSIONS)
    assert chosen.penalty is None
    assert chosen.epochs > 0
    # Two unrelated adapters: nothing before training, something after it.
    assert mrr(chosen, epoch=0) == pytest.approx(chance_mrr(32), rel=0.3)
    assert mrr(chosen) > 1.3 * mrr(chosen, epoch=0)


def test_labels_are_learned_with_a_sensor(tmp_path: Path) -> None:
    world = World()
    labels = np.argmax(world.latent[:, :4], axis=1)
    labels[::10] = -1
    text = label_features(["idle", "run", "brake", "fault"])[np.maximum(labels, 0)]
    statistics = Statistics(np.zeros(text.shape[1], np.float32), np.ones(text.shape[1], np.float32))
    words = new_member("text", EncodedModality(text, labels >= 0, statistics), statistics, tmp_path)
    members = [fresh("gyro", world.outputs(), tmp_path), words]
    chosen = cross_validate(step_session(), members, labels[None], blocks_of_time(labels[None]), DIMENSIONS)
    np.testing.assert_array_equal(np.isnan(chosen.scores[0, 0]), labels < 0)
    # Chance among four labels is 0.52.
    assert mrr(chosen) > 0.8
    weights, *_ = fit(step_session(), members, labels[None], chosen, DIMENSIONS)
    later = World(7)
    truth = np.argmax(later.latent[:, :4], axis=1)
    windows = embed(weights[0], later.outputs(), encoded(World().outputs()).statistics)
    texts = unit(label_features(["idle", "run", "brake", "fault"]) @ weights[1].T)
    assert label_scores(windows, texts, truth).mean() > 0.8


def test_several_partners_are_learned_in_one_joint_step(tmp_path: Path) -> None:
    world = World()
    sides = [world.outputs() for _ in range(3)]
    valid = world.rng.random(N) < 0.7
    members = [fresh("gyro", sides[0], tmp_path), known("acc", sides[1], tmp_path)[0]]
    members.append(fresh("emg", sides[2], tmp_path, valid))
    ids = np.stack([np.arange(N), np.where(valid, np.arange(N), -1)])
    chosen = cross_validate(step_session(), members, ids, blocks_of_time(ids), DIMENSIONS)
    assert chosen.judge.pairs == [(0, 1), (0, 2)]
    np.testing.assert_array_equal(np.isnan(chosen.scores[0, 1]), ~valid)
    assert mrr(chosen, 0) > 5 * chance_mrr(32)
    assert mrr(chosen, 1) > 5 * chance_mrr(22)


def test_rows_without_a_partner_have_no_say_in_its_start(tmp_path: Path) -> None:
    world = World()
    a, b = world.outputs(), world.outputs()
    valid = np.arange(N) % 3 > 0
    ids = np.where(valid, np.arange(N), -1)[None]
    for known_anchor in (False, True):
        starts = []
        for other in (1.0, -1.0):
            # What the anchor shows while the partner is missing is another world.
            gyro = known("gyro", a, tmp_path)[0] if known_anchor else fresh("gyro", a, tmp_path)
            if known_anchor:
                gyro.base[~valid] *= other
            else:
                gyro.reduced[~valid] *= other
            starts.append(start([gyro, fresh("acc", b, tmp_path, valid)], ids, np.arange(N), 1.0, DIMENSIONS))
        one, two = (started.maps[1] for started in starts)
        assert one is not None
        assert two is not None
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_held_out_rows_have_no_say_in_the_start(tmp_path: Path) -> None:
    world = World()
    members = [fresh("gyro", world.outputs(), tmp_path), fresh("acc", world.outputs(), tmp_path)]
    ids, training = np.arange(N)[None], np.arange(100)
    before = start(members, ids, training, 1.0, DIMENSIONS)
    for member in members:
        member.reduced[100:] += 5.0
    after = start(members, ids, training, 1.0, DIMENSIONS)
    for one, other in zip(before.maps, after.maps, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one, other)


def test_starts_embed_at_unit_scale(tmp_path: Path) -> None:
    world = World()
    members = [fresh("gyro", world.outputs(), tmp_path), fresh("acc", world.outputs(), tmp_path)]
    started = start(members, np.arange(N)[None], np.arange(N), 1.0, DIMENSIONS)
    for base in started.problem.base:
        assert np.linalg.norm(base, axis=1).mean() == pytest.approx(1.0, rel=1e-4)


def test_folding_gives_an_adapter_that_embeds_as_training_did(tmp_path: Path) -> None:
    world = World()
    raw = [world.outputs(), world.outputs()]
    members, statistics = [fresh("gyro", raw[0], tmp_path)], [encoded(raw[0]).statistics]
    acc, acc_statistics = known("acc", raw[1], tmp_path)
    members.append(acc)
    statistics.append(acc_statistics)
    rows = np.arange(N)
    started = start(members, rows[None], rows, 1.0, DIMENSIONS)
    changes, steps = train(step_session(), started.problem, rows, lambda epoch, changes: True, epochs=3)
    assert steps == 3 * 3
    for index, member in enumerate(members):
        folded = fold(member, started.maps[index], changes[index])
        features = standardise(raw[index], statistics[index])
        np.testing.assert_allclose(
            features @ folded.T, changed(started.problem, changes, index, rows), rtol=0, atol=2e-5
        )


def test_training_repeats_itself_by_seed(tmp_path: Path) -> None:
    world = World()
    members = [fresh("gyro", world.outputs(), tmp_path), fresh("acc", world.outputs(), tmp_path)]
    problem = start(members, np.arange(N)[None], np.arange(N), 1.0, DIMENSIONS).problem

    def changes(seed: int) -> Array:
        return train(step_session(), problem, np.arange(N), lambda epoch, changes: True, epochs=2, seed=seed)[0]

    np.testing.assert_array_equal(changes(1), changes(1))
    assert not np.array_equal(changes(1), changes(2))


def test_training_ends_when_it_is_told_to(tmp_path: Path) -> None:
    world = World()
    members = [fresh("gyro", world.outputs(), tmp_path), fresh("acc", world.outputs(), tmp_path)]
    problem = start(members, np.arange(N)[None], np.arange(N), 1.0, DIMENSIONS).problem
    seen: list[int] = []

    def after(epoch: int, changes: Array) -> bool:
        seen.append(epoch)
        return epoch < 2

    assert train(step_session(), problem, np.arange(N), after)[1] == 6
    assert seen == [1, 2]
    changes, steps = train(step_session(), problem, np.arange(N), after, deadline=time.monotonic() - 1)
    assert steps == 0
    np.testing.assert_array_equal(changes, no_change(problem))


def test_out_of_time_the_closed_form_start_is_judged_and_kept(tmp_path: Path) -> None:
    world = World()
    members = [fresh("gyro", world.outputs(), tmp_path), fresh("acc", world.outputs(), tmp_path)]
    ids, past = np.arange(N)[None], time.monotonic() - 1
    chosen = cross_validate(step_session(), members, ids, blocks_of_time(ids), DIMENSIONS, deadline=past)
    assert not chosen.complete
    assert chosen.epochs == 0
    assert mrr(chosen) > 5 * chance_mrr(32)
    weights, steps, epochs = fit(step_session(), members, ids, chosen, DIMENSIONS, deadline=past)
    assert (steps, epochs) == (0, 0)
    assert all(np.isfinite(weight).all() and weight.any() for weight in weights)


def test_a_fit_that_is_cut_tells_the_epochs_it_has_done(tmp_path: Path) -> None:
    world = World()
    members = [fresh("gyro", world.outputs(), tmp_path), fresh("acc", world.outputs(), tmp_path)]
    ids = np.arange(N)[None]
    chosen = cross_validate(step_session(), members, ids, blocks_of_time(ids), DIMENSIONS)
    long = replace(chosen, epochs=20)
    per_epoch = -(-N // 64)
    told: list[int] = []

    def slowly(stage: str, done: int, total: int) -> None:
        told.append(done)
        time.sleep(0.3)

    deadline = time.monotonic() + 0.5
    _, steps, epochs = fit(step_session(), members, ids, long, DIMENSIONS, deadline=deadline, progress=slowly)
    assert told
    assert epochs == told[-1] == steps // per_epoch < 20


def test_groups_are_judged_by_adapters_that_never_saw_them(tmp_path: Path) -> None:
    world = World()
    groups = np.arange(N) % 4
    # Group 3 is another machine: its second sensor is wired to other states.
    a, b = world.outputs(), world.outputs()
    b[groups == 3] = world.rng.permutation(b[groups == 3])
    members = [fresh("gyro", a, tmp_path), fresh("acc", b, tmp_path)]
    chosen = cross_validate(step_session(), members, np.arange(N)[None], folds(N, groups, FOLDS), DIMENSIONS)
    by_group = [float(chosen.scores[chosen.epochs, 0, groups == group].mean()) for group in range(4)]
    assert min(by_group[:3]) > 4 * chance_mrr(40)
    assert by_group[3] < 2 * chance_mrr(40)


def test_progress_counts_the_folds_and_the_epochs(learned: Learned) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))

    ids = np.arange(N)[None]
    chosen = cross_validate(step_session(), learned.members, ids, blocks_of_time(ids), DIMENSIONS, progress=progress)
    fit(step_session(), learned.members, ids, chosen, DIMENSIONS, progress=progress)
    assert told[:5] == [("cross-validate", number, 5) for number in range(1, 6)]
    assert told[5:] == [("train", epoch, chosen.epochs) for epoch in range(1, chosen.epochs + 1)]


def test_gallery_counts_only_rows_that_were_ranked_together(tmp_path: Path) -> None:
    world = World()
    valid = np.arange(N) % 2 == 0
    members = [fresh("gyro", world.outputs(), tmp_path), fresh("acc", world.outputs(), tmp_path, valid)]
    ids = np.where(valid, np.arange(N), -1)[None]
    assert cross_validate(step_session(), members, ids, blocks_of_time(ids), DIMENSIONS).gallery == (16,)
