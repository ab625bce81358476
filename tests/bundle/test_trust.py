"""Who is let in: the policy, on documents alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from bundle_samples import make_store

from edge_cmcl.bundle import Store, limits
from edge_cmcl.bundle.documents import sealed, unsealed
from edge_cmcl.bundle.envelope import Envelope
from edge_cmcl.bundle.keys import PrivateKey
from edge_cmcl.bundle.signature import Signature, read_signature, write_signature
from edge_cmcl.bundle.statement import endorsement, statement_of
from edge_cmcl.bundle.trust import Trust, following, owning, revoking, trusting
from edge_cmcl.bundle.verification import Admitted, Consent, admitted
from edge_cmcl.errors import (
    EdgeCmclError,
    FormatError,
    RevokedKeyError,
    SignatureError,
    UnsignedError,
    UntrustedKeyError,
    UsageError,
)

NOW, LATER = "2026-01-02T03:04:05Z", "2027-01-02T03:04:05Z"
A, B, C, OTHER = (PrivateKey.generate() for _ in range(4))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("signed") / "store")


def signature(store: Store, *signers: PrivateKey, ref: str = "current", rotations: list[Envelope]) -> Signature:
    with store.writer():
        loaded = store.load(ref)
        (entry,) = write_signature(store, loaded, signers, rotations).values()
        tag = f"{loaded.digest.replace(':', '-')}.sig"
        index = store.index().with_tag(tag, entry)
    found = read_signature(loaded, index.manifests)
    assert found is not None
    return found


def trusted(*keys: PrivateKey) -> Trust:
    trust = Trust()
    for key in keys:
        trust = trusting(trust, key.public, NOW)
    return trust


@dataclass(frozen=True)
class Case:
    """A bundle signed by `signers`, brought to a device that knows `trust`, with what the user says."""

    name: str
    result: type[EdgeCmclError] | str  # the error, or who the bundle counts as signed by: "" for nobody
    signers: tuple[PrivateKey, ...] = ()
    trust: Trust = field(default_factory=Trust)
    consent: Consent = field(default_factory=Consent)
    rotations: tuple[Envelope, ...] = ()
    known: bool = False


def says(key: PrivateKey) -> Consent:
    return Consent(fingerprint=key.public.fingerprint)


def name_of(key: PrivateKey) -> str:
    return key.public.fingerprint


ANYTHING = Consent(unsigned=True)
REVOKED_A = revoking(trusted(A), name_of(A), NOW)
A_TO_B, B_TO_C = endorsement(A, B.public), endorsement(B, C.public)
RETIRED_A = following(trusted(A), [A_TO_B], NOW)

CASES = [
    Case("unsigned", UnsignedError, trust=trusted(A)),
    Case("unsigned, no key trusted yet", UnsignedError),
    Case("unsigned, allowed", "", consent=ANYTHING),
    Case("unsigned, but here already", "", known=True),
    Case("unsigned, while a key is named", UnsignedError, consent=says(A)),
    Case("trusted", name_of(A), (A,), trusted(A)),
    Case("trusted, and allowed unsigned", name_of(A), (A,), trusted(A), ANYTHING),
    Case("another key", UntrustedKeyError, (B,), trusted(A)),
    Case("no key trusted yet", UntrustedKeyError, (A,)),
    Case("another key, allowed as if unsigned", "", (B,), trusted(A), ANYTHING),
    Case("two signatures, one trusted", name_of(A), (B, A), trusted(A)),
    Case("named for the first time", name_of(A), (A,), consent=says(A)),
    Case("named by file", name_of(A), (A,), consent=Consent(name_of(A), A.public)),
    Case("named, but signed by another", UntrustedKeyError, (B,), trusted(B), says(A)),
    Case(
        "named, but signed by another, allowed unsigned",
        UntrustedKeyError,
        (B,),
        consent=Consent(name_of(A), None, True),
    ),
    Case("revoked", RevokedKeyError, (A,), REVOKED_A),
    Case("revoked, named again", RevokedKeyError, (A,), REVOKED_A, says(A)),
    Case("revoked, allowed unsigned", RevokedKeyError, (A,), REVOKED_A, ANYTHING),
    Case("revoked, here already", RevokedKeyError, (A,), REVOKED_A, known=True),
    Case("revoked before it was seen", RevokedKeyError, (B,), revoking(trusted(A), name_of(B), NOW)),
    Case("one of two revoked", name_of(B), (A, B), trusting(REVOKED_A, B.public, NOW)),
    Case("rotated", name_of(B), (B,), trusted(A), rotations=(A_TO_B,)),
    Case("rotated twice", name_of(C), (C,), trusted(A), rotations=(A_TO_B, B_TO_C)),
    Case("rotated in the wrong order", UntrustedKeyError, (C,), trusted(A), rotations=(B_TO_C, A_TO_B)),
    Case("rotated from a key not trusted", UntrustedKeyError, (B,), trusted(C), rotations=(A_TO_B,)),
    Case("rotated from a revoked key", UntrustedKeyError, (B,), REVOKED_A, rotations=(A_TO_B,)),
    Case("rotated from a retired key", UntrustedKeyError, (C,), RETIRED_A, rotations=(endorsement(A, C.public),)),
    Case("rotated to a revoked key", RevokedKeyError, (B,), revoking(trusted(A), name_of(B), NOW), rotations=(A_TO_B,)),
    Case("rotated to itself", name_of(A), (A,), trusted(A), rotations=(endorsement(A, A.public),)),
    Case("endorsed by itself", UntrustedKeyError, (B,), trusted(A), rotations=(endorsement(B, B.public),)),
    Case("retired", UntrustedKeyError, (A,), RETIRED_A),
    Case("retired, here already", "", (A,), RETIRED_A, known=True),
    Case("retired, named again", name_of(A), (A,), RETIRED_A, says(A)),
    Case("own", name_of(A), (A,), owning(Trust(), A.public, NOW)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_who_is_let_in(store: Store, case: Case) -> None:
    found = signature(store, *case.signers, rotations=list(case.rotations)) if case.signers else None
    loaded = store.load("current")

    def decide() -> Admitted:
        return admitted(found, statement_of(loaded), case.trust, case.consent, NOW, name="it", known=case.known)

    if isinstance(case.result, str):
        done = decide()
        assert (done.signed_by, done.unsigned) == (case.result, not case.result and not case.known)
        return
    with pytest.raises(case.result) as caught:
        decide()
    assert type(caught.value) is case.result
    assert caught.value.exit_code == 5
    assert caught.value.expected
    assert caught.value.got
    assert caught.value.hint


def test_what_is_let_in_changes_who_is_trusted_only_as_told(store: Store) -> None:
    loaded = store.load("current")

    def after(trust: Trust, consent: Consent, *signers: PrivateKey, rotations: tuple[Envelope, ...] = ()) -> Trust:
        found = signature(store, *signers, rotations=list(rotations))
        return admitted(found, statement_of(loaded), trust, consent, NOW, name="it", known=False).trust

    assert after(trusted(A), Consent(), A) == trusted(A)
    assert after(Trust(), ANYTHING, A) == Trust()
    assert after(Trust(), says(A), A, B) == trusted(A)
    rotated = after(trusted(A), Consent(), C, rotations=(A_TO_B, B_TO_C))
    assert [rotated.standing(name_of(key)) for key in (A, B, C)] == ["retired", "retired", "trusted"]
    both = after(trusted(A, B), Consent(), B, rotations=(A_TO_B,))
    assert [both.standing(name_of(key)) for key in (A, B)] == ["retired", "trusted"]


def test_a_signature_of_another_manifest_or_of_changed_bytes_is_wrong(store: Store) -> None:
    of_base = signature(store, A, ref="base", rotations=[])
    wanted = statement_of(store.load("current"))

    def decide(found: Signature, *, known: bool = False) -> Admitted:
        return admitted(found, wanted, trusted(A), ANYTHING, NOW, name="it", known=known)

    for known in (False, True):
        with pytest.raises(SignatureError, match="for something else") as caught:
            decide(of_base, known=known)
        assert store.tags()["base"] in caught.value.got
        assert caught.value.exit_code == 4
    good = signature(store, A, rotations=[])
    assert decide(good).signed_by == name_of(A)
    as_rotation = good.envelope.model_copy(update={"payload_type": "application/vnd.edge-cmcl.rotation.v1+json"})
    other_body = of_base.envelope.model_copy(update={"payload": good.envelope.payload})
    for envelope in (as_rotation, other_body):
        with pytest.raises(SignatureError, match="is wrong"):
            decide(Signature(envelope, good.keys, ()))


def test_a_rotation_that_was_changed_is_wrong() -> None:
    forged = A_TO_B.model_copy(update={"payload": endorsement(A, C.public).payload})
    with pytest.raises(SignatureError, match="wrong"):
        following(trusted(A), [forged], NOW)
    named = A_TO_B.model_copy(update={"signatures": (endorsement(B, C.public).signatures[0],)})
    assert following(trusted(A), [named], NOW) == trusted(A)


def test_revocation_outlasts_a_request_to_trust_unless_that_says_so() -> None:
    with pytest.raises(RevokedKeyError, match="was revoked") as caught:
        trusting(REVOKED_A, A.public, LATER)
    assert "--restore" in caught.value.hint
    assert trusting(REVOKED_A, A.public, LATER, restore=True).standing(name_of(A)) == "trusted"
    assert revoking(REVOKED_A, name_of(A), LATER) == REVOKED_A


def test_the_key_that_signs_here_is_replaced_before_it_is_revoked() -> None:
    trust = owning(Trust(), A.public, NOW)
    with pytest.raises(UsageError, match="signs here"):
        revoking(trust, name_of(A), NOW)
    trust = owning(trust, B.public, LATER, A_TO_B)
    assert (trust.own, trust.standing(name_of(A)), trust.rotations()) == (name_of(B), "retired", (A_TO_B,))
    assert revoking(trust, name_of(A), LATER).standing(name_of(A)) == "revoked"


def test_no_bundle_retires_the_key_of_the_device_itself() -> None:
    trust = owning(Trust(), A.public, NOW)
    assert following(trust, [A_TO_B], NOW) == trust


def test_keys_survive_the_disk_and_nothing_changed_is_accepted() -> None:
    trust = revoking(owning(RETIRED_A, C.public, NOW), name_of(OTHER), NOW)
    data = sealed(trust)
    assert unsealed(Trust, data, "keys", "") == trust
    for place in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises(FormatError):
            unsealed(Trust, bytes(flipped), "keys", "")


def test_there_is_an_end_to_keys() -> None:
    trust = Trust()
    for number in range(limits.MAX_KEYS):
        trust = revoking(trust, f"{number:064x}", NOW)
    with pytest.raises(UsageError, match="too many keys"):
        trusting(trust, A.public, NOW)
