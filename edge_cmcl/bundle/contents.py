"""A generation's payloads, read and checked against its document: what callers use instead of raw blobs."""

from __future__ import annotations

from edge_cmcl.bundle.generation import ModalityRecord
from edge_cmcl.bundle.layout import Loaded
from edge_cmcl.bundle.payloads import (
    Adapter,
    Golden,
    LabelFeatures,
    adapter_from_bytes,
    golden_from_bytes,
    labels_from_bytes,
    sketch_from_bytes,
)
from edge_cmcl.continual.origin import Origin
from edge_cmcl.errors import FormatError, ModelError


def modality_record(loaded: Loaded, modality: str) -> ModalityRecord:
    """Return the record of one modality.

    Raises:
        ModelError: the generation does not know it.
    """
    known = loaded.generation.modalities
    if modality not in known:
        expected = f"one of {', '.join(sorted(known))}"
        raise ModelError(
            f"generation {loaded.digest[:19]} has no modality {modality!r}", expected=expected, got=modality
        )
    return known[modality]


def read_adapter(loaded: Loaded, modality: str) -> Adapter:
    """Return the adapter of one modality: weight (embedding_dim, width), statistics (width,) or None for text.

    Raises:
        DigestError, FormatError: the blob is damaged or does not fit the generation.
    """
    record = modality_record(loaded, modality)
    return _adapter(loaded, modality, record, record.adapter_blob)


def read_references(loaded: Loaded, modality: str) -> dict[str, Adapter]:
    """Return the adapter of each digest that an origin of `modality` may refer to, today's included.

    Raises:
        DigestError, FormatError: a blob is damaged or does not fit the generation.
    """
    record = modality_record(loaded, modality)
    return {d: _adapter(loaded, modality, record, d) for d in (record.adapter_blob, *record.references)}


def read_origins(loaded: Loaded, modality: str) -> tuple[Origin, ...]:
    """Return the origins of one modality, in the order of its record.

    Raises:
        DigestError, FormatError: a blob is damaged or does not fit the generation.
    """
    record = modality_record(loaded, modality)
    origins = tuple(sketch_from_bytes(loaded.read(digest), f"sketch {digest[:19]}") for digest in record.origins)
    adapters = {record.adapter_blob, *record.references, ""}
    used = {record.adapter_blob} | {origin.reference for origin in origins}
    for digest, origin in zip(record.origins, origins, strict=True):
        name = f"sketch {digest[:19]} of {modality}"
        _expect(f"{name}: modality", modality, origin.modality)
        _expect(f"{name}: width", record.width, origin.sketch.rows.shape[1])
        _expect(f"{name}: its reference is in the bundle", True, origin.reference in adapters)
    ids = [origin.id for origin in origins]
    _expect(f"origins of {modality}: each id once", len(set(ids)), len(ids))
    _expect(f"references of {modality} that no origin uses", [], sorted(set(record.references) - used))
    return origins


def read_golden(loaded: Loaded, modality: str) -> Golden | None:
    """Return the golden vectors of one modality, None where it has none.

    Raises:
        DigestError, FormatError: the blob is damaged.
    """
    digest = modality_record(loaded, modality).golden_blob
    return golden_from_bytes(loaded.read(digest), f"golden vectors of {modality}") if digest else None


def read_labels(loaded: Loaded, modality: str = "text") -> LabelFeatures | None:
    """Return the label names and features of a text modality, None where it has none.

    Raises:
        DigestError, FormatError: the blob is damaged.
    """
    digest = modality_record(loaded, modality).label_blob
    return labels_from_bytes(loaded.read(digest), f"label features of {modality}") if digest else None


def check_contents(loaded: Loaded) -> None:
    """Read every blob of a generation once and check that all of it fits together.

    Raises:
        DigestError, FormatError: something does not.
    """
    for layer in loaded.manifest.layers:
        loaded.layout.verify(layer)
    for modality in loaded.generation.modalities:
        read_references(loaded, modality)
        read_origins(loaded, modality)
        read_golden(loaded, modality)
        read_labels(loaded, modality)


def _adapter(loaded: Loaded, modality: str, record: ModalityRecord, digest: str) -> Adapter:
    adapter = adapter_from_bytes(loaded.read(digest), f"adapter {digest[:19]} of {modality}")
    shape = (loaded.generation.embedding_dim, record.width)
    _expect(f"adapter {digest[:19]} of {modality}: shape", shape, adapter.weight.shape)
    _expect(f"adapter {digest[:19]} of {modality}: statistics", record.kind != "text", adapter.mean is not None)
    return adapter


def _expect(what: str, expected: object, got: object) -> None:
    if expected != got:
        raise FormatError(f"{what} does not fit the generation", expected=str(expected)[:200], got=str(got)[:200])
