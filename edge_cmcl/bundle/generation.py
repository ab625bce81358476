"""The generation document: what a manifest's blobs are, and how they came to be (FORMAT.md, "Generation")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.canonical import canonical, parse
from edge_cmcl.bundle.documents import (
    Counter,
    Descriptor,
    DeviceId,
    Digest,
    Manifest,
    ModalityName,
    OriginId,
    OwnModel,
    Timestamp,
    from_json,
    to_json,
)
from edge_cmcl.bundle.media_types import (
    BUNDLE,
    GENERATION,
    MODALITY_ANNOTATION,
    PART_ANNOTATION,
    ROLE_ANNOTATION,
    ROLES,
)
from edge_cmcl.bundle.parts import by_blob, part_of, part_type
from edge_cmcl.bundle.reading import check_size
from edge_cmcl.errors import FormatError

SCHEMA: Final = "edge-cmcl/generation/1"

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Action = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,31}$")]
ShortText = Annotated[str, StringConstraints(max_length=limits.MAX_UNIT_LENGTH)]
Free = dict[str, JsonValue]
Digests = Annotated[tuple[Digest, ...], Field(max_length=limits.MAX_ORIGINS)]
FrameSide = Annotated[int, Field(ge=1, le=limits.MAX_FRAME_SIDE)]


class ModalityRecord(OwnModel):
    """One modality of a generation.

    Attributes:
        kind: "series" (T, C), "frames" (T, H, W) or "text" (label names).
        channels: C of a series, None otherwise.
        frame: (H, W) of frames, None otherwise.
        rate_hz: nominal rate in Hz, None where there is none.
        window_s: nominal length of a window in s, None where there is none.
        unit: of the recorded values, "" for none.
        scale: the encoder sees value / scale.
        encoder: "universal", "conv", "onnx" or "text".
        encoder_blob: the encoder's ONNX; the generation's `universal` for "universal", None for "text".
        width: number of features.
        adapter_blob: W and the statistics of the features.
        origins: sketch blobs, in the order of the origins' ids.
        references: older adapter blobs that the certificates of `origins` still need.
        golden_blob: windows and embeddings of the self-test, None for none and for text.
        label_blob: label names and their features; text only.
        calibration: figures that a reader may use but need not know (thresholds of the drift watch).
    """

    kind: Literal["series", "frames", "text"]
    channels: Annotated[int, Field(ge=1, le=limits.MAX_CHANNELS)] | None = None
    frame: tuple[FrameSide, FrameSide] | None = None
    rate_hz: Positive | None = None
    window_s: Positive | None = None
    unit: ShortText = ""
    scale: Positive = 1.0
    encoder: Literal["universal", "conv", "onnx", "text"]
    encoder_blob: Digest | None = None
    width: Annotated[int, Field(ge=1, le=limits.MAX_WIDTH)]
    adapter_blob: Digest
    origins: Digests = ()
    references: Digests = ()
    golden_blob: Digest | None = None
    label_blob: Digest | None = None
    calibration: Free = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> ModalityRecord:
        text = self.kind == "text"
        _require((self.channels is not None) == (self.kind == "series"), "channels: for kind series, and only there")
        _require((self.frame is not None) == (self.kind == "frames"), "frame: for kind frames, and only there")
        _require((self.encoder == "text") == text, "encoder text: for kind text, and only there")
        _require((self.encoder_blob is None) == text, "encoder_blob: for every kind but text")
        _require(self.label_blob is None or text, "label_blob: for kind text only")
        _require(self.golden_blob is None or not text, "golden_blob: for every kind but text")
        _require(_unique(self.origins) and _unique(self.references), "origins, references: each digest once")
        _require(self.adapter_blob not in self.references, "references: older adapters only")
        _require_small(self.calibration, "calibration")
        return self

    def blobs(self) -> Iterator[tuple[str, str]]:
        """Yield (role, digest) of each blob of this modality."""
        one_each = (("encoder", self.encoder_blob), ("adapter", self.adapter_blob), ("labels", self.label_blob))
        yield from ((role, digest) for role, digest in one_each if digest is not None)
        yield from (("sketch", digest) for digest in self.origins)
        yield from (("reference", digest) for digest in self.references)
        if self.golden_blob is not None:
            yield "golden", self.golden_blob


class PairRecord(OwnModel):
    """One learned pair: which modalities, from how many windows, judged how."""

    modalities: tuple[ModalityName, ModalityName]
    origin: OriginId
    n: Annotated[int, Field(ge=1, le=limits.MAX_INTEGER)]
    metrics: Free = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> PairRecord:
        _require_small(self.metrics, "metrics")
        return self


class CertificateRecord(OwnModel):
    """How far the old embeddings of one origin have moved at most (design.md section 2, "Certificate").

    Attributes:
        bound: upper bound of tr(D C D^T), squared displacement before normalisation, mean over the old features.
        relative: the same, relative to the energy of the embeddings when they were learned.
    """

    modality: ModalityName
    origin: OriginId
    bound: NotNegative
    relative: NotNegative


class Generation(OwnModel):
    """The config document of a bundle's manifest.

    Attributes:
        name: the project's name.
        counter: grows along history; a device refuses a bundle with a lower one than it had.
        parents: manifest digests of the generations that this one continues, the main line first.
        base: manifest digest of the export that its history began with; None exactly for an export without parents.
        device_id: the device that made it, "" for a host.
        device_class: the hardware class it is bound to, "" for any.
        created: time in UTC, see `timestamp`.
        software: name and version of what wrote it.
        action: "export", "install", "update", "merge", "forget", ...
        embedding_dim: d.
        universal: ONNX of the universal encoder.
        step: ONNX of the training step.
        metrics: free JSON about the whole generation.
    """

    schema_name: Annotated[Literal["edge-cmcl/generation/1"], Field(alias="schema")] = SCHEMA
    name: Name
    counter: Counter
    parents: Annotated[tuple[Digest, ...], Field(max_length=limits.MAX_PARENTS)] = ()
    base: Digest | None = None
    device_id: DeviceId = ""
    device_class: DeviceId = ""
    created: Timestamp
    software: ShortText
    action: Action
    embedding_dim: Annotated[int, Field(ge=1, le=limits.MAX_EMBEDDING_DIM)]
    modalities: Annotated[dict[ModalityName, ModalityRecord], Field(min_length=1, max_length=limits.MAX_MODALITIES)]
    universal: Digest
    step: Digest
    pairs: Annotated[tuple[PairRecord, ...], Field(max_length=limits.MAX_PAIRS)] = ()
    certificate: Annotated[tuple[CertificateRecord, ...], Field(max_length=limits.MAX_CERTIFICATES)] = ()
    metrics: Free = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Generation:
        _require(_unique(self.parents), "parents: each digest once")
        _require((self.base is None) == (not self.parents), "base: for a generation with parents, and only there")
        for name, record in self.modalities.items():
            shared = (record.encoder_blob == self.universal) == (record.encoder == "universal")
            _require(shared, f"modalities.{name}: encoder universal uses the generation's universal blob")
        named = {name for pair in self.pairs for name in pair.modalities} | {c.modality for c in self.certificate}
        unknown = sorted(named - set(self.modalities))
        _require(not unknown, f"pairs and certificate: name modalities of this generation only, not {unknown[:3]}")
        _require_small(self.metrics, "metrics")
        return self

    def blobs(self) -> Iterator[tuple[str, str, str]]:
        """Yield (role, modality or "", digest) of each blob, in the order of the manifest's layers."""
        yield "universal", "", self.universal
        yield "step", "", self.step
        for name in sorted(self.modalities):
            for role, digest in self.modalities[name].blobs():
                yield role, name, digest

    def media_types(self) -> dict[str, str]:
        """Return the media type of each blob's digest.

        Raises:
            FormatError: one blob is used as two kinds of things.
        """
        kinds: dict[str, str] = {}
        for role, modality, digest in self.blobs():
            if kinds.setdefault(digest, ROLES[role]) != ROLES[role]:
                raise FormatError(
                    f"the generation uses blob {digest} as {role} of {modality or 'the bundle'} and as something else",
                    expected=ROLES[role],
                    got=kinds[digest],
                )
        return kinds


def layers_of(generation: Generation, pieces: Mapping[str, Sequence[tuple[str, int]]]) -> tuple[Descriptor, ...]:
    """Return the layers of the manifest of `generation`.

    Args:
        generation: its document.
        pieces: digest and bytes of what each blob consists of, by the blob's digest: of itself, or of its parts.

    Raises:
        FormatError: there are more than a manifest may have, or one blob is used as two kinds of things.
    """
    media_types = generation.media_types()
    blobs: dict[str, list[Descriptor]] = {}
    for role, modality, digest in generation.blobs():
        annotations = {ROLE_ANNOTATION: role} | ({MODALITY_ANNOTATION: modality} if modality else {})
        kind = media_types[digest]
        if [piece for piece, _ in pieces[digest]] != [digest]:
            kind, annotations = part_type(kind), annotations | {PART_ANNOTATION: digest}
        made = [Descriptor(media_type=kind, digest=d, size=size, annotations=annotations) for d, size in pieces[digest]]
        blobs.setdefault(digest, made)
    layers = tuple(layer for made in blobs.values() for layer in made)
    if len(layers) > limits.MAX_LAYERS:
        raise FormatError("too many blobs for a bundle", expected=f"at most {limits.MAX_LAYERS}", got=str(len(layers)))
    return layers


def generation_from_json(data: bytes, name: str) -> Generation:
    """Parse the config document of a bundle.

    Raises:
        FormatError: it has another schema, is not canonical, or breaks its rules.
    """
    fields = parse(data, name)
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema != SCHEMA:
        raise FormatError(
            f"{name} has a schema that this edge-cmcl does not know",
            expected=SCHEMA,
            got=str(schema)[:80],
            hint="update edge-cmcl, or export the bundle with this version",
        )
    generation = from_json(Generation, data, name)
    if to_json(generation) != data:
        raise FormatError(
            f"{name} is not canonical",
            expected="every field, sorted keys, no white space, numbers as edge-cmcl writes them",
            got="another spelling of the same document, which would have another digest",
        )
    return generation


def check_manifest(manifest: Manifest, generation: Generation, name: str) -> None:
    """Check that the layers of `manifest` are the blobs of `generation`: all of them, once each, and no other.

    What is in parts is only whole once it was read: no digest of the manifest says what the parts are together.

    Raises:
        FormatError: they are not.
    """
    wanted = generation.media_types()
    blobs = by_blob(manifest.layers)
    found = {digest: _kind(layers, wanted.get(digest, "")) for digest, layers in blobs.items()}
    if manifest.artifact_type != BUNDLE or manifest.config.media_type != GENERATION:
        got = f"{manifest.artifact_type} with a config of {manifest.config.media_type}"
        raise FormatError(f"{name} is not a bundle", expected=f"{BUNDLE} with {GENERATION}", got=got)
    for digest, layers in blobs.items():
        if sum(not part_of(layer) for layer in layers) > 1:
            raise FormatError(f"{name} lists a layer twice", expected="each blob once", got=digest)
        check_size(sum(layer.size for layer in layers))
    if found != wanted:
        wrong = sorted(digest for digest in found.keys() | wanted.keys() if found.get(digest) != wanted.get(digest))
        raise FormatError(
            f"the layers of {name} are not the blobs that its generation names",
            expected=", ".join(f"{digest[:19]} as {wanted.get(digest, 'nothing')}" for digest in wrong[:3]),
            got=", ".join(f"{digest[:19]} as {found.get(digest, 'nothing')}" for digest in wrong[:3]),
            hint="it is damaged, or was written by a newer edge-cmcl: get it again, or update this one",
        )


def _kind(layers: Sequence[Descriptor], wanted: str) -> str:
    """Return the media type of the blob that is in `layers`: `wanted`, where all of them are parts of such a blob."""
    kinds = {layer.media_type for layer in layers}
    if not any(part_of(layer) for layer in layers):
        return kinds.pop()
    right = wanted and kinds == {part_type(wanted)} and all(part_of(layer) for layer in layers)
    return wanted if right else " and ".join(sorted(kinds))


def timestamp() -> str:
    """Return the time now as bundles write it: "2026-01-31T23:59:59Z"."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unique(digests: tuple[str, ...]) -> bool:
    return len(set(digests)) == len(digests)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)


def _require_small(free: Free, name: str) -> None:
    try:
        size = len(canonical(free))
    except FormatError as error:
        raise ValueError(f"{name}: {error.got}") from error
    _require(size <= limits.MAX_FREE_BYTES, f"{name}: {size} bytes of JSON, at most {limits.MAX_FREE_BYTES}")
