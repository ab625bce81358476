from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from origin_samples import DEVICE, WIDTH, Floats, moment, moment_of, origin, same, sketch, stands_for, still, unit_rows

from edge_cmcl.continual.certificate import certify
from edge_cmcl.continual.origin import Origin, Origins, archive, learn, sketch_bytes, union


def test_archive_leaves_what_fits_alone() -> None:
    origins = (origin("a", 0), origin("b", 1))
    assert archive(origins, sketch_bytes(origins), DEVICE, still, "sha256:now") == origins


def crowd() -> Origins:
    """A base, another device's origin, and six origins of the device itself."""
    own = [origin(f"own{i}", i) for i in range(6)]
    return union([origin("base", 10, device=""), origin("foreign", 11, device="edge-8")], own)


@pytest.mark.parametrize("budget_rows", [63, 56, 40])
def test_archive_keeps_the_budget_and_touches_only_the_devices_own(budget_rows: int) -> None:
    before = crowd()
    after = archive(before, 2 * WIDTH * budget_rows, DEVICE, lambda o: 0.01, "sha256:now")
    assert sketch_bytes(after) <= 2 * WIDTH * budget_rows
    kept = {o.id: o for o in after}
    for o in before:
        if o.device != DEVICE:
            assert kept[o.id] is o
    (archived,) = (o for o in after if o.absorbed)
    assert (archived.device, archived.reference) == (DEVICE, "sha256:now")
    assert sum(o.weight for o in after) == pytest.approx(sum(o.weight for o in before))
    assert np.trace(moment_of(after)) <= sum(o.weight * o.sketch.trace for o in before) * (1 + 2.0**-10)


def test_archive_takes_the_oldest_first() -> None:
    # Merged sketches may have up to WIDTH rows, so it takes four of 8 rows each to save anything.
    before = crowd()
    after = archive(before, sketch_bytes(before) - 1, DEVICE, still, "sha256:now")
    assert {o.id for o in after if not o.absorbed} == {"base", "foreign", "own4", "own5"}
    assert [dict(o.absorbed) for o in after if o.absorbed] == [{f"own{i}": 0 for i in range(4)}]


def test_archive_bounds_the_mean_of_what_it_merged() -> None:
    before = crowd()
    after = archive(before, 2 * WIDTH * 40, DEVICE, still, "sha256:now")
    archived = next(o for o in after if o.absorbed)
    merged = {o.id for o in before} - {o.id for o in after}
    true = np.mean([moment(unit_rows(int(name[3:]))) for name in merged], axis=0)
    stored = archived.sketch.rows.astype(np.float64)
    assert archived.weight == len(merged) == 6
    assert np.linalg.eigvalsh(true - stored.T @ stored)[-1] <= archived.sketch.delta + 1e-12


def test_a_budget_that_the_devices_own_cannot_meet_is_left_exceeded() -> None:
    before = crowd()
    after = archive(before, 1, DEVICE, still, "sha256:now")
    assert len(after) == 3
    assert {o.id for o in after if not o.absorbed} == {"base", "foreign"}


class Life:
    """A device whose adapter changes at every step: it learns, archives, and remembers what it once embedded."""

    def __init__(self, seed: int, budget_rows: int = 10**6) -> None:
        self.rng = np.random.default_rng(seed)
        self.budget_bytes = 2 * WIDTH * budget_rows
        self.weight = self.rng.standard_normal((6, WIDTH)).astype(np.float32)
        self.adapters: dict[str, NDArray[np.float32]] = {}
        self.origins: Origins = ()
        self.learned: list[tuple[Floats, Floats]] = []

    def step(self, name: str, n: int = 40, pace: float = 0.1) -> None:
        number = len(self.learned)
        self.weight = (self.weight + pace * self.rng.standard_normal(self.weight.shape)).astype(np.float32)
        digest = f"sha256:{number}"
        self.adapters[digest] = self.weight
        rows = unit_rows(int(self.rng.integers(1000)), n)
        new = replace(origin(name, number), sketch=sketch(rows), reference=digest)
        self.origins = archive(learn(self.origins, new, self.bound), self.budget_bytes, DEVICE, self.bound, digest)
        self.learned.append((rows, rows @ self.weight.T.astype(np.float64)))

    def bound(self, o: Origin) -> float:
        return certify("gyro", o.id, o.sketch, self.weight, self.adapters[o.reference], o.carried).bound

    def moved(self, *numbers: int) -> float:
        """Mean squared displacement, measured, of all features learned in the steps of these numbers."""
        each = [
            np.square(rows @ self.weight.T.astype(np.float64) - then).sum(1)
            for rows, then in (self.learned[number] for number in numbers)
        ]
        return float(np.concatenate(each).mean())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 7), budget_rows=st.integers(8, 40))
def test_certificate_is_never_below_the_displacement_measured_archived_or_not(
    seed: int, steps: int, budget_rows: int
) -> None:
    life = Life(seed, budget_rows)
    for number in range(steps):
        life.step(f"step{number}")
    for o in life.origins:
        assert life.moved(*(int(name.removeprefix("step")) for name in stands_for(o))) <= life.bound(o) * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    history=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([1, 16, 40, 300]), st.sampled_from([0.0, 0.05, 0.5])),
        min_size=1,
        max_size=25,
    ),
)
def test_certificate_covers_every_feature_of_a_long_history_of_returns(
    seed: int, history: list[tuple[str, int, float]]
) -> None:
    life = Life(seed)
    for name, n, pace in history:
        life.step(name, n, pace)
    for o in life.origins:
        numbers = [number for number, (name, _, _) in enumerate(history) if name == o.id]
        assert o.sketch.n == sum(history[number][1] for number in numbers)
        assert life.moved(*numbers) <= life.bound(o) * (1 + 1e-9)


def test_small_returns_do_not_hide_how_far_a_large_recording_moved() -> None:
    life = Life(0)
    life.step("a", 1000)
    life.step("a", 16, pace=0.5)
    for _ in range(20):
        life.step("a", 16, pace=0.0)
    (aged,) = life.origins
    assert life.moved(*range(22)) > 0.5 * life.moved(0)
    assert life.moved(*range(22)) <= life.bound(aged) * (1 + 1e-9)


def test_archiving_twice_carries_the_displacement_without_inflating_it() -> None:
    life = Life(0, budget_rows=24)
    for number in range(6):
        life.step(f"step{number}")
    (archived,) = life.origins
    assert len(archived.absorbed) == 6
    assert archived.carried > 0
    measured = life.moved(*range(6))
    # Norms add up as if all five later steps had gone the same way; random ones did not: a factor of five, and delta.
    assert measured <= life.bound(archived) <= 6 * measured


def test_what_an_archive_holds_stays_protected_and_certified_when_all_its_pairs_come_back() -> None:
    life = Life(0, budget_rows=1)
    life.step("a")
    life.step("b")
    life.step("c")
    (held,) = life.origins
    life.budget_bytes = 10**6
    for name in "abcabc":
        life.step(name)
    kept = next(o for o in life.origins if o.absorbed)
    assert {o.id for o in life.origins} == {"a", "b", "c", held.id}
    assert np.array_equal(kept.sketch.rows, held.sketch.rows)
    assert life.moved(0, 1, 2) <= life.bound(kept) * (1 + 1e-9)
    for o in life.origins:
        if not o.absorbed:
            steps = [number for number in range(3, 9) if "abcabc"[number - 3] == o.id]
            assert life.moved(*steps) <= life.bound(o) * (1 + 1e-9)
    assert sum(o.weight for o in life.origins) == pytest.approx(3.0)
    assert min(o.weight for o in life.origins) > 0.25
    life.budget_bytes = 1
    life.step("d")
    (everything,) = life.origins
    assert set(stands_for(everything)) == set("abcd")
    assert everything.sketch.n == 40 * 10


def test_a_pair_that_returns_after_it_was_archived_does_not_pile_up() -> None:
    life = Life(0, budget_rows=24)
    for night in range(12):
        life.step(f"pair{night % 4}")
    assert sum(o.weight for o in life.origins) == pytest.approx(4.0)


def test_union_with_an_older_copy_of_what_was_archived_counts_it_once() -> None:
    before = crowd()
    after = archive(before, 2 * WIDTH * 40, DEVICE, still, "sha256:now")
    assert same(union(before, after), after)
