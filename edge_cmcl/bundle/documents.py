"""The OCI documents of a bundle and the state of a store, as validated models (FORMAT.md).

OCI documents keep fields they do not know, as the OCI specification asks, so that rewriting an index loses nothing
that another tool put there.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
)
from pydantic.alias_generators import to_camel

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.canonical import canonical, digest_of, parse
from edge_cmcl.bundle.media_types import CHECK_ANNOTATION, OCI_INDEX, OCI_MANIFEST, TAG_ANNOTATION
from edge_cmcl.errors import FormatError

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
ModalityName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
DeviceId = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")]
OriginId = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")]
Timestamp = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$")]
Counter = Annotated[int, Field(ge=1, le=limits.MAX_INTEGER)]
MediaType = Annotated[str, StringConstraints(min_length=3, max_length=255)]
Annotations = Annotated[dict[str, str], Field(max_length=limits.MAX_ANNOTATIONS)]

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
ATTACHMENT_TAG = re.compile(r"sha256-([0-9a-f]{64})\.[a-z0-9][a-z0-9._-]{0,55}")
STATE_SCHEMA: Final = "edge-cmcl/state/1"

Model = TypeVar("Model", bound=BaseModel)


class OciModel(BaseModel):
    """A document of the OCI image specification: camelCase on disk, unknown fields kept."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields of ours that have no value; what another tool wrote stays, null included."""
        kept = self.model_extra or {}
        return {name: value for name, value in dump(self).items() if value is not None or name in kept}


class OwnModel(BaseModel):
    """A document of ours: unknown fields are errors, because they may change what the known ones mean."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Descriptor(OciModel):
    """Names one blob by media type, digest and size in bytes."""

    media_type: MediaType
    digest: Digest
    size: Annotated[int, Field(ge=0, le=limits.MAX_BLOB_BYTES)]
    artifact_type: MediaType | None = None
    annotations: Annotations | None = None

    @property
    def tag(self) -> str:
        """The tag that an index gives this manifest, "" for none."""
        return (self.annotations or {}).get(TAG_ANNOTATION, "")


class Manifest(OciModel):
    """An OCI image manifest 1.1: a generation, or an attachment to one (a signature)."""

    schema_version: Literal[2]
    media_type: Literal["application/vnd.oci.image.manifest.v1+json"] = OCI_MANIFEST
    artifact_type: MediaType | None = None
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Field(max_length=limits.MAX_LAYERS)]
    subject: Descriptor | None = None
    annotations: Annotations | None = None


class Index(OciModel):
    """The tags of a layout: `index.json`."""

    schema_version: Literal[2]
    media_type: Literal["application/vnd.oci.image.index.v1+json"] = OCI_INDEX
    manifests: Annotated[tuple[Descriptor, ...], Field(max_length=limits.MAX_INDEX_ENTRIES)]
    annotations: Annotations | None = None

    @classmethod
    def of(cls, *entries: Descriptor) -> Index:
        """Return an index of these entries."""
        return cls(schema_version=2, manifests=entries)

    def with_tag(self, tag: str, descriptor: Descriptor) -> Index:
        """Return this index with `tag` on `descriptor` alone, which keeps its other annotations."""
        annotations = {**(descriptor.annotations or {}), TAG_ANNOTATION: tag}
        tagged = descriptor.model_copy(update={"annotations": annotations})
        others = self.without_tag(tag).manifests
        return self.model_copy(update={"manifests": (*others, tagged)})

    def without_tag(self, tag: str) -> Index:
        """Return this index without `tag`."""
        return self.model_copy(update={"manifests": tuple(d for d in self.manifests if d.tag != tag)})


class Trial(BaseModel):
    """A generation that has to prove itself before it is confirmed.

    Attributes:
        digest: the generation.
        previous: the one confirmed last, to which a failure returns.
        released: another one that is confirmed, too, once it is current: what a rollback is about to return to.
        attempts: starts that have not got through its self-test.
        attempts_allowed: how many there may be.
        since: when it began.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    digest: Digest
    previous: Digest | None
    released: Digest | None = None
    attempts: Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)] = 0
    attempts_allowed: Annotated[int, Field(ge=1, le=limits.MAX_INTEGER)] = 3
    since: Timestamp


class Reverted(BaseModel):
    """A generation whose trial failed, and why."""

    model_config = ConfigDict(frozen=True, extra="allow")

    digest: Digest
    since: Timestamp
    reason: Annotated[str, StringConstraints(max_length=1024)] = ""


class Declined(BaseModel):
    """A promoted generation that the device did not take, and why."""

    model_config = ConfigDict(frozen=True, extra="allow")

    digest: Digest
    since: Timestamp
    reason: Annotated[str, StringConstraints(max_length=1024)] = ""


class SyncState(BaseModel):
    """What a device knows of the remote that it syncs with.

    Attributes:
        remote: where it is, "" for a device that never synced.
        sent: generations that the remote has, of those that are here.
        serial: of the latest decision of the host that was seen; older ones are refused.
        decided: manifest of that decision, None where none was seen.
        declined: promoted generations that were not taken, the latest last.
        reports: how many reports there were; each has a higher number, so that an older one can be told.
        reported: when the device last reported, None where it never did.
        report: digest of what it said then, its time left out.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    remote: Annotated[str, StringConstraints(max_length=1024)] = ""
    sent: Annotated[tuple[Digest, ...], Field(max_length=limits.MAX_INDEX_ENTRIES)] = ()
    serial: Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)] = 0
    decided: Digest | None = None
    declined: Annotated[tuple[Declined, ...], Field(max_length=limits.MAX_DECLINED)] = ()
    reports: Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)] = 0
    reported: Timestamp | None = None
    report: Digest | None = None


class State(BaseModel):
    """What a store knows beside its generations: `state.json`. It never leaves the device.

    Unknown fields are kept, not refused: software that is rolled back must still start (FORMAT.md, "State").

    Attributes:
        device_id: made at the first install, "" on a host.
        device_class: hardware class that bundles may be bound to, "" for none.
        highest_counter: highest counter ever current here; older bundles are refused by it.
        trial: the generation on trial, None when the current one is confirmed.
        reverted: the last generation whose trial failed, None where none did.
        unsigned: generations that were let in without a signature, on request.
        sync: what is known of the remote.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_name: Annotated[Literal["edge-cmcl/state/1"], Field(alias="schema")] = STATE_SCHEMA
    device_id: DeviceId = ""
    device_class: DeviceId = ""
    highest_counter: Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)] = 0
    trial: Trial | None = None
    reverted: Reverted | None = None
    unsigned: Annotated[tuple[Digest, ...], Field(max_length=limits.MAX_INDEX_ENTRIES)] = ()
    sync: SyncState = SyncState()


def to_json(document: BaseModel) -> bytes:
    """Return the canonical bytes of an OCI document or of one of ours."""
    data = canonical(document.model_dump(by_alias=True))
    if len(data) > limits.MAX_DOCUMENT_BYTES:
        name = type(document).__name__.lower()
        raise FormatError(
            f"this {name} is too large", expected=f"at most {limits.MAX_DOCUMENT_BYTES} bytes", got=f"{len(data)} bytes"
        )
    return data


def from_json(kind: type[Model], data: bytes, name: str) -> Model:
    """Parse and validate one document; `name` says in errors which one it is.

    Raises:
        FormatError: it is not JSON as `canonical.parse` asks for, or breaks the model's rules.
    """
    parse(data, name)
    try:
        return kind.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise FormatError(
            f"{name} breaks its format",
            expected=f"a valid {kind.__name__.lower()} (FORMAT.md)",
            got=_first_errors(error),
            hint="it is damaged, or was written by a newer edge-cmcl: get it again, or update this one",
        ) from error


def index_to_json(index: Index) -> bytes:
    """Return the bytes of a store's `index.json`: with a checksum, because no digest names this file."""
    bare = _without_check(index)
    check = {CHECK_ANNOTATION: digest_of(to_json(bare))}
    return to_json(bare.model_copy(update={"annotations": {**(bare.annotations or {}), **check}}))


def index_from_json(data: bytes, name: str) -> Index:
    """Parse `index.json`; one that another tool wrote has no checksum.

    Raises:
        FormatError: it breaks its format or does not match its checksum.
    """
    index = from_json(Index, data, name)
    found = (index.annotations or {}).get(CHECK_ANNOTATION)
    expected = digest_of(to_json(_without_check(index)))
    if found not in (None, expected):
        raise FormatError(
            f"{name} does not match its checksum",
            expected=expected,
            got=str(found)[:80],
            hint="the disk changed it: install the bundle again, into a new store if need be",
        )
    return index


def _without_check(index: Index) -> Index:
    others = {key: value for key, value in (index.annotations or {}).items() if key != CHECK_ANNOTATION}
    return index.model_copy(update={"annotations": others or None})


def state_to_json(state: State) -> bytes:
    """Return the bytes of `state.json`: the state and a checksum, because no digest names this file."""
    return sealed(state)


def state_from_json(data: bytes, name: str) -> State:
    """Parse `state.json`.

    Raises:
        FormatError: it breaks its format or does not match its checksum.
    """
    return unsealed(State, data, name, "restore it from a backup, or move it and its copy away and install again")


def sealed(document: BaseModel) -> bytes:
    """Return the canonical bytes of a document that no digest names, with a checksum of its own in `check`."""
    fields: dict[str, Any] = document.model_dump(by_alias=True)
    return canonical({**fields, "check": digest_of(canonical(fields))})


def unsealed(kind: type[Model], data: bytes, name: str, hint: str) -> Model:
    """Parse a document that `sealed` wrote; `hint` says what to do about a damaged one.

    Raises:
        FormatError: it breaks its format or does not match its checksum.
    """
    fields = parse(data, name)
    found = fields.pop("check", None) if isinstance(fields, dict) else None
    bare = canonical(fields)
    if found != digest_of(bare):
        expected, got = digest_of(bare), str(found)[:80]
        hint = f"the disk changed it: {hint}"
        raise FormatError(f"{name} does not match its checksum", expected=expected, got=got, hint=hint)
    return from_json(kind, bare, name)


def _first_errors(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [f"{'.'.join(str(part) for part in item['loc'])[:120]}: {item['msg'][:200]}" for item in found[:3]]
    return "; ".join(texts) + (f" (and {len(found) - 3} more)" if len(found) > 3 else "")
