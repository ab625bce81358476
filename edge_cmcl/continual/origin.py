"""Origins: what a modality's adapter has learned, one learned step at a time, and how sets of them combine.

Z_m = sum over origins of w_o C_o (design.md section 2, "State per modality"). Sets are plain tuples sorted by id, so
that equal sets hold equal origins in equal order.

Every set that a device makes holds, of each pair it ever learned, all features: in the pair's own origin, in archives,
or part in each. What is learned under an id up to a revision is what (id, revision) names; see `union`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.sketch import MAX_ROWS, Sketch, merge


@dataclass(frozen=True)
class Origin:
    """One learned step as seen by one modality.

    Attributes:
        id: name of the learned step; equal ids are the same step, whatever device they come from.
        revision: grows when the same pair comes back; of two equal ids the higher revision counts.
        device: id of the device that learned it, "" for the host.
        modality: whose features the sketch describes.
        partners: the modalities it was aligned with.
        created: ISO 8601 time in UTC.
        sketch: second moment of the features.
        reference: digest of the adapter blob that embedded these features when they were learned, "" for none.
        carried: mean squared displacement, over the features of the sketch, that was there before `reference`.
        weight: weight of the origin in Z_m.
        absorbed: (id, revision) of each origin that an archive stands for; none for an origin of one pair.
    """

    id: str
    revision: int
    device: str
    modality: str
    partners: tuple[str, ...]
    created: str
    sketch: Sketch
    reference: str
    carried: float = 0.0
    weight: float = 1.0
    absorbed: tuple[tuple[str, int], ...] = ()


Origins = tuple[Origin, ...]


def union(*sets: Iterable[Origin]) -> Origins:
    """Return the union: idempotent, commutative and associative, so a base shared by two devices counts once.

    An origin stands for its id up to its revision, an archive for all that it absorbed. What another one of the sets
    stands for as well, id by id and up to the same revision or a higher one, counts there; of two that stand for the
    same, the one of higher revision, then the later one. These are the greatest elements of a partial order, so the
    order of the sets never decides. Archives that diverged both stay, whatever they share.
    """
    best: dict[str, Origin] = {}
    for origin in (origin for origins in sets for origin in origins):
        known = best.get(origin.id)
        # Equal ids stand for comparable things: one id at two revisions, or archives of the same origins.
        if known is None or _seniority(origin) > _seniority(known):
            best[origin.id] = origin
    stands = {name: _stands_for(origin) for name, origin in best.items()}

    def counts(name: str) -> bool:
        return not any(
            _covers(stands[other], stands[name])
            and (not _covers(stands[name], stands[other]) or _seniority(best[other]) > _seniority(best[name]))
            for other in best
        )

    return tuple(best[name] for name in sorted(best) if counts(name))


def learn(origins: Origins, new: Origin, displacement: Callable[[Origin], float]) -> Origins:
    """Return `origins` with `new` added; where its id is known, the pair came back and its origin ages instead.

    The aged sketch is the mean of old and new second moment by their numbers of features, so that a pair learned every
    night does not pile up. How far the old features have moved until now is carried with the same share: the
    certificate goes on covering every feature ever learned under that id, each counting once.

    A pair that comes back after it was archived has an origin of its own again. The archive keeps what it holds of
    it, and hands over one part in (number of origins it absorbed) + 1 of its weight.

    Args:
        origins: all origins of one modality.
        new: the step just learned.
        displacement: see `archive`.
    """
    known = next((origin for origin in origins if origin.id == new.id), None)
    if known is None:
        return _learn_archived(origins, new)
    n = known.sketch.n + new.sketch.n
    shares = [known.sketch.n / n, new.sketch.n / n]
    sketch = merge([known.sketch, new.sketch], shares)
    carried = shares[0] * displacement(known)
    aged = replace(new, revision=known.revision + 1, sketch=sketch, carried=carried, weight=known.weight)
    return union(origins, [aged])


def _learn_archived(origins: Origins, new: Origin) -> Origins:
    """Add `new`, whose id no origin has; archives that hold the id give it a part of their weight."""
    holders = [origin for origin in origins if new.id in dict(origin.absorbed)]
    if not holders:
        return union(origins, [new])
    parts = [holder.weight / (len(holder.absorbed) + 1) for holder in holders]
    revision = max(dict(holder.absorbed)[new.id] for holder in holders) + 1
    lighter = [
        replace(holder, revision=holder.revision + 1, weight=holder.weight - part)
        for holder, part in zip(holders, parts, strict=True)
    ]
    return union(origins, lighter, [replace(new, revision=revision, weight=sum(parts))])


def archive(
    origins: Origins,
    budget_bytes: int,
    device: str,
    displacement: Callable[[Origin], float],
    reference: str,
) -> Origins:
    """Return `origins` within `budget_bytes`, the oldest of `device` merged into one archive origin.

    Origins of other devices and of the host's base are never merged with the device's own, so that a merge on the host
    can still tell them apart. Where the device's own origins are already one archive, the budget may stay exceeded.

    In an archive origins count by weight, not by number of features, so that a short recording stays as protected as
    it was: an archive's certificate is the mean over its origins by weight.

    Args:
        origins: all origins of one modality.
        budget_bytes: float16 bytes that the sketches' rows may take together.
        device: whose origins may be merged.
        displacement: bound on the mean squared displacement of an origin until now (`certificate.certify(...).bound`).
        reference: digest of the adapter as it is now; displacement is counted from it on, what came before is carried.
    """
    while sketch_bytes(origins) > budget_bytes:
        own = sorted((o for o in origins if o.device == device), key=lambda o: (not o.absorbed, o.created, o.id))
        if len(own) < 2:
            return origins
        merged = _merge_pair(own[0], own[1], device, displacement, reference)
        origins = union((o for o in origins if o.id not in (own[0].id, own[1].id)), [merged])
    return origins


def sketch_bytes(origins: Iterable[Origin]) -> int:
    """Return the bytes that the sketches' rows take on disk in float16."""
    return sum(2 * origin.sketch.rows.size for origin in origins)


def moment_rows(origins: Iterable[Origin], width: int) -> NDArray[np.float64]:
    """Return rows (r, width) with rows^T rows = Z_m."""
    rows = [np.sqrt(origin.weight) * origin.sketch.rows.astype(np.float64) for origin in origins]
    return np.concatenate([np.zeros((0, width)), *rows])


def mean_eigenvalue(origins: Iterable[Origin], width: int) -> float:
    """Return the mean eigenvalue trace(C) / width of an origin's second moment, weighted; 1 / width for no origins."""
    pairs = [(origin.weight, origin.sketch.trace) for origin in origins]
    total = sum(weight for weight, _ in pairs)
    return sum(weight * trace for weight, trace in pairs) / total / width if total > 0 else 1.0 / width


def covers(have: Iterable[Origin], want: Iterable[Origin]) -> bool:
    """Whether `have` stands for all that `want` does, each id up to at least the same revision."""
    stands: dict[str, int] = {}
    for origin in have:
        for name, revision in _stands_for(origin).items():
            stands[name] = max(revision, stands.get(name, -1))
    return all(_covers(stands, _stands_for(origin)) for origin in want)


def _merge_pair(a: Origin, b: Origin, device: str, displacement: Callable[[Origin], float], reference: str) -> Origin:
    total = a.weight + b.weight
    shares = [a.weight / total, b.weight / total]
    older, newer = _stands_for(a), _stands_for(b)
    absorbed = {name: max(older.get(name, 0), newer.get(name, 0)) for name in sorted({*older, *newer})}
    return Origin(
        id=_archive_id(device, absorbed),
        revision=0,
        device=device,
        modality=a.modality,
        partners=tuple(sorted({*a.partners, *b.partners})),
        created=max(a.created, b.created),
        sketch=merge([a.sketch, b.sketch], shares, MAX_ROWS),
        reference=reference,
        carried=sum(share * displacement(origin) for share, origin in zip(shares, (a, b), strict=True)),
        weight=total,
        absorbed=tuple(absorbed.items()),
    )


def _archive_id(device: str, absorbed: dict[str, int]) -> str:
    """Return a name that only an archive of just these origins has: two that diverged must not replace each other."""
    return f"archive:{device}:{hashlib.sha256(json.dumps(absorbed).encode()).hexdigest()[:32]}"


def _stands_for(origin: Origin) -> dict[str, int]:
    return dict(origin.absorbed) or {origin.id: origin.revision}


def _covers(a: dict[str, int], b: dict[str, int]) -> bool:
    return all(a.get(name, -1) >= revision for name, revision in b.items())


def _seniority(origin: Origin) -> tuple[int | float | str, ...]:
    sketch = origin.sketch
    content = (sketch.n, sketch.trace, sketch.delta, origin.carried, origin.weight)
    return origin.revision, origin.created, origin.reference, *content, origin.device, *origin.partners, origin.id
