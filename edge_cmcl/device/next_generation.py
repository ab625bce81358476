"""From fitted adapters to the next generation's documents and blobs, and its certificate."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import CertificateRecord, Generation, ModalityRecord, PairRecord, Store, timestamp
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.payloads import (
    Adapter,
    LabelFeatures,
    adapter_to_bytes,
    golden_from_bytes,
    golden_to_bytes,
    labels_to_bytes,
    sketch_to_bytes,
)
from edge_cmcl.continual.certificate import Certificate, certify
from edge_cmcl.continual.origin import Origin, Origins, archive, learn
from edge_cmcl.continual.sketch import Sketch
from edge_cmcl.device.encoders import Encoder
from edge_cmcl.device.golden import golden_windows, make_golden
from edge_cmcl.device.model import Model
from edge_cmcl.device.text import TEXT, label_features
from edge_cmcl.version import SOFTWARE

SKETCH_BUDGET_BYTES = 2_500_000
"""Float16 bytes that the sketches of one modality may take before a device's oldest origins are archived."""

_MAX_ORIGIN_ID = 128


@dataclass(frozen=True)
class LearnedModality:
    """One modality after an update, before it is written.

    Attributes:
        name: the modality.
        record: its record; blob digests are filled in later.
        adapter: the new adapter.
        adapter_bytes: its blob.
        origins: its origins, the update's own included.
        certificates: one per origin.
        references: older adapters, by digest, that the origins still refer to.
    """

    name: str
    record: ModalityRecord
    adapter: Adapter
    adapter_bytes: bytes
    origins: Origins
    certificates: tuple[Certificate, ...]
    references: tuple[str, ...]


def origin_id(device: str, members: Sequence[str], task: str = "") -> str:
    """Return the id of the origin that aligning `members` on `device` makes; equal members and task, equal id."""
    text = f"{device}:{'+'.join(sorted(members))}" + (f"@{task}" if task else "")
    return text if len(text) <= _MAX_ORIGIN_ID else f"{device}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def learned_modality(
    model: Model,
    name: str,
    record: ModalityRecord,
    adapter: Adapter,
    sketch: Sketch,
    device: str,
    members: Sequence[str],
    task: str = "",
) -> LearnedModality:
    """Return what `name` has become: its origins with this step's, and how far the older ones have moved at most."""
    data = adapter_to_bytes(adapter)
    digest = digest_of(data)
    known = name in model.modalities
    before = model.origins(name) if known else ()
    weights: dict[str, NDArray[np.float32]] = {digest: adapter.weight}

    def certificate(origin: Origin) -> Certificate:
        if origin.reference not in weights:
            weights[origin.reference] = model.reference(origin.reference)
        learned = weights[origin.reference]
        return certify(name, origin.id, origin.sketch, adapter.weight, learned, origin.carried)

    step_id = origin_id(device, members, task)
    step = Origin(
        id=step_id,
        revision=_first_revision(model, step_id, members),
        device=device,
        modality=name,
        partners=tuple(sorted(set(members) - {name})),
        created=timestamp(),
        sketch=sketch,
        reference=digest,
    )

    def displacement(origin: Origin) -> float:
        return certificate(origin).bound

    origins = archive(learn(before, step, displacement), SKETCH_BUDGET_BYTES, device, displacement, digest)
    certificates = tuple(certificate(origin) for origin in origins)
    references = tuple(sorted({origin.reference for origin in origins} - {digest}))
    return LearnedModality(name, record, adapter, data, origins, certificates, references)


def write_modality(
    store: Store, model: Model, learned: LearnedModality, encoder: Encoder | None, samples: int, labels: Sequence[str]
) -> ModalityRecord:
    """Write the blobs of one learned modality and return its record.

    Args:
        store: where to.
        model: the generation before.
        learned: the modality.
        encoder: its encoder, None for text.
        samples: samples of the golden windows.
        labels: label names of the recording, for text.
    """
    for digest in learned.references:
        if digest in model.made:
            store.put_in_parts(model.made[digest][1])
    update: dict[str, object] = {
        "adapter_blob": store.put_in_parts(learned.adapter_bytes),
        "origins": tuple(store.put_in_parts(sketch_to_bytes(origin)) for origin in learned.origins),
        "references": learned.references,
    }
    if encoder is None:
        names = tuple(dict.fromkeys((*_known_labels(model), *labels)))
        update["label_blob"] = store.put_in_parts(labels_to_bytes(LabelFeatures(names, label_features(names))))
    else:
        windows = _golden_inputs(model, learned, samples)
        update["golden_blob"] = store.put_in_parts(golden_to_bytes(make_golden(encoder, learned.adapter, windows)))
    return learned.record.model_copy(update=update)


def next_generation(
    model: Model,
    device: str,
    records: dict[str, ModalityRecord],
    learned: Sequence[LearnedModality],
    pairs: Sequence[PairRecord],
    metrics: Mapping[str, object],
) -> Generation:
    """Return the document of the generation that follows `model` after an update."""
    old = model.generation
    changed = {modality.name for modality in learned}
    kept = tuple(record for record in old.certificate if record.modality not in changed)
    new = tuple(
        CertificateRecord(modality=c.modality, origin=c.origin, bound=c.bound, relative=c.relative)
        for modality in learned
        for c in modality.certificates
    )
    replaced = {(frozenset(pair.modalities), pair.origin) for pair in pairs}
    older = tuple(pair for pair in old.pairs if (frozenset(pair.modalities), pair.origin) not in replaced)
    return successor(
        model,
        device,
        "update",
        modalities={**old.modalities, **records},
        pairs=(*older, *pairs),
        certificate=(*kept, *new),
        metrics=metrics,
    )


def successor(
    model: Model,
    device: str,
    action: str,
    *,
    modalities: Mapping[str, ModalityRecord],
    pairs: Sequence[PairRecord],
    certificate: Sequence[CertificateRecord],
    metrics: Mapping[str, object],
) -> Generation:
    """Return the document of the generation that follows `model`: what it knows is given, the rest goes on."""
    old = model.generation
    return Generation.model_validate(
        {
            "name": old.name,
            "counter": old.counter + 1,
            "parents": (model.loaded.digest,),
            "base": model.loaded.base,
            "device_id": device,
            "device_class": old.device_class,
            "created": timestamp(),
            "software": SOFTWARE,
            "action": action,
            "embedding_dim": old.embedding_dim,
            "modalities": dict(modalities),
            "universal": old.universal,
            "step": old.step,
            "pairs": tuple(pairs),
            "certificate": tuple(certificate),
            "metrics": dict(metrics),
        }
    )


def _first_revision(model: Model, step: str, members: Sequence[str]) -> int:
    """Return the revision of a step in a modality that has none of it.

    0, unless the modality was forgotten since: what its partners keep of the step tells how often it was learned, and
    what is learned now is later than that.
    """
    known = [origin for name in members if name in model.modalities for origin in model.origins(name)]
    revisions = [{origin.id: origin.revision, **dict(origin.absorbed)}.get(step, -1) for origin in known]
    return max(revisions, default=-1) + 1


def _known_labels(model: Model) -> tuple[str, ...]:
    return model.labels.names if TEXT in model.modalities else ()


def _golden_inputs(model: Model, learned: LearnedModality, samples: int) -> NDArray[np.float32]:
    """Return the inputs of the golden vectors that the modality has already, or new ones."""
    blob = learned.record.golden_blob
    if blob is None:
        return golden_windows(learned.name, learned.record, samples)
    return np.asarray(golden_from_bytes(model.loaded.read(blob)).inputs["windows"], dtype=np.float32)
