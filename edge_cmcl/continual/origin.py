"""Origins: what a modality's adapter has learned, one learned step at a time, and how sets of them combine.

Z_m = sum over origins of w_o C_o (design.md section 2, "State per modality"). Sets are plain tuples sorted by id, so
that equal sets hold equal origins in equal order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.sketch import MAX_ROWS, Sketch, merge

MEMORY = 4.0
"""When a pair comes back, its old features count at most this many times as much as its new ones."""


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
        carried: mean squared displacement that archiving carried over from before `reference`.
        weight: weight of the origin in Z_m.
        absorbed: (id, revision) of each origin that an archive stands for; none for an origin of one step.
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
    """Return the union by id: idempotent, commutative and associative, so a base shared by two devices counts once.

    Of two origins with one id the higher revision counts, then the later one; what else differs only breaks ties, so
    that the order of the sets never decides. An origin that an archive has absorbed counts within the archive, and an
    archive whose origins have all come back counts no more.
    """
    best: dict[str, Origin] = {}
    for origin in (origin for origins in sets for origin in origins):
        known = best.get(origin.id)
        if known is None or _seniority(origin) > _seniority(known):
            best[origin.id] = origin
    absorbed = {name: revision for origin in best.values() for name, revision in origin.absorbed}

    def counts(origin: Origin) -> bool:
        if origin.absorbed:
            return any(name not in best or best[name].revision <= revision for name, revision in origin.absorbed)
        return origin.revision > absorbed.get(origin.id, -1)

    return tuple(best[name] for name in sorted(best) if counts(best[name]))


def learn(origins: Origins, new: Origin, displacement: Callable[[Origin], float]) -> Origins:
    """Return `origins` with `new` added; where its id is known, the pair came back and its origin ages instead.

    A pair that comes back after it was archived takes its share of the archive's weight along.

    The aged sketch is the mean of old and new second moment by their numbers of features, the old one counting at most
    `MEMORY` times the new one, so that a pair learned every night neither piles up nor freezes. How far the old
    features have moved until now is carried with the same share: the certificate goes on covering them.

    Args:
        origins: all origins of one modality.
        new: the step just learned.
        displacement: see `archive`.
    """
    known = next((origin for origin in origins if origin.id == new.id), None)
    if known is None:
        return _learn_archived(origins, new)
    old_n = min(known.sketch.n, MEMORY * new.sketch.n)
    share = new.sketch.n / (old_n + new.sketch.n)
    sketch = merge([known.sketch, new.sketch], [1.0 - share, share])
    carried = (1.0 - share) * displacement(known)
    aged = replace(new, revision=known.revision + 1, sketch=sketch, carried=carried, weight=known.weight)
    return union(origins, [aged])


def _learn_archived(origins: Origins, new: Origin) -> Origins:
    """Add `new`, whose id no origin has, and take what an archive holds of it out of the archive's weight."""
    holder = next((origin for origin in origins if new.id in dict(origin.absorbed)), None)
    if holder is None:
        return union(origins, [new])
    share = holder.weight / len(holder.absorbed)
    rest = tuple(entry for entry in holder.absorbed if entry[0] != new.id)
    back = replace(new, revision=dict(holder.absorbed)[new.id] + 1, weight=share)
    others = [origin for origin in origins if origin is not holder]
    if rest:
        others.append(replace(holder, revision=holder.revision + 1, weight=holder.weight - share, absorbed=rest))
    return union(others, [back])


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

    Args:
        origins: all origins of one modality.
        budget_bytes: float16 bytes that the sketches' rows may take together.
        device: whose origins may be merged.
        displacement: bound on the mean squared displacement of an origin until now (`certificate.certify(...).bound`).
        reference: digest of the adapter as it is now; displacement is counted from it on, what came before is carried.
    """
    while sketch_bytes(origins) > budget_bytes:
        own = sorted((o for o in origins if o.device == device), key=lambda o: (o.id != _archive_id(device), o.created))
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


def _merge_pair(a: Origin, b: Origin, device: str, displacement: Callable[[Origin], float], reference: str) -> Origin:
    total = a.weight + b.weight
    shares = [a.weight / total, b.weight / total]
    return Origin(
        id=_archive_id(device),
        revision=max(a.revision, b.revision) + 1,
        device=device,
        modality=a.modality,
        partners=tuple(sorted({*a.partners, *b.partners})),
        created=max(a.created, b.created),
        sketch=merge([a.sketch, b.sketch], shares, MAX_ROWS),
        reference=reference,
        carried=sum(share * displacement(origin) for share, origin in zip(shares, (a, b), strict=True)),
        weight=total,
        absorbed=tuple(sorted({**_stands_for(a), **_stands_for(b)}.items())),
    )


def _stands_for(origin: Origin) -> dict[str, int]:
    return dict(origin.absorbed) or {origin.id: origin.revision}


def _archive_id(device: str) -> str:
    return f"archive:{device}"


def _seniority(origin: Origin) -> tuple[int | float | str, ...]:
    sketch = origin.sketch
    content = (sketch.n, sketch.trace, sketch.delta, origin.carried, origin.weight)
    return origin.revision, origin.created, origin.reference, *content
