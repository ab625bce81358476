"""DSSE envelopes: signatures over typed bytes (FORMAT.md, "Signatures"; DSSE 1.0.2, protocol.md and envelope.md).

The profile: every signature names its key by fingerprint, each key signs once. What a wire format leaves open to
readers, as DSSE does with unknown fields and both alphabets of base64, stays open here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.base64 import decode, encode
from edge_cmcl.bundle.canonical import parse
from edge_cmcl.bundle.documents import from_json
from edge_cmcl.bundle.keys import PrivateKey

Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, StringConstraints(max_length=limits.MAX_SIGNATURE_BYTES)]


class EnvelopeSignature(BaseModel):
    """One signature of an envelope: the fingerprint of its key, and base64 of 64 bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    keyid: Fingerprint
    sig: Annotated[str, StringConstraints(max_length=256)]


class Envelope(BaseModel):
    """Bytes with their type and the signatures over both."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    payload: _Text
    payload_type: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    signatures: Annotated[tuple[EnvelopeSignature, ...], Field(min_length=1, max_length=limits.MAX_SIGNATURES)]

    @model_validator(mode="after")
    def _each_key_once(self) -> Envelope:
        if len({signature.keyid for signature in self.signatures}) != len(self.signatures):
            raise ValueError("signatures: each key once")
        return self

    def body(self, name: str) -> bytes:
        """Return the payload's bytes.

        Raises:
            FormatError: it is not base64.
        """
        return decode(self.payload, f"the payload of {name}")


def envelope_from_json(data: bytes, name: str) -> Envelope:
    """Parse an envelope; `name` says in errors whose it is.

    Raises:
        FormatError: it is larger than 64 KiB or breaks its format.
    """
    parse(data, name, limits.MAX_SIGNATURE_BYTES)
    return from_json(Envelope, data, name)


def pae(payload_type: str, body: bytes) -> bytes:
    """Return what is signed: type and body, each after its length in bytes (DSSE, "PAE")."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def sign(payload_type: str, body: bytes, signers: Sequence[PrivateKey]) -> Envelope:
    """Return an envelope of `body`, signed by each of `signers`."""
    message = pae(payload_type, body)
    signatures = tuple(
        EnvelopeSignature(keyid=signer.public.fingerprint, sig=encode(signer.sign(message))) for signer in signers
    )
    return Envelope(payload=encode(body), payload_type=payload_type, signatures=signatures)
