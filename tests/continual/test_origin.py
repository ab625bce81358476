from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_cmcl.continual.certificate import certify
from edge_cmcl.continual.origin import (
    MEMORY,
    Origin,
    Origins,
    archive,
    learn,
    mean_eigenvalue,
    moment_rows,
    sketch_bytes,
    union,
)
from edge_cmcl.continual.sketch import FrequentDirections, Sketch

WIDTH = 24
DEVICE = "edge-7"

Floats = NDArray[np.float64]


@cache
def unit_rows(seed: int, n: int = 40) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((n, WIDTH)) * np.arange(1, WIDTH + 1) ** -0.5
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def sketch(rows: Floats, max_rows: int = 8) -> Sketch:
    directions = FrequentDirections(WIDTH, 16)
    directions.update(rows)
    return directions.sketch(max_rows)


def moment(rows: Floats) -> Floats:
    return np.asarray(rows.T @ rows / len(rows))


def origin(name: str, seed: int = 0, device: str = DEVICE, revision: int = 0, created: str = "", n: int = 40) -> Origin:
    created = created or f"2026-01-{seed + 1:02d}T00:00:00Z"
    return Origin(name, revision, device, "gyro", ("acc",), created, sketch(unit_rows(seed, n)), f"sha256:{seed}")


def still(origin: Origin) -> float:
    """Nothing moves."""
    return 0.0


def moment_of(origins: Origins) -> Floats:
    rows = moment_rows(origins, WIDTH)
    return np.asarray(rows.T @ rows)


def same(a: Origins, b: Origins) -> bool:
    """Whether two sets hold the same origins in the same order, whole."""
    return len(a) == len(b) and all(
        replace(x, sketch=y.sketch) == y and np.array_equal(x.sketch.rows, y.sketch.rows)
        for x, y in zip(a, b, strict=True)
    )


@st.composite
def origin_sets(draw: st.DrawFn) -> Origins:
    """Small sets whose ids, revisions, times, digests and contents clash in every way."""
    return union(
        [
            Origin(
                id=draw(st.sampled_from("abc")),
                revision=draw(st.integers(0, 1)),
                device=DEVICE,
                modality="gyro",
                partners=("acc",),
                created=draw(st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])),
                sketch=sketch(unit_rows(draw(st.integers(0, 2)))),
                reference=draw(st.sampled_from(["", "sha256:1"])),
                carried=draw(st.sampled_from([0.0, 0.5])),
                weight=draw(st.sampled_from([1.0, 2.0])),
            )
            for _ in range(draw(st.integers(0, 3)))
        ]
    )


@settings(max_examples=100, deadline=None)
@given(a=origin_sets(), b=origin_sets(), c=origin_sets())
def test_union_is_idempotent_commutative_and_associative(a: Origins, b: Origins, c: Origins) -> None:
    assert same(union(a, a), a)
    assert same(union(a, b), union(b, a))
    assert same(union(union(a, b), c), union(a, union(b, c)))
    assert same(union(union(a, b), b), union(a, b))


def test_union_counts_a_common_base_once() -> None:
    base, one, two = origin("base", 0, device=""), origin("one", 1), origin("two", 2, device="edge-8")
    merged = union([base, one], [base, two])
    assert [o.id for o in merged] == ["base", "one", "two"]
    np.testing.assert_allclose(moment_of(merged), sum(moment_of((o,)) for o in (base, one, two)))


def test_of_two_equal_ids_the_higher_revision_counts_then_the_later() -> None:
    old, new = origin("a", 1, revision=1), origin("a", 0, revision=2)
    assert union([old], [new]) == (new,)
    early, late = origin("a", 0), origin("a", 1)
    assert union([late], [early]) == (late,)


def test_union_does_not_depend_on_the_order_of_many_sets() -> None:
    sets = [(origin("a", i, revision=i % 2), origin(f"b{i}", i)) for i in range(3)]
    results = [union(*order) for order in permutations(sets)]
    assert all(same(result, results[0]) for result in results)


def test_a_new_pair_is_added() -> None:
    before = (origin("a", 0),)
    new = origin("b", 1)
    assert learn(before, new, still) == (before[0], new)


@settings(max_examples=25, deadline=None)
@given(old_n=st.integers(1, 60), new_n=st.integers(1, 60), seed=st.integers(0, 1000))
def test_a_returning_pair_ages_and_the_aged_sketch_bounds_the_mean(old_n: int, new_n: int, seed: int) -> None:
    known = replace(origin("a", seed % 20, n=old_n), weight=1.5)
    rows = unit_rows(seed + 50, new_n)
    new = replace(origin("a"), sketch=sketch(rows), created="2026-02-01T00:00:00Z", reference="sha256:new")
    (aged,) = learn((known,), new, still)
    share = new_n / (min(old_n, MEMORY * new_n) + new_n)
    mean = (1 - share) * moment(unit_rows(seed % 20, old_n)) + share * moment(rows)
    stored = aged.sketch.rows.astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(mean - stored.T @ stored)
    assert eigenvalues[-1] <= aged.sketch.delta + 1e-12
    assert eigenvalues[0] >= -(2.0**-9)
    assert aged.sketch.trace == pytest.approx(1.0)
    assert (aged.id, aged.revision, aged.weight) == ("a", 1, 1.5)
    assert (aged.created, aged.reference) == ("2026-02-01T00:00:00Z", "sha256:new")


def test_returning_every_night_keeps_weight_and_trace_and_leaves_other_origins_alone() -> None:
    origins: Origins = (origin("base", 0, device=""), origin("a", 1))
    base = origins[0]
    for night in range(2, 12):
        origins = learn(origins, origin("a", night), still)
    assert [o.id for o in origins] == ["a", "base"]
    assert origins[1] is base
    assert origins[0].revision == 10
    assert sum(o.weight * o.sketch.trace for o in origins) == pytest.approx(2.0)


def test_old_nights_fade_but_no_single_night_takes_over() -> None:
    first, direction = np.zeros((40, WIDTH)), np.zeros((40, WIDTH))
    first[:, 0] = 1.0
    direction[:, 1] = 1.0
    origins: Origins = (replace(origin("a"), sketch=sketch(first)),)
    shares = []
    for _ in range(10):
        origins = learn(origins, replace(origin("a"), sketch=sketch(direction)), still)
        shares.append(moment_of(origins)[0, 0])
    assert shares[0] == pytest.approx(0.5, abs=1e-3)
    # From the fourth night on MEMORY bounds the old share: 4 / 5 of it stays each night.
    assert shares[-1] / shares[-2] == pytest.approx(MEMORY / (MEMORY + 1), abs=1e-2)
    assert moment_of(origins)[1, 1] == pytest.approx(1.0 - shares[-1], abs=1e-2)


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
    archived = kept[f"archive:{DEVICE}"]
    assert (archived.device, archived.reference) == (DEVICE, "sha256:now")
    assert sum(o.weight for o in after) == pytest.approx(sum(o.weight for o in before))
    assert np.trace(moment_of(after)) <= sum(o.weight * o.sketch.trace for o in before) * (1 + 2.0**-10)


def test_archive_takes_the_oldest_first() -> None:
    # Merged sketches may have up to WIDTH rows, so it takes four of 8 rows each to save anything.
    before = crowd()
    after = archive(before, sketch_bytes(before) - 1, DEVICE, still, "sha256:now")
    assert {o.id for o in after} == {"base", "foreign", f"archive:{DEVICE}", "own4", "own5"}


def test_archive_bounds_the_mean_of_what_it_merged() -> None:
    before = crowd()
    after = archive(before, 2 * WIDTH * 40, DEVICE, still, "sha256:now")
    archived = next(o for o in after if o.id == f"archive:{DEVICE}")
    merged = {o.id for o in before} - {o.id for o in after}
    true = np.mean([moment(unit_rows(int(name[3:]))) for name in merged], axis=0)
    stored = archived.sketch.rows.astype(np.float64)
    assert archived.weight == len(merged) == 6
    assert np.linalg.eigvalsh(true - stored.T @ stored)[-1] <= archived.sketch.delta + 1e-12


def test_a_budget_that_the_devices_own_cannot_meet_is_left_exceeded() -> None:
    before = crowd()
    after = archive(before, 1, DEVICE, still, "sha256:now")
    assert {o.id for o in after} == {"base", "foreign", f"archive:{DEVICE}"}


class Life:
    """A device whose adapter changes at every step: it learns, archives, and remembers what it once embedded."""

    def __init__(self, seed: int, budget_rows: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.budget_bytes = 2 * WIDTH * budget_rows
        self.weight = self.rng.standard_normal((6, WIDTH)).astype(np.float32)
        self.adapters: dict[str, NDArray[np.float32]] = {}
        self.origins: Origins = ()
        self.learned: list[tuple[Floats, Floats]] = []

    def step(self, name: str) -> None:
        number = len(self.learned)
        self.weight = (self.weight + 0.1 * self.rng.standard_normal(self.weight.shape)).astype(np.float32)
        digest = f"sha256:{number}"
        self.adapters[digest] = self.weight
        rows = unit_rows(int(self.rng.integers(1000)))
        new = replace(origin(name, number), sketch=sketch(rows), reference=digest)
        self.origins = archive(learn(self.origins, new, self.bound), self.budget_bytes, DEVICE, self.bound, digest)
        self.learned.append((rows, rows @ self.weight.T.astype(np.float64)))

    def bound(self, o: Origin) -> float:
        return certify("gyro", o.id, o.sketch, self.weight, self.adapters[o.reference], o.carried).bound

    def moved(self, number: int) -> float:
        """Mean squared displacement, measured, of the features learned in step `number`."""
        rows, then = self.learned[number]
        return float(np.square(rows @ self.weight.T.astype(np.float64) - then).sum(1).mean())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 7), budget_rows=st.integers(8, 40))
def test_certificate_is_never_below_the_displacement_measured_archived_or_not(
    seed: int, steps: int, budget_rows: int
) -> None:
    life = Life(seed, budget_rows)
    for number in range(steps):
        life.step(f"step{number}")
    for o in life.origins:
        numbers = range(round(o.weight)) if o.id.startswith("archive") else [int(o.id.removeprefix("step"))]
        assert np.mean([life.moved(number) for number in numbers]) <= life.bound(o) * (1 + 1e-9)


def test_archiving_twice_carries_the_displacement_without_inflating_it() -> None:
    life = Life(0, budget_rows=24)
    for number in range(6):
        life.step(f"step{number}")
    (archived,) = life.origins
    assert archived.id == f"archive:{DEVICE}"
    assert archived.carried > 0
    measured = np.mean([life.moved(number) for number in range(6)])
    # Norms add up as if all five later steps had gone the same way; random ones did not: a factor of five, and delta.
    assert measured <= life.bound(archived) <= 6 * measured


def test_certificate_of_a_returning_pair_covers_its_older_features() -> None:
    life = Life(0, budget_rows=1000)
    for _ in range(4):
        life.step("a")
    (aged,) = life.origins
    # Of the last night 1/4, of the one before 1/4, and so on: all nights are of equal size and within MEMORY.
    measured = np.mean([life.moved(number) for number in range(4)])
    assert measured <= life.bound(aged) * (1 + 1e-9)


def test_a_pair_that_returns_after_it_was_archived_does_not_pile_up() -> None:
    life = Life(0, budget_rows=24)
    for night in range(12):
        life.step(f"pair{night % 4}")
    assert sum(o.weight for o in life.origins) == pytest.approx(4.0)


def test_union_with_an_older_copy_of_what_was_archived_counts_it_once() -> None:
    before = crowd()
    after = archive(before, 2 * WIDTH * 40, DEVICE, still, "sha256:now")
    assert same(union(before, after), after)


@pytest.mark.parametrize("order", [1, -1])
def test_mean_eigenvalue_weighs_origins(order: int) -> None:
    origins = (replace(origin("a", 0), weight=3.0), replace(origin("b", 1), sketch=sketch(2.0 * unit_rows(1))))[::order]
    assert mean_eigenvalue(origins, WIDTH) == pytest.approx((3.0 * 1.0 + 4.0) / 4.0 / WIDTH)


def test_without_origins_the_moment_is_empty_and_its_scale_that_of_unit_features() -> None:
    assert moment_rows((), WIDTH).shape == (0, WIDTH)
    assert mean_eigenvalue((), WIDTH) == 1.0 / WIDTH


def test_moment_rows_apply_the_weights() -> None:
    a, b = replace(origin("a", 0), weight=2.5), origin("b", 1)
    np.testing.assert_allclose(moment_of((a, b)), 2.5 * moment_of((replace(a, weight=1.0),)) + moment_of((b,)))
