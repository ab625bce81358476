"""May a signed bundle be let in: the policy, without input or output (FORMAT.md, "Trust").

Whatever is signed wrongly is damaged or forged (`SignatureError`); whatever is signed rightly but by nobody whom this
place trusts is refused, each reason with an error of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_cmcl.bundle.keys import PublicKey, short
from edge_cmcl.bundle.signature import Signature
from edge_cmcl.bundle.statement import check_statement, signers_of
from edge_cmcl.bundle.trust import Trust, following, trusting
from edge_cmcl.errors import RevokedKeyError, UnsignedError, UntrustedKeyError


@dataclass(frozen=True)
class Consent:
    """What the user said when asking for a bundle to be let in.

    Attributes:
        fingerprint: of a key to be trusted from now on, "" for none.
        key: that key, where the user has its file; otherwise it comes with the bundle.
        unsigned: let it in although nobody who is trusted has signed it.
    """

    fingerprint: str = ""
    key: PublicKey | None = None
    unsigned: bool = False


@dataclass(frozen=True)
class Admitted:
    """A bundle that is let in.

    Attributes:
        signed_by: fingerprint of the trusted key that has signed it, "" where nobody trusted has.
        unsigned: whether it is let in for no other reason than that the user said so.
        trust: the keys from now on.
    """

    signed_by: str
    unsigned: bool
    trust: Trust


def verified(
    signature: Signature, statement: bytes, trust: Trust, name: str, key: PublicKey | None = None
) -> list[str]:
    """Return the fingerprints of the keys that have signed `statement`, trusted or not.

    Args:
        signature: what came with the bundle.
        statement: what it must be of (`statement.statement_of`).
        trust: the keys known here.
        name: what errors call the bundle.
        key: one more key.

    Raises:
        FormatError, SignatureError: the signature is wrong, or of another statement.
    """
    keys = {**trust.public(), **signature.keys, **({key.fingerprint: key} if key else {})}
    signers = signers_of(signature.envelope, keys, f"the signature of {name}")
    check_statement(signature.envelope, statement, f"the signature of {name}")
    return list(signers)


def admitted(
    signature: Signature | None, statement: bytes, trust: Trust, consent: Consent, now: str, *, name: str, known: bool
) -> Admitted:
    """Decide whether a bundle may be let in.

    Args:
        signature: its signature, None for an unsigned one.
        statement: what the signature must be of (`statement.statement_of`).
        trust: the keys known here.
        consent: what the user said.
        now: the time.
        name: what errors call the bundle.
        known: whether it was let in before: it may come again, to repair what the disk has damaged.

    Raises:
        FormatError, SignatureError: the signature is wrong, or of another statement.
        UnsignedError: there is none.
        RevokedKeyError: it is signed by a revoked key.
        UntrustedKeyError: it is signed by no key that is trusted.
    """
    signers: list[str] = []
    if signature is not None:
        signers = verified(signature, statement, trust, name, consent.key)
        trust = following(trust, signature.rotations, now)
    if consent.fingerprint:
        trust = _pinned(signature, signers, trust, consent, now, name)
    standing = {signer: trust.standing(signer) for signer in signers}
    for signer in sorted(signers, key=lambda each: each != consent.fingerprint):
        if standing[signer] == "trusted":
            return Admitted(signer, False, trust)
    for signer in signers:
        if standing[signer] == "revoked":
            raise RevokedKeyError(
                f"{name} is signed by a key that was revoked here",
                expected="a signature by a key that is trusted",
                got=f"key {short(signer)}, revoked",
                hint="get it signed by the key that took its place; `edge-cmcl keys list` shows what is trusted",
            )
    if known or consent.unsigned:
        return Admitted("", not known, trust)
    raise _refusal(name, standing, trust)


def _pinned(
    signature: Signature | None, signers: list[str], trust: Trust, consent: Consent, now: str, name: str
) -> Trust:
    """Return the trust with the key that the user named, which must have signed this very bundle."""
    if signature is None:
        raise _refusal(name, {}, trust)
    key = consent.key or signature.keys.get(consent.fingerprint) or trust.public().get(consent.fingerprint)
    if consent.fingerprint not in signers or key is None:
        raise UntrustedKeyError(
            f"{name} is not signed by the key that you trust",
            expected=f"a signature by {consent.fingerprint}",
            got=f"one by {', '.join(signers) or 'a key that does not come with it'}",
            hint="ask whoever exported the bundle which of the two is right",
        )
    return trusting(trust, key, now)


def _refusal(name: str, standing: Mapping[str, str], trust: Trust) -> UnsignedError | UntrustedKeyError:
    trusted = ", ".join(short(each.fingerprint) for each in trust.keys if each.standing == "trusted")
    expected = f"a signature by a key that is trusted here: {trusted or 'none is yet'}"
    retired = [signer for signer, each in standing.items() if each == "retired"]
    if retired:
        return UntrustedKeyError(
            f"{name} is signed by a key that has been replaced",
            expected=expected,
            got=f"key {short(retired[0])}, retired",
            hint="export it again: that signs it with the key of today",
        )
    if standing:
        signer = next(iter(standing))
        return UntrustedKeyError(
            f"{name} is signed by a key that this device does not trust",
            expected=expected,
            got=f"key {signer}",
            hint=f"if `edge-cmcl export` printed this fingerprint where it was made, --trust {signer}",
        )
    return UnsignedError(
        f"{name} is not signed",
        expected=expected,
        got="no signature that can be verified",
        hint="export it again with this version, which signs; or --allow-unsigned to take it as it is, on record",
    )
