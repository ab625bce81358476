"""Signatures as attachments of a generation: written to a store, read from any layout (FORMAT.md, "Signatures")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.canonical import parse
from edge_cmcl.bundle.documents import Descriptor, Manifest, OwnModel, from_json, to_json
from edge_cmcl.bundle.envelope import Envelope, envelope_from_json, sign
from edge_cmcl.bundle.keys import PrivateKey, PublicKey, decode_key
from edge_cmcl.bundle.layout import Loaded
from edge_cmcl.bundle.media_types import ENVELOPE, KEYS, OCI_EMPTY, OCI_MANIFEST, SIGNATURE, STATEMENT
from edge_cmcl.bundle.statement import EncodedKey, statement_of
from edge_cmcl.bundle.store import Store
from edge_cmcl.errors import FormatError

KEYS_SCHEMA: Final = "edge-cmcl/keys/1"
_EMPTY = b"{}"


class Keys(OwnModel):
    """The public keys of a signature, and how each came after the one before."""

    schema_name: Annotated[Literal["edge-cmcl/keys/1"], Field(alias="schema")] = KEYS_SCHEMA
    keys: Annotated[tuple[EncodedKey, ...], Field(min_length=1, max_length=limits.MAX_SIGNATURES)]
    rotations: Annotated[tuple[Envelope, ...], Field(max_length=limits.MAX_ROTATIONS)] = ()


@dataclass(frozen=True)
class Signature:
    """A signature as it came, nothing of it verified yet.

    Attributes:
        envelope: the statement and its signatures.
        keys: public keys that came with it, by fingerprint.
        rotations: endorsements of one key by another, oldest first.
    """

    envelope: Envelope
    keys: dict[str, PublicKey]
    rotations: tuple[Envelope, ...]


def signature_tag(digest: str) -> str:
    """Return the tag under which the signature of the manifest `digest` is found."""
    return f"{digest.replace(':', '-')}.sig"


def write_signature(
    store: Store,
    loaded: Loaded,
    signers: Sequence[PrivateKey],
    rotations: Iterable[Envelope] = (),
    beside: Signature | None = None,
) -> dict[str, Descriptor]:
    """Sign a generation and write that to `store`; return the tag to move, with or after that of the generation.

    Args:
        store: where to; its writer lock is held.
        loaded: the generation, in this store or about to be.
        signers: at least one key.
        rotations: how the signers' keys came after others, oldest first; only the latest 32 of them are written.
        beside: a signature of this very generation whose signers' word stays.

    Raises:
        FormatError: there are too many signers.
        StorageError: the file system refused.
    """
    envelope, public = sign(STATEMENT, statement_of(loaded), signers), [signer.public for signer in signers]
    if beside is not None and beside.envelope.payload == envelope.payload:
        new = {each.keyid for each in envelope.signatures}
        older = tuple(each for each in beside.envelope.signatures if each.keyid not in new)
        envelope = envelope.model_copy(update={"signatures": (*older, *envelope.signatures)})
        public = [*(key for name, key in beside.keys.items() if name not in new), *public]
        rotations = (*beside.rotations, *rotations)
    envelope_from_json(to_json(envelope), "the new signature")
    entry = write_signed(store, SIGNATURE, envelope, public, rotations, loaded.descriptor)
    return {signature_tag(loaded.digest): entry}


def write_signed(
    store: Store,
    artifact_type: str,
    envelope: Envelope,
    public: Sequence[PublicKey],
    rotations: Iterable[Envelope],
    subject: Descriptor,
    further: Iterable[Descriptor] = (),
) -> Descriptor:
    """Write an envelope with the keys that have signed it as a manifest about `subject`; return what a tag points to.

    `further` are blobs of the store that the envelope speaks of: they come after it and the keys.

    Raises:
        StorageError: the file system refused.
    """
    keys = Keys(
        keys=tuple(key.encoded() for key in public),
        rotations=tuple(rotations)[-limits.MAX_ROTATIONS :],
    )
    layers = ((ENVELOPE, to_json(envelope)), (KEYS, to_json(keys)))
    manifest = Manifest(
        schema_version=2,
        artifact_type=artifact_type,
        config=_put(store, OCI_EMPTY, _EMPTY),
        layers=(*(_put(store, kind, data) for kind, data in layers), *further),
        subject=subject,
    )
    return _put(store, OCI_MANIFEST, to_json(manifest)).model_copy(update={"artifact_type": artifact_type})


def read_signature(loaded: Loaded, entries: Sequence[Descriptor] | None = None) -> Signature | None:
    """Return the signature of a generation from the layout it is in; None where there is none.

    Args:
        loaded: the generation.
        entries: those of the layout's index, where the caller has read it.

    Raises:
        DigestError: a blob of it is missing or damaged.
        FormatError: it breaks its format or is too large.
    """
    tag = signature_tag(loaded.digest)
    found = [e for e in (loaded.layout.index().manifests if entries is None else entries) if e.tag == tag]
    if not found:
        return None
    name = f"the signature of {loaded.digest[:19]}"
    if len(found) > 1:
        raise FormatError(f"{name} is there twice", expected=f"one manifest tagged {tag}", got=str(len(found)))
    return read_signed(loaded.layout.read, found[0], SIGNATURE, name)


def read_signed(
    read: Callable[[Descriptor], bytes], entry: Descriptor, artifact_type: str, name: str, further: str = ""
) -> Signature:
    """Return what `write_signed` wrote, nothing of it verified yet.

    Args:
        read: returns the bytes of a blob, its size and digest checked (`Layout.read`, or from a remote).
        entry: the manifest.
        artifact_type: what it must be.
        name: what errors call it.
        further: media type of what may come after the envelope and the keys, "" for nothing.

    Raises:
        DigestError: a blob of it is missing or damaged.
        FormatError: it breaks its format, is too large, or of another type.
    """
    manifest = from_json(Manifest, _read(read, entry, name), name)
    kinds = [layer.media_type for layer in manifest.layers]
    if manifest.artifact_type != artifact_type or kinds[:2] != [ENVELOPE, KEYS] or set(kinds[2:]) - {further}:
        raise FormatError(
            f"{name} is another attachment",
            expected=f"{artifact_type} with {ENVELOPE} and {KEYS}",
            got=f"{manifest.artifact_type} with {', '.join(kinds[:3])}",
        )
    envelope, keys = (_read(read, layer, name) for layer in manifest.layers[:2])
    parse(keys, name, limits.MAX_SIGNATURE_BYTES)
    document = from_json(Keys, keys, f"the keys of {name}")
    public = [decode_key(text, f"the keys of {name}") for text in document.keys]
    signature = Signature(envelope_from_json(envelope, name), {k.fingerprint: k for k in public}, document.rotations)
    signed_by = {each.keyid for each in signature.envelope.signatures}
    if len(signature.keys) != len(public) or not signature.keys.keys() <= signed_by:
        raise FormatError(
            f"{name} comes with other keys than it is signed with",
            expected=", ".join(sorted(signed_by)),
            got=", ".join(sorted(signature.keys)),
        )
    return signature


def _put(store: Store, media_type: str, data: bytes) -> Descriptor:
    if len(data) > limits.MAX_SIGNATURE_BYTES:
        expected = f"at most {limits.MAX_SIGNATURE_BYTES} bytes"
        raise FormatError("a signature is too large", expected=expected, got=f"{len(data)} bytes")
    return Descriptor(media_type=media_type, digest=store.put(data), size=len(data))


def _read(read: Callable[[Descriptor], bytes], descriptor: Descriptor, name: str) -> bytes:
    if descriptor.size > limits.MAX_SIGNATURE_BYTES:
        expected = f"at most {limits.MAX_SIGNATURE_BYTES} bytes a document"
        raise FormatError(f"{name} is too large", expected=expected, got=f"{descriptor.size} bytes")
    return read(descriptor)
