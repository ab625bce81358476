"""Generations of several devices become one: origins united, adapters fitted to all of them, certified (DESIGN.md).

Needs what devices send and nothing else: adapters, statistics, sketches. Cost is linear in devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_cmcl.bundle import CertificateRecord, Generation, Loaded, ModalityRecord, PairRecord, Store, timestamp
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.limits import MAX_PAIRS
from edge_cmcl.bundle.payloads import golden_from_bytes, golden_to_bytes, labels_to_bytes, sketch_to_bytes
from edge_cmcl.bundle.store_files import all_or_nothing
from edge_cmcl.bundle.tags import free_tag
from edge_cmcl.continual.certificate import Certificate
from edge_cmcl.device.golden import make_golden
from edge_cmcl.device.guard import Failure, failures, record
from edge_cmcl.device.model import Model
from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import RefusedError
from edge_cmcl.host.fleet.labels import united_labels
from edge_cmcl.host.fleet.modality import KEPT, United, unite
from edge_cmcl.host.fleet.parents import check_parents
from edge_cmcl.limits import MAX_DRIFT, MAX_MODALITIES
from edge_cmcl.version import SOFTWARE

Accept = Callable[[Loaded], Mapping[str, Descriptor] | None]
"""Called with the merged generation before a tag leads to it, for instance to sign it; see `Store.commit`."""


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        digest: manifest digest of the merged generation.
        counter: its counter.
        parents: manifest digests of what it was merged from.
        modalities: how each modality came about, by name (`modality.United`).
        certificate: of every origin of every modality.
        failed: checks of the guard that were overridden.
    """

    digest: str
    counter: int
    parents: tuple[str, ...]
    modalities: dict[str, dict[str, Any]]
    certificate: tuple[CertificateRecord, ...]
    failed: tuple[Failure, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        certificate = [each.model_dump() for each in self.certificate]
        return {**vars(self), "certificate": certificate, "failed": [vars(each).copy() for each in self.failed]}


def merge(
    store: Store,
    parents: Sequence[Loaded],
    *,
    max_drift: float = MAX_DRIFT,
    force: bool = False,
    tags: Iterable[str] = (),
    accept: Accept | None = None,
) -> Merged:
    """Commit the generation that `parents` come to together, and return how.

    Args:
        store: the host's store, to which the merged generation and all its blobs go.
        parents: newest generations of devices with a common base, the main line first; nothing but order of history
            and harmless fields depends on their order.
        max_drift: largest relative displacement bound that an origin may have afterwards.
        force: commit although one has more; the generation says so.
        tags: tags to point to it, beside its own.
        accept: called before a tag leads to it.

    Raises:
        UsageError: there is one parent only.
        WrongBaseError: they are of several projects or bases.
        RefusedError: one is an ancestor of another or has all that the others have, they contradict each other, the
            result is not finite, it moves an origin too far, or it does not pass its self-test here.
        DigestError, FormatError: a parent is damaged.
        StoreLockedError, StorageError: the store cannot be written.
    """
    check_parents(parents)
    models = [Model(parent) for parent in parents]
    names = sorted({name for model in models for name in model.modalities})
    if len(names) > MAX_MODALITIES:
        raise RefusedError("too many sensors", expected=f"at most {MAX_MODALITIES}", got=str(len(names)))
    united = [unite(name, models) for name in names]
    _check_new(models, united)
    failed = _guard(united, max_drift, force)
    with store.writer(), all_or_nothing(store):
        records = {each.name: _write(store, models, each) for each in united}
        generation = _generation(models, records, united, failed)
        _copy(store, models, generation)
        digest = store.commit(generation, tags, _accepting(store, accept))
    return Merged(
        digest=digest,
        counter=generation.counter,
        parents=generation.parents,
        modalities={each.name: each.as_json() for each in united},
        certificate=generation.certificate,
        failed=tuple(failed),
    )


def _check_new(models: Sequence[Model], united: Sequence[United]) -> None:
    """Check that no parent has everything: a merge would only be a copy of it."""
    for model in models:
        same = (
            each.how == KEPT and each.name in model.modalities and each.record == model.record(each.name)
            for each in united
        )
        if all(same):
            raise RefusedError(
                "there is nothing to merge",
                expected="generations that each know something the others do not",
                got=f"{model.loaded.digest[7:19]} has learned all that the others have",
                hint="promote that one",
            )


def _guard(united: Sequence[United], max_drift: float, force: bool) -> list[Failure]:
    certificates = [Certificate(**each.model_dump()) for one in united if one.how != KEPT for each in one.certificates]
    failed = failures({}, certificates, [], max_drift)
    if failed and not force:
        others = "".join(f"; also {failure.message}: {failure.got}" for failure in failed[1:5])
        raise RefusedError(
            f"the merge was not committed: {failed[0].message}",
            expected=failed[0].expected,
            got=failed[0].got + others,
            hint="merge without the device whose origin that is, or allow more with --max-drift; --force commits all "
            "the same",
        )
    return failed


def _write(store: Store, models: Sequence[Model], united: United) -> ModalityRecord:
    """Write what no parent has of one modality, and return its record."""
    update: dict[str, object] = {}
    if united.name == TEXT:
        labels = united_labels(models)
        update["label_blob"] = store.put_in_parts(labels_to_bytes(labels)) if labels is not None else None
    if united.how == KEPT:
        return united.record.model_copy(update=update)
    store.put_in_parts(united.made)
    update["origins"] = tuple(store.put_in_parts(sketch_to_bytes(origin)) for origin in united.origins)
    golden = united.record.golden_blob
    if golden is not None:
        windows = golden_from_bytes(united.main.loaded.read(golden)).inputs["windows"]
        encoder = united.main.make_encoder(united.name, united.record)
        update["golden_blob"] = store.put_in_parts(golden_to_bytes(make_golden(encoder, united.adapter, windows)))
    return united.record.model_copy(update=update)


def _generation(
    models: Sequence[Model], records: Mapping[str, ModalityRecord], united: Sequence[United], failed: list[Failure]
) -> Generation:
    first = models[0].generation
    metrics: dict[str, object] = {"merge": {each.name: each.as_json() for each in united}}
    if failed:
        metrics["guard"] = record(failed)
    return Generation.model_validate(
        {
            "name": first.name,
            "counter": max(model.generation.counter for model in models) + 1,
            "parents": tuple(model.loaded.digest for model in models),
            "base": models[0].loaded.base,
            "device_class": first.device_class,
            "created": timestamp(),
            "software": SOFTWARE,
            "action": "merge",
            "embedding_dim": first.embedding_dim,
            "modalities": dict(records),
            "universal": first.universal,
            "step": first.step,
            "pairs": _pairs(models),
            "certificate": tuple(certificate for each in united for certificate in each.certificates),
            "metrics": metrics,
        }
    )


def _pairs(models: Sequence[Model]) -> tuple[PairRecord, ...]:
    """Return what was learned together, each step once: of one that a device repeated, its latest record."""
    best: dict[tuple[frozenset[str], str], tuple[tuple[int, str], PairRecord]] = {}
    for model in models:
        ages = _ages(model)
        for pair in model.generation.pairs:
            key, age = (frozenset(pair.modalities), pair.origin), ages.get(pair.origin, (-1, ""))
            if key not in best or age > best[key][0]:
                best[key] = (age, pair)
    if len(best) > MAX_PAIRS:
        got = str(len(best))
        raise RefusedError("too many learned pairs for one generation", expected=f"at most {MAX_PAIRS}", got=got)
    return tuple(pair for _, pair in best.values())


def _ages(model: Model) -> dict[str, tuple[int, str]]:
    """Return revision and time of each learned step, by origin id."""
    found: dict[str, tuple[int, str]] = {}
    for origin in (origin for name in model.modalities for origin in model.origins(name)):
        for name, revision in origin.absorbed or ((origin.id, origin.revision),):
            found[name] = max(found.get(name, (-1, "")), (revision, origin.created))
    return found


def _copy(store: Store, models: Sequence[Model], generation: Generation) -> None:
    """Bring what the merged generation takes from its parents into the store, where they are not of it."""
    others = [model.loaded for model in models if model.loaded.layout.root != store.root]
    held = {digest: loaded for loaded in others for digest in loaded.blobs}
    for _, _, digest in generation.blobs():
        if digest in held and not store.has(digest):
            store.put_in_parts(held[digest].read(digest))


def _accepting(store: Store, accept: Accept | None) -> Accept:
    def accepting(new: Loaded) -> Mapping[str, Descriptor]:
        self_test(Model(new))
        further = accept(new) if accept is not None else None
        return {**(further or {}), free_tag(new, store.tags()): new.descriptor}

    return accepting
