"""What is signed: a statement about one manifest, or one key's endorsement of the next (FORMAT.md, "Signatures")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from edge_cmcl.bundle.base64 import decode
from edge_cmcl.bundle.documents import Counter, DeviceId, Digest, OwnModel, from_json, to_json
from edge_cmcl.bundle.envelope import Envelope, Fingerprint, pae, sign
from edge_cmcl.bundle.generation import Name
from edge_cmcl.bundle.keys import PrivateKey, PublicKey, decode_key, short
from edge_cmcl.bundle.layout import Loaded
from edge_cmcl.bundle.limits import MAX_DOCUMENT_BYTES
from edge_cmcl.bundle.media_types import ROTATION, STATEMENT
from edge_cmcl.errors import FormatError, SignatureError

EncodedKey = Annotated[str, StringConstraints(max_length=64)]

STATEMENT_SCHEMA: Final = "edge-cmcl/statement/1"
ROTATION_SCHEMA: Final = "edge-cmcl/rotation/1"


class Statement(OwnModel):
    """What a signature says about a generation. All of it but the digest is for those who have only the signature.

    Attributes:
        manifest: digest of the manifest, which all the rest follows from.
        size: bytes of the manifest.
        name: the project.
        counter: the generation's.
        base: the export that its history began with, None for one.
        device_id: who made it, "" for a host.
        device_class: the hardware it is bound to, "" for any.
    """

    schema_name: Annotated[Literal["edge-cmcl/statement/1"], Field(alias="schema")] = STATEMENT_SCHEMA
    manifest: Digest
    size: Annotated[int, Field(ge=1, le=MAX_DOCUMENT_BYTES)]
    name: Name
    counter: Counter
    base: Digest | None
    device_id: DeviceId
    device_class: DeviceId


class Rotation(OwnModel):
    """What a key says of the one that takes its place."""

    schema_name: Annotated[Literal["edge-cmcl/rotation/1"], Field(alias="schema")] = ROTATION_SCHEMA
    old: Fingerprint
    new: Fingerprint
    key: EncodedKey


def statement_of(loaded: Loaded) -> bytes:
    """Return the one statement that a right signature of this generation is over."""
    generation = loaded.generation
    statement = Statement(
        manifest=loaded.digest,
        size=loaded.size,
        name=generation.name,
        counter=generation.counter,
        base=generation.base,
        device_id=generation.device_id,
        device_class=generation.device_class,
    )
    return to_json(statement)


def signers_of(envelope: Envelope, keys: Mapping[str, PublicKey], name: str) -> tuple[str, ...]:
    """Return the fingerprints of the keys that have signed an envelope.

    Args:
        envelope: the envelope.
        keys: public keys by fingerprint; a signature of another key says nothing.
        name: what errors call the envelope.

    Raises:
        FormatError: it is not base64.
        SignatureError: a signature that names one of `keys` is not of that key.
    """
    message = pae(envelope.payload_type, envelope.body(name))
    found = []
    for signature in envelope.signatures:
        key = keys.get(signature.keyid)
        if key is None:
            continue
        if not key.verifies(decode(signature.sig, f"a signature of {name}"), message):
            raise SignatureError(
                f"a signature of {name} is wrong",
                expected=f"one that key {short(signature.keyid)} made of these very bytes",
                got="another one: the signature or what it is of was changed",
                hint="get it again from where it came; if that does not help, do not use it",
            )
        found.append(signature.keyid)
    return tuple(found)


def check_statement(envelope: Envelope, wanted: bytes, name: str) -> None:
    """Check that an envelope, whose signatures were checked before, is of the statement `wanted`.

    Raises:
        SignatureError: it is of something else.
    """
    body = envelope.body(name)
    if envelope.payload_type == STATEMENT and body == wanted:
        return
    try:
        found = from_json(Statement, body, name).manifest if envelope.payload_type == STATEMENT else ""
    except FormatError:
        found = ""
    manifest = from_json(Statement, wanted, name).manifest
    raise SignatureError(
        f"{name} is for something else",
        expected=f"a statement about {manifest}, as it stands there",
        got=f"one about {found}" if found not in ("", manifest) else f"another document, {envelope.payload_type}",
        hint="the signature was taken from another bundle, or changed: get the bundle again from where it came",
    )


def endorsement(old: PrivateKey, new: PublicKey) -> Envelope:
    """Return the statement of `old`, signed by it, that `new` takes its place."""
    rotation = Rotation(old=old.public.fingerprint, new=new.fingerprint, key=new.encoded())
    return sign(ROTATION, to_json(rotation), [old])


def endorsed(envelope: Envelope, keys: Mapping[str, PublicKey]) -> tuple[str, PublicKey] | None:
    """Return which of `keys` says in `envelope` which key takes its place; None where none of them does.

    Raises:
        FormatError, SignatureError: it is damaged.
    """
    name = "a key rotation"
    signers = signers_of(envelope, keys, name)
    if not signers:
        return None
    if envelope.payload_type != ROTATION:
        raise SignatureError(f"{name} is another document", expected=ROTATION, got=envelope.payload_type)
    rotation = from_json(Rotation, envelope.body(name), name)
    key = decode_key(rotation.key, name)
    if rotation.old not in signers or rotation.new != key.fingerprint:
        raise SignatureError(
            f"{name} does not say what it is signed for",
            expected=f"keys {', '.join(map(short, signers))} and {short(key.fingerprint)}",
            got=f"{short(rotation.old)} and {short(rotation.new)}",
        )
    return rotation.old, key
