"""Which generations can be merged: several of one project and one base, none of them part of another's history."""

from __future__ import annotations

from collections.abc import Sequence

from edge_cmcl.bundle import Loaded
from edge_cmcl.bundle.limits import MAX_PARENTS
from edge_cmcl.errors import RefusedError, UsageError, WrongBaseError


def named(loaded: Loaded) -> str:
    """Return what errors and reports call a generation: who made it, and its counter there."""
    generation = loaded.generation
    return f"{generation.device_id[:12] or 'host'} {generation.counter}"


def check_parents(parents: Sequence[Loaded]) -> None:
    """Check that `parents` have something to bring together, and can.

    Raises:
        UsageError: they are fewer than two, or one is given twice.
        WrongBaseError: they are of several projects, or their histories did not begin with one base.
        RefusedError: one is an ancestor of another, or they are too many.
    """
    if len({parent.digest for parent in parents}) < max(2, len(parents)):
        raise UsageError(
            "a merge needs several generations, each once",
            expected="at least two",
            got=", ".join(f"{named(parent)} ({parent.digest[7:19]})" for parent in parents) or "none",
        )
    if len(parents) > MAX_PARENTS:
        raise RefusedError(
            "too many generations for one merge",
            expected=f"at most {MAX_PARENTS}",
            got=str(len(parents)),
            hint="merge some of them first, then the results: much the same, with somewhat larger certificates",
        )
    _check_equal(parents, "project", [parent.generation.name for parent in parents])
    _check_equal(parents, "base", [parent.base for parent in parents])
    _check_equal(parents, "device class", [parent.generation.device_class for parent in parents])
    _check_equal(parents, "universal encoder", [parent.generation.universal for parent in parents])
    _check_equal(parents, "training step", [parent.generation.step for parent in parents])
    _check_equal(parents, "embedding size", [str(parent.generation.embedding_dim) for parent in parents])
    _check_apart(parents)


def _check_equal(parents: Sequence[Loaded], what: str, values: Sequence[str]) -> None:
    other = next((place for place, value in enumerate(values) if value != values[0]), None)
    if other is not None:
        raise WrongBaseError(
            f"{named(parents[0])} and {named(parents[other])} have no common {what}",
            expected=f"generations of one {what}, {_short(values[0])}",
            got=_short(values[other]),
            hint="only what began with the same export can be merged",
        )


def _check_apart(parents: Sequence[Loaded]) -> None:
    """Check that no parent comes before another one, as far as their history is here."""
    before = {digest for parent in parents for digest in parent.generation.parents}
    for layout in {parent.layout.root: parent.layout for parent in parents}.values():
        for loaded in layout.lineage([digest for digest in before if layout.has(digest)]):
            before |= {loaded.digest, *loaded.generation.parents}
    older = next((parent for parent in parents if parent.digest in before), None)
    if older is not None:
        raise RefusedError(
            f"{named(older)} ({older.digest[7:19]}) is part of another one's history",
            expected="generations that were learned apart",
            got="one that another continues: what it knows is in that already",
            hint="leave it out; of one device merge the newest generation alone",
        )


def _short(value: str) -> str:
    return value[7:19] if value.startswith("sha256:") else value or "none"
