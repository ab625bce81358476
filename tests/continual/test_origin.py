from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from origin_samples import DEVICE, WIDTH, moment, moment_of, origin, same, sketch, stands_for, still, unit_rows

from edge_cmcl.continual.origin import Origin, Origins, archive, learn, mean_eigenvalue, moment_rows, union


@st.composite
def origin_sets(draw: st.DrawFn) -> Origins:
    """Small sets whose ids, revisions, times, digests and contents clash in every way, archives that diverged too."""

    def drawn() -> Origin:
        return Origin(
            id=draw(st.sampled_from("abc")),
            revision=draw(st.integers(0, 1)),
            device=draw(st.sampled_from([DEVICE, "edge-8"])),
            modality="gyro",
            partners=("acc",),
            created=draw(st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])),
            sketch=sketch(unit_rows(draw(st.integers(0, 2)))),
            reference=draw(st.sampled_from(["", "sha256:1"])),
            carried=draw(st.sampled_from([0.0, 0.5])),
            weight=draw(st.sampled_from([1.0, 2.0])),
        )

    origins = union([drawn() for _ in range(draw(st.integers(0, 4)))])
    if draw(st.booleans()):
        origins = archive(origins, 1, DEVICE, still, "sha256:now")
    if draw(st.booleans()):
        origins = learn(origins, drawn(), still)
    return origins


@settings(max_examples=200, deadline=None)
@given(a=origin_sets(), b=origin_sets(), c=origin_sets())
def test_union_is_idempotent_commutative_and_associative(a: Origins, b: Origins, c: Origins) -> None:
    assert same(union(a, a), a)
    assert same(union(a, b), union(b, a))
    assert same(union(union(a, b), c), union(a, union(b, c)))
    assert same(union(union(a, b), b), union(a, b))
    assert len({o.id for o in union(a, b, c)}) == len(union(a, b, c))


@settings(max_examples=200, deadline=None)
@given(a=origin_sets(), b=origin_sets(), c=origin_sets())
def test_union_loses_nothing_that_one_of_the_sets_stands_for(a: Origins, b: Origins, c: Origins) -> None:
    merged = [stands_for(o) for o in union(union(a, b), c)]
    for o in (*a, *b, *c):
        assert any(all(kept.get(name, -1) >= revision for name, revision in stands_for(o).items()) for kept in merged)


def archived(*names: str) -> Origin:
    parts = tuple(origin(name, "abcd".index(name)) for name in names)
    (o,) = archive(union(parts), 1, DEVICE, still, "sha256:now")
    return o


def test_archives_of_one_device_that_diverged_do_not_replace_each_other() -> None:
    a, ab, bc = origin("a", 0), archived("a", "b"), archived("b", "c")
    for order in permutations([(a,), (ab,), (bc,)]):
        assert {o.id for o in union(*order)} == {ab.id, bc.id}
    assert same(union([ab, bc], [archived("a", "b", "c")]), (archived("a", "b", "c"),))


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
    share = new_n / (old_n + new_n)
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


def test_every_night_counts_by_its_number_of_features() -> None:
    first, direction = np.zeros((40, WIDTH)), np.zeros((20, WIDTH))
    first[:, 0] = 1.0
    direction[:, 1] = 1.0
    origins: Origins = (replace(origin("a"), sketch=sketch(first)),)
    for night in range(1, 11):
        origins = learn(origins, replace(origin("a"), sketch=sketch(direction)), still)
        share = 40 / (40 + 20 * night)
        assert moment_of(origins)[0, 0] == pytest.approx(share, abs=1e-2)
        assert moment_of(origins)[1, 1] == pytest.approx(1.0 - share, abs=1e-2)
        assert origins[0].sketch.n == 40 + 20 * night


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
