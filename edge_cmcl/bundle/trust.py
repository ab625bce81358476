"""Which keys a place trusts, and how that may change: the policy, without input or output (FORMAT.md, "Trust").

A key is trusted, retired (it was replaced: what it signed before still verifies, nothing new is let in by it) or
revoked (it is never let in again, not even by a request to trust it, unless that says so).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.documents import OwnModel, Timestamp
from edge_cmcl.bundle.envelope import Envelope, Fingerprint
from edge_cmcl.bundle.keys import PublicKey, decode_key, short
from edge_cmcl.bundle.statement import EncodedKey, endorsed
from edge_cmcl.errors import RevokedKeyError, UsageError

TRUST_SCHEMA: Final = "edge-cmcl/trust/1"
Standing = Literal["trusted", "retired", "revoked", "unknown"]


class KeyRecord(OwnModel):
    """One key.

    Attributes:
        fingerprint: its fingerprint.
        key: base64 of its 32 bytes, "" for one that was revoked before it was ever seen.
        role: "own" for a key that signs or signed here, "given" for another's.
        standing: "trusted", "retired" or "revoked".
        since: when it got that standing; for people.
        rotation: what the key before said of this one, signed; None for a key that nobody endorsed.
    """

    fingerprint: Fingerprint
    key: EncodedKey
    role: Literal["own", "given"]
    standing: Literal["trusted", "retired", "revoked"]
    since: Timestamp
    rotation: Envelope | None = None

    @model_validator(mode="after")
    def _consistent(self) -> KeyRecord:
        if not self.key and self.standing != "revoked":
            raise ValueError("key: may be missing of a revoked key only")
        if self.key and decode_key(self.key, "key").fingerprint != self.fingerprint:
            raise ValueError("fingerprint: not that of the key")
        return self


class Trust(OwnModel):
    """The keys that one place knows: a device's store, or a host's user.

    Attributes:
        own: fingerprint of the key that signs here, "" where none was made yet.
        keys: every key, in the order in which they came.
    """

    schema_name: Annotated[Literal["edge-cmcl/trust/1"], Field(alias="schema")] = TRUST_SCHEMA
    own: Fingerprint | Literal[""] = ""
    keys: Annotated[tuple[KeyRecord, ...], Field(max_length=limits.MAX_KEYS)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Trust:
        if len({record.fingerprint for record in self.keys}) != len(self.keys):
            raise ValueError("keys: each once")
        if self.own and (self.standing(self.own), self.role(self.own)) != ("trusted", "own"):
            raise ValueError("own: must be one of the keys, trusted, of role own")
        return self

    def find(self, fingerprint: str) -> KeyRecord | None:
        """Return the record of a key, None for an unknown one."""
        return next((record for record in self.keys if record.fingerprint == fingerprint), None)

    def standing(self, fingerprint: str) -> Standing:
        """Return how far a key is trusted."""
        record = self.find(fingerprint)
        return record.standing if record else "unknown"

    def role(self, fingerprint: str) -> str:
        """Return whose key it is: "own", "given", or "" for an unknown one."""
        record = self.find(fingerprint)
        return record.role if record else ""

    def public(self) -> dict[str, PublicKey]:
        """Return every known public key by fingerprint."""
        return {record.fingerprint: decode_key(record.key, "keys") for record in self.keys if record.key}

    def rotations(self) -> tuple[Envelope, ...]:
        """Return how the own keys came one after the other, oldest first."""
        return tuple(record.rotation for record in self.keys if record.role == "own" and record.rotation)


def trusting(trust: Trust, key: PublicKey, now: str, *, restore: bool = False) -> Trust:
    """Return the trust after its user said that `key` is to be trusted.

    Raises:
        RevokedKeyError: it was revoked, and `restore` does not say that it is meant to come back.
        UsageError: there are too many keys.
    """
    known = trust.find(key.fingerprint)
    if known is not None and known.standing == "revoked" and not restore:
        raise RevokedKeyError(
            f"the key {short(key.fingerprint)} was revoked here",
            expected="a key that was not",
            got=f"one revoked at {known.since}",
            hint="`edge-cmcl keys trust FILE --restore` takes it back, if that is what you want",
        )
    if known is not None and known.standing == "trusted":
        return trust
    role = known.role if known else "given"
    return _with(trust, _record(key, role, "trusted", now, known.rotation if known else None))


def revoking(trust: Trust, fingerprint: str, now: str) -> Trust:
    """Return the trust after its user revoked a key, known or not.

    Raises:
        UsageError: it is the key that signs here, or there are too many keys.
    """
    if fingerprint == trust.own:
        raise UsageError(
            f"{short(fingerprint)} is the key that signs here",
            expected="another key, or one that was replaced",
            got="the current one",
            hint="`edge-cmcl keys rotate` first, then revoke it",
        )
    known = trust.find(fingerprint)
    if known is None:
        record = KeyRecord(fingerprint=fingerprint, key="", role="given", standing="revoked", since=now)
    elif known.standing == "revoked":
        return trust
    else:
        record = known.model_copy(update={"standing": "revoked", "since": now})
    return _with(trust, record)


def owning(trust: Trust, key: PublicKey, now: str, rotation: Envelope | None = None) -> Trust:
    """Return the trust in which `key` signs here; the one that did is retired.

    Args:
        trust: the trust before.
        key: the new key.
        now: the time.
        rotation: what the key before says of it, None where there is none or it cannot sign any more.
    """
    before = trust.find(trust.own) if trust.own else None
    if before is not None:
        trust = _with(trust, before.model_copy(update={"standing": "retired", "since": now}), own="")
    return _with(trust, _record(key, "own", "trusted", now, rotation), own=key.fingerprint)


def following(trust: Trust, rotations: Iterable[Envelope], now: str) -> Trust:
    """Return the trust after every rotation, oldest first, that a key trusted here has signed; others say nothing.

    A retired or revoked key endorses nobody: whoever stole it could go on otherwise. Neither does it bring a revoked
    key back.

    Raises:
        FormatError, SignatureError: one that names a trusted key is damaged.
    """
    for envelope in rotations:
        trusted = {name: key for name, key in trust.public().items() if trust.standing(name) == "trusted"}
        step = endorsed(envelope, trusted)
        if step is None or step[0] in (trust.own, step[1].fingerprint):
            continue
        if trust.standing(step[1].fingerprint) in ("retired", "revoked"):
            continue
        old = trust.find(step[0])
        assert old is not None
        trust = _with(trust, old.model_copy(update={"standing": "retired", "since": now}))
        if trust.find(step[1].fingerprint) is None:
            trust = _with(trust, _record(step[1], "given", "trusted", now, envelope))
    return trust


def _record(
    key: PublicKey, role: Literal["own", "given"], standing: Literal["trusted"], now: str, rotation: Envelope | None
) -> KeyRecord:
    return KeyRecord(
        fingerprint=key.fingerprint, key=key.encoded(), role=role, standing=standing, since=now, rotation=rotation
    )


def _with(trust: Trust, record: KeyRecord, own: str | None = None) -> Trust:
    """Return the trust with this record in the place of the same key's, or after the others."""
    if trust.find(record.fingerprint) is None and len(trust.keys) >= limits.MAX_KEYS:
        raise UsageError(
            "there are too many keys", expected=f"at most {limits.MAX_KEYS}", got=f"{len(trust.keys)} and another one"
        )
    keys = {each.fingerprint: each for each in trust.keys} | {record.fingerprint: record}
    return Trust(own=trust.own if own is None else own, keys=tuple(keys.values()))
