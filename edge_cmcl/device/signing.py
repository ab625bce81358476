"""Who has signed what: a device's own key signs what it makes, and what others made is let in by their keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_cmcl.bundle import Layout, Loaded, State, Store, timestamp
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.envelope import Envelope
from edge_cmcl.bundle.keyring import KeyRing
from edge_cmcl.bundle.keys import PrivateKey, read_public_key, short
from edge_cmcl.bundle.signature import Signature, read_signature, signature_tag, write_signature
from edge_cmcl.bundle.statement import statement_of
from edge_cmcl.bundle.store_files import KEYS_FOLDER
from edge_cmcl.bundle.trust import Trust, following
from edge_cmcl.bundle.verification import Admitted, Consent, admitted, verified
from edge_cmcl.errors import IntegrityError, StorageError, UsageError

FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SignedBy:
    """By whom a generation is signed, verified.

    Attributes:
        fingerprint: of the key, "" for none.
        role: "own" for a key of this device, "given" for one that it was given, "" for another.
        standing: "trusted", "retired", "revoked" or "unknown"; "unsigned" for no signature, "wrong" for a wrong one.
    """

    fingerprint: str
    role: str
    standing: str

    def __str__(self) -> str:
        if not self.fingerprint:
            return self.standing
        whose = "this device" if self.role == "own" else f"key {short(self.fingerprint)}"
        return whose if self.standing == "trusted" else f"{whose} ({self.standing})"


def keyring(store: Layout) -> KeyRing:
    """Return the keys of a device's store."""
    return KeyRing(store.root / KEYS_FOLDER)


def check_signer(store: Store) -> None:
    """Check that this device can sign, before work that would be lost otherwise.

    Raises:
        FormatError: its keys are damaged.
    """
    ring = keyring(store)
    ring.signer(ring.trust())


def signed(store: Store, loaded: Loaded) -> dict[str, Descriptor]:
    """Sign a generation that this device has made; return the tag that moves with those of the generation.

    A device without a key, installed before devices had one, makes it.

    Raises:
        FormatError: its keys are damaged.
        StorageError: the file system refused.
    """
    key, rotations = _own_key(store)
    return write_signature(store, loaded, [key], rotations)


def signing_key(store: Store) -> tuple[PrivateKey, tuple[Envelope, ...]]:
    """Return the key with which this device signs, and how it came after others; made where there is none yet.

    Raises:
        FormatError: its keys are damaged.
        StoreLockedError, StorageError: it has none, and none can be made.
    """
    ring = keyring(store)
    trust = ring.trust()
    key = ring.signer(trust)
    if key is not None:
        return key, trust.rotations()
    with store.writer():
        return _own_key(store)


def _own_key(store: Store) -> tuple[PrivateKey, tuple[Envelope, ...]]:
    ring = keyring(store)
    before = ring.trust()
    key, trust = ring.made(before)
    if trust != before:
        ring.save(trust)
    else:
        ring.tidy(trust)
    return key, trust.rotations()


def consent(trust: str | Path, allow_unsigned: bool) -> Consent:
    """Return what the user said: a fingerprint or public key file to trust, "" for none.

    Raises:
        UsageError: `trust` is neither.
        ModelError: the file is not a public key.
    """
    if trust == "":
        return Consent(unsigned=allow_unsigned)
    fingerprint = str(trust).lower()
    if FINGERPRINT.fullmatch(fingerprint):
        return Consent(fingerprint=fingerprint, unsigned=allow_unsigned)
    if not Path(trust).exists():
        raise UsageError(
            f"{str(trust)[:80]!r} is neither a fingerprint nor a key file",
            expected="64 hexadecimal digits, as `edge-cmcl export` prints them, or a public key file",
            got=f"{len(str(trust))} characters, and no such file",
        )
    key = read_public_key(Path(trust))
    return Consent(fingerprint=key.fingerprint, key=key, unsigned=allow_unsigned)


def admit(store: Store, bundle: Loaded, said: Consent, known: bool) -> tuple[Admitted, dict[str, Descriptor]]:
    """Decide whether a bundle may be let in, by who has signed it (`verification.admitted`).

    What is here already may come again, to repair what the disk has damaged, on the word of the signature that is here:
    one that comes without it, or with a stranger's, must not shed a revocation, nor replace what was verified, unless
    the user says that it may come unsigned.

    Args:
        store: the device store.
        bundle: what shall be let in.
        said: what the user said.
        known: whether it is here already.

    Returns:
        The decision, and the tag of the signature to keep where it is not that of the bundle.

    Raises:
        FormatError, SignatureError: its signature is wrong, or the keys of this device are damaged.
        UnsignedError, UntrustedKeyError, RevokedKeyError: it is refused.
    """
    generation = bundle.generation
    name = f"{generation.name}, generation {generation.counter} ({bundle.digest[:19]})"
    trust, statement, now = keyring(store).trust(), statement_of(bundle), timestamp()
    signature = read_signature(bundle)
    if not known or said.unsigned:
        return admitted(signature, statement, trust, said, now, name=name, known=False), {}
    here = _kept_signature(store, bundle.digest)
    if here is not None and not (signature and _counts(signature, statement, trust, said, name)):
        decided = admitted(here, statement, trust, said, now, name=name, known=True)
        return decided, _signature_entry(store, bundle.digest)
    unsigned_before = here is None and bundle.digest in store.state().unsigned
    return admitted(signature, statement, trust, said, now, name=name, known=unsigned_before), {}


def _kept_signature(store: Store, digest: str) -> Signature | None:
    """Return the signature of a generation in the store; None where there is none that can be read."""
    with suppress(IntegrityError, StorageError):
        return read_signature(store.load_manifest(digest))
    return None


def _signature_entry(store: Store, digest: str) -> dict[str, Descriptor]:
    tag = signature_tag(digest)
    return {entry.tag: entry for entry in store.attachments(digest) if entry.tag == tag}


def _counts(signature: Signature, statement: bytes, trust: Trust, said: Consent, name: str) -> bool:
    """Whether a key has signed that is trusted, takes the place of one that is, or that the user names."""
    signers = verified(signature, statement, trust, name, said.key)
    followed = following(trust, signature.rotations, timestamp())
    return any(signer == said.fingerprint or followed.standing(signer) == "trusted" for signer in signers)


def keep_keys(store: Store, let_in: Admitted) -> None:
    """Save the keys that a bundle brought along, and make this device's own where it has none yet.

    Raises:
        FormatError: they are damaged.
        StorageError: the file system refused.
    """
    ring = keyring(store)
    _, trust = ring.made(let_in.trust)
    if trust != ring.trust():
        ring.save(trust)


def recorded(state: State, store: Layout, digest: str, let_in: Admitted) -> State:
    """Return the state that says whether `digest` was let in without a signature; what is gone is forgotten."""
    unsigned = [each for each in state.unsigned if each != digest and store.has(each)]
    if let_in.unsigned or (digest in state.unsigned and not let_in.signed_by):
        unsigned.append(digest)
    return state.model_copy(update={"unsigned": tuple(unsigned)})


def signed_by(loaded: Loaded, trust: Trust, entries: Sequence[Descriptor] | None = None) -> SignedBy:
    """Return who has signed a generation: a trusted key rather than another, where several have.

    Args:
        loaded: the generation.
        trust: the keys of this device.
        entries: those of the layout's index, where the caller has read it.
    """
    try:
        signature = read_signature(loaded, entries)
        if signature is None:
            return SignedBy("", "", "unsigned")
        signers = verified(signature, statement_of(loaded), trust, "a generation")
    except IntegrityError:
        return SignedBy("", "", "wrong")
    if not signers:
        return SignedBy(signature.envelope.signatures[0].keyid, "", "unknown")
    best = min(signers, key=lambda each: ("trusted", "retired", "revoked", "unknown").index(trust.standing(each)))
    return SignedBy(best, trust.role(best), trust.standing(best))
