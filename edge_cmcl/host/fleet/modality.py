"""One modality of several generations brought together: its origins united, its adapter one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge_cmcl.bundle import CertificateRecord, ModalityRecord
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.limits import MAX_ORIGINS
from edge_cmcl.bundle.payloads import Adapter, adapter_to_bytes
from edge_cmcl.continual.certificate import certify
from edge_cmcl.continual.merging import Lesson, groups_of, merged_adapter
from edge_cmcl.continual.origin import Origins, union
from edge_cmcl.device.calibration import united_calibration
from edge_cmcl.device.clipping import DRIFT
from edge_cmcl.device.features import Statistics
from edge_cmcl.device.model import Model
from edge_cmcl.errors import RefusedError
from edge_cmcl.host.fleet.parents import named
from edge_cmcl.host.fleet.statistics import Source, check_finite, common, move_of, moved

FITTED = "fitted"
"""How a modality came about: its adapter was fitted to what several devices had learned."""
MOVED = "fitted under common statistics"
"""The same, after their features were brought to one mean and standard deviation."""
KEPT = "taken as it is"
"""From one generation, because it has all that the others have."""

_SAME = ("kind", "channels", "frame", "encoder", "encoder_blob", "scale", "width")
"""Fields in which the records of one modality must agree: with others, features are other features."""


@dataclass(frozen=True)
class United:
    """One modality of the merged generation, before it is written.

    Attributes:
        name: the modality.
        how: `FITTED`, `MOVED` or `KEPT`.
        devices: who has taught what is left of it, "" for the host.
        main: the model that its record, encoder and golden windows are taken from; all of it where it was kept.
        record: its record; of a fitted one, blob digests of `main` still.
        adapter: the merged one.
        origins: united.
        certificates: one per origin.
        made: blob of the adapter, b"" where it was kept.
        notes: what differed between the generations and was dropped.
    """

    name: str
    how: str
    devices: tuple[str, ...]
    main: Model
    record: ModalityRecord
    adapter: Adapter
    origins: Origins
    certificates: tuple[CertificateRecord, ...]
    made: bytes = b""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return how it was merged, in JSON types."""
        return {
            "how": self.how,
            "devices": list(self.devices),
            "origins": len(self.origins),
            "features": sum(origin.sketch.n for origin in self.origins),
            "notes": list(self.notes),
        }


def unite(name: str, models: Sequence[Model]) -> United:
    """Return the modality `name` of all `models` that know it as one.

    Where one of them has all origins already, its adapter has taken all of them into account, and is kept. Otherwise
    the adapter is fitted to all of them (`continual.merging`).

    Raises:
        RefusedError: their records contradict each other, there are too many origins, the statistics cannot be brought
            together, or the result is not finite.
        DigestError, FormatError: a blob is damaged.
    """
    holders = [model for model in models if name in model.modalities]
    _check_records(name, holders)
    sets = [model.origins(name) for model in holders]
    holder_of = {id(origin): model for model, found in zip(holders, sets, strict=True) for origin in found}
    united = union(*sets)
    _check_count(name, united)
    devices = tuple(sorted({origin.device for origin in united}))
    wanted = {_key(origin) for origin in united}
    whole = [model for model, found in zip(holders, sets, strict=True) if {_key(each) for each in found} >= wanted]
    if whole:
        main = min(whole, key=lambda model: model.record(name).adapter_blob)
        stated = tuple(each for each in main.generation.certificate if each.modality == name)
        notes = _notes(name, main, holders)
        return United(
            name, KEPT, devices, main, main.record(name), main.adapter(name), main.origins(name), stated, notes=notes
        )
    sources = [(origin, holder_of[id(origin)]) for origin in united]
    return _fit(name, holders, sources, groups_of(sets, united), devices)


def _fit(
    name: str, holders: Sequence[Model], sources: Sequence[Source], groups: Sequence[int], devices: tuple[str, ...]
) -> United:
    main = _main(name, sources)
    to = common(name, sources)
    weight = merged_adapter(_lessons(name, sources, groups, to), groups=max(groups) + 1)
    check_finite(name, weight)
    own = main.adapter(name)
    adapter = Adapter(weight, own.mean, own.std) if to is None else Adapter(weight, to.mean, to.std)
    data = adapter_to_bytes(adapter)
    digest = digest_of(data)
    if to is None:
        origins = tuple(origin for origin, _ in sources)
    else:
        origins = tuple(moved(name, source, to, weight, digest) for source in sources)
    learned = (model.reference(origin.reference) if to is None else weight for origin, model in sources)
    certificates = (
        certify(name, origin.id, origin.sketch, weight, reference, origin.carried)
        for origin, reference in zip(origins, learned, strict=True)
    )
    calibration = {key: value for key, value in main.record(name).calibration.items() if key != DRIFT}
    entries = united_calibration([(origin, model.record(name)) for origin, model in sources], to is not None)
    record = main.record(name).model_copy(
        update={
            "adapter_blob": digest,
            "references": tuple(sorted({origin.reference for origin in origins} - {digest})),
            "calibration": {**calibration, **({DRIFT: entries} if entries else {})},
        }
    )
    how = FITTED if to is None else MOVED
    stated = tuple(CertificateRecord(**vars(each)) for each in certificates)
    return United(name, how, devices, main, record, adapter, origins, stated, data, _notes(name, main, holders))


def _lessons(name: str, sources: Sequence[Source], groups: Sequence[int], to: Statistics | None) -> Iterator[Lesson]:
    """Yield what each origin asks for, one at a time: not all of their adapters are in memory."""
    totals = [0.0] * (max(groups) + 1)
    for (origin, _), group in zip(sources, groups, strict=True):
        totals[group] += origin.weight
    for (origin, model), group in zip(sources, groups, strict=True):
        move = move_of(name, (origin, model), to) if to is not None else None
        learned, share = model.reference(origin.reference), origin.weight / totals[group]
        yield Lesson(origin.weight, origin.sketch, learned, share, move)


def _check_records(name: str, holders: Sequence[Model]) -> None:
    first = holders[0]
    for other in holders[1:]:
        for key in _SAME:
            a, b = getattr(first.record(name), key), getattr(other.record(name), key)
            if a != b:
                _refuse(name, key, first, other, a, b)
        a, b = first.record(name).unit, other.record(name).unit
        if a and b and a != b:
            _refuse(name, "unit", first, other, a, b)


def _refuse(name: str, key: str, first: Model, other: Model, a: object, b: object) -> None:
    raise RefusedError(
        f"{name} cannot be merged: {named(first.loaded)} and {named(other.loaded)} learned it as different sensors",
        expected=f"one {key}: {a}",
        got=str(b),
        hint=f"merge without one of the two, or let one `forget {name}` and learn it again the other's way",
    )


def _check_count(name: str, united: Origins) -> None:
    if len(united) > MAX_ORIGINS:
        raise RefusedError(
            f"{name} cannot be merged: too much was learned of it, step by step",
            expected=f"at most {MAX_ORIGINS} origins",
            got=str(len(united)),
            hint="merge fewer devices",
        )


def _notes(name: str, main: Model, holders: Sequence[Model]) -> tuple[str, ...]:
    """Return in which harmless fields generations differ: encoders take windows of any length."""
    notes = []
    for key in ("rate_hz", "window_s", "unit"):
        kept = getattr(main.record(name), key)
        others = {getattr(model.record(name), key) for model in holders} - {kept}
        if others:
            notes.append(f"{key} {kept or 'not stated'}, elsewhere {', '.join(map(str, sorted(others, key=str)))}")
    return tuple(notes)


def _key(origin: Any) -> tuple[str, int, str]:
    return origin.id, origin.revision, origin.reference


def _main(name: str, sources: Sequence[Source]) -> Model:
    """Return the model that most of what is left was learned by, of those from which an origin is taken."""
    taken: dict[str, int] = {}
    for origin, model in sources:
        blob = model.record(name).adapter_blob
        taken[blob] = taken.get(blob, 0) + origin.sketch.n
    blob = max(taken, key=lambda each: (taken[each], each))
    return next(model for _, model in sources if model.record(name).adapter_blob == blob)
