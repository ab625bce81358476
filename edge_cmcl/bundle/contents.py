"""A generation's payloads, read and checked against its document: what callers use instead of raw blobs."""

from __future__ import annotations

from edge_cmcl.bundle import limits
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
from edge_cmcl.data.pairs_format import MIN_SAMPLES
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


def read_reference(loaded: Loaded, digest: str) -> Adapter:
    """Return the adapter with this digest, of today or older, of whichever modality refers to it.

    Raises:
        DigestError, FormatError: no modality does, or the blob is damaged or does not fit the generation.
    """
    for modality, record in loaded.generation.modalities.items():
        if digest in (record.adapter_blob, *record.references):
            return _adapter(loaded, modality, record, digest)
    raise FormatError(f"generation {loaded.digest[:19]} has no adapter {digest[:80]}", expected="one that it names")


def read_origins(loaded: Loaded, modality: str) -> tuple[Origin, ...]:
    """Return the origins of one modality, in the order of its record.

    Raises:
        DigestError, FormatError: a blob is damaged or does not fit the generation.
    """
    record = modality_record(loaded, modality)
    most = 2 * limits.MAX_SKETCH_ROWS * record.width
    names = [f"sketch {digest[:19]} of {modality}" for digest in record.origins]
    blobs = zip(record.origins, names, strict=True)
    origins = tuple(sketch_from_bytes(_read(loaded, digest, most, name), name) for digest, name in blobs)
    adapters = {record.adapter_blob, *record.references}
    used = {record.adapter_blob} | {origin.reference for origin in origins}
    for name, origin in zip(names, origins, strict=True):
        _expect(f"{name}: modality", modality, origin.modality)
        _expect(f"{name}: width", record.width, origin.sketch.rows.shape[1])
        _expect(f"{name}: its reference is in the bundle", True, origin.reference in adapters)
    ids = [origin.id for origin in origins]
    _expect(f"origins of {modality}: each id once", len(set(ids)), len(ids))
    _expect(f"references of {modality} that no origin uses", [], sorted(set(record.references) - used))
    return origins


def read_golden(loaded: Loaded, modality: str) -> Golden | None:
    """Return the golden vectors of one sensor: "windows" (n, T, C) or (n, T, H, W) and "embeddings" (n, d).

    None where it has none.

    Raises:
        DigestError, FormatError: the blob is damaged or does not fit the generation.
    """
    record = modality_record(loaded, modality)
    if record.golden_blob is None:
        return None
    name = f"golden vectors of {modality}"
    golden = golden_from_bytes(_read(loaded, record.golden_blob, limits.MAX_GOLDEN_BYTES, name), name)
    _expect(f"{name}: tensors", (["windows"], ["embeddings"]), (list(golden.inputs), list(golden.outputs)))
    windows, embeddings = golden.inputs["windows"], golden.outputs["embeddings"]
    _expect(f"{name}: dtypes", ("float32", "float32"), (windows.dtype.name, embeddings.dtype.name))
    channels = tuple(record.frame) if record.frame else (record.channels,)
    _expect(f"{name}: windows", (2 + len(channels), channels), (windows.ndim, windows.shape[2:]))
    _expect(f"{name}: embeddings", (len(windows), loaded.generation.embedding_dim), embeddings.shape)
    _expect(
        f"{name}: windows of {MIN_SAMPLES} samples or more", True, len(windows) > 0 and windows.shape[1] >= MIN_SAMPLES
    )
    return golden


def read_labels(loaded: Loaded, modality: str = "text") -> LabelFeatures | None:
    """Return the label names and features of a text modality, None where it has none.

    Raises:
        DigestError, FormatError: the blob is damaged.
    """
    digest = modality_record(loaded, modality).label_blob
    if digest is None:
        return None
    most = 4 * limits.LABEL_WIDTH * limits.MAX_LABELS
    name = f"label features of {modality}"
    return labels_from_bytes(_read(loaded, digest, most, name), name)


def check_digests(loaded: Loaded) -> None:
    """Check every blob of a generation against its size and digest, in bounded memory.

    Raises:
        DigestError: one is missing or damaged.
    """
    for digest in loaded.blobs:
        loaded.verify(digest)


def check_contents(loaded: Loaded) -> None:
    """Read every blob of a generation once and check that all of it fits together.

    Raises:
        DigestError, FormatError: something does not.
    """
    check_digests(loaded)
    for modality in loaded.generation.modalities:
        read_references(loaded, modality)
        read_origins(loaded, modality)
        read_golden(loaded, modality)
        read_labels(loaded, modality)


def _adapter(loaded: Loaded, modality: str, record: ModalityRecord, digest: str) -> Adapter:
    d, width = shape = (loaded.generation.embedding_dim, record.width)
    name = f"adapter {digest[:19]} of {modality}"
    adapter = adapter_from_bytes(_read(loaded, digest, 4 * (d + 2) * width, name), name)
    _expect(f"{name}: shape", shape, adapter.weight.shape)
    _expect(f"{name}: statistics", record.kind != "text", adapter.mean is not None)
    return adapter


def _read(loaded: Loaded, digest: str, most: int, name: str) -> bytes:
    """Return a payload whose tensors take at most `most` bytes by what the document says: a larger one is not read."""
    size, limit = loaded.blob_size(digest), most + limits.MAX_TENSOR_HEADER_BYTES + 8
    if size > limit:
        raise FormatError(f"{name} is too large", expected=f"at most {limit} bytes", got=f"{size} bytes")
    return loaded.read(digest)


def _expect(what: str, expected: object, got: object) -> None:
    if expected != got:
        raise FormatError(f"{what} does not fit the generation", expected=str(expected)[:200], got=str(got)[:200])
