"""Documents that a key stands for: what a device found of a generation, what a host decided of one (FORMAT.md).

Each is a small manifest about a generation like its signature: a DSSE envelope of the document, and the keys that have
signed it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, StringConstraints

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.documents import (
    Counter,
    Declined,
    Descriptor,
    DeviceId,
    Digest,
    ModalityName,
    OriginId,
    OwnModel,
    Reverted,
    Timestamp,
    from_json,
    to_json,
)
from edge_cmcl.bundle.envelope import Envelope, sign
from edge_cmcl.bundle.generation import Name
from edge_cmcl.bundle.keys import PrivateKey, short
from edge_cmcl.bundle.media_types import (
    HELD_OUT,
    HELD_OUT_DOCUMENT,
    HELD_OUT_PAIRS,
    JUDGEMENT,
    JUDGEMENT_DOCUMENT,
    PROMOTION,
    PROMOTION_DOCUMENT,
    REPORT,
    REPORT_DOCUMENT,
)
from edge_cmcl.bundle.signature import read_signed, write_signed
from edge_cmcl.bundle.statement import signers_of
from edge_cmcl.bundle.store import Store
from edge_cmcl.bundle.trust import Trust, following
from edge_cmcl.errors import RevokedKeyError, SignatureError, UntrustedKeyError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Reason = Annotated[str, StringConstraints(max_length=1024)]

FOR_ALL = "for-all"
"""The tag, on a remote, of what is promoted for every device."""


class JudgedPair(OwnModel):
    """One pair of modalities on pairs that a device kept back and never trained on.

    Attributes:
        modalities: the pair; "text" stands for the labels.
        origin: the learned step that the pairs were kept back from.
        n: held-out pairs judged.
        gallery: candidates that each was ranked among.
        mrr, recall_at_1, recall_at_10: of the generation judged, mean of both directions.
        before: MRR of the generation that it was compared with; None where that did not know both.
        change: 95 % interval of the MRR's change; None without `before`.
    """

    modalities: tuple[ModalityName, ModalityName]
    origin: OriginId
    n: Annotated[int, Field(ge=1, le=limits.MAX_INTEGER)]
    gallery: Annotated[int, Field(ge=1, le=limits.MAX_INTEGER)]
    mrr: Share
    recall_at_1: Share
    recall_at_10: Share
    before: Share | None = None
    change: tuple[float, float] | None = None


class Judgement(OwnModel):
    """What a device found of a generation.

    Attributes:
        manifest: the generation.
        device_id: the device.
        created: when, by its clock.
        against: the generation that was in use there; None where the judged one was.
        accepted: whether the device took it into use, or has it in use.
        reason: why not, "" otherwise.
        pairs: what it measured; none where it had kept nothing back.
    """

    schema_name: Annotated[Literal["edge-cmcl/judgement/1"], Field(alias="schema")] = "edge-cmcl/judgement/1"
    manifest: Digest
    device_id: DeviceId
    created: Timestamp
    against: Digest | None = None
    accepted: bool = True
    reason: Reason = ""
    pairs: Annotated[tuple[JudgedPair, ...], Field(max_length=limits.MAX_JUDGED)] = ()


class Promotion(OwnModel):
    """What a host decided that devices are to use.

    Attributes:
        serial: one more than that of the decision before: a device refuses an older one than it has seen.
        name: the project.
        device_id: for which device, "" for all.
        stage: "trial" to judge it and report, "release" to use it, "withdrawn" to go back from it.
        manifest: the generation.
        counter: the generation's.
        created: when.
    """

    schema_name: Annotated[Literal["edge-cmcl/promotion/1"], Field(alias="schema")] = "edge-cmcl/promotion/1"
    serial: Counter
    name: Name
    device_id: DeviceId
    stage: Literal["trial", "release", "withdrawn"]
    manifest: Digest
    counter: Counter
    created: Timestamp


class Report(OwnModel):
    """What a device says of itself at a sync.

    Attributes:
        device_id: the device.
        name: the project.
        created: when, by its clock.
        manifest: the generation in use.
        counter: the generation's.
        trial: whether that is on trial.
        reverted: the last generation whose trial failed, None where none did.
        declined: promoted generations that it did not take.
        serial: of the latest decision of the host that it has seen.
        unsent: generations that it has made and could not send yet.
        number: higher than that of the report before.
        software: what it runs.
    """

    schema_name: Annotated[Literal["edge-cmcl/report/1"], Field(alias="schema")] = "edge-cmcl/report/1"
    device_id: DeviceId
    name: Name
    created: Timestamp
    manifest: Digest
    counter: Counter
    trial: bool
    reverted: Reverted | None = None
    declined: Annotated[tuple[Declined, ...], Field(max_length=limits.MAX_DECLINED)] = ()
    serial: Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)] = 0
    unsent: Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)] = 0
    number: Annotated[int, Field(ge=0, le=limits.MAX_INTEGER)] = 0
    software: Annotated[str, StringConstraints(max_length=128)] = ""


class Shared(OwnModel):
    """What a device shares of the pairs that it kept back: its user has asked for that.

    Attributes:
        manifest: the generation that was in use.
        device_id: the device.
        created: when, by its clock.
        files: digests of the files, one for each learned step.
    """

    schema_name: Annotated[Literal["edge-cmcl/shared/1"], Field(alias="schema")] = "edge-cmcl/shared/1"
    manifest: Digest
    device_id: DeviceId
    created: Timestamp
    files: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=limits.MAX_ORIGINS)]


Document = TypeVar("Document", Judgement, Promotion, Report, Shared)
_KINDS: Final = {
    Judgement: (JUDGEMENT, JUDGEMENT_DOCUMENT),
    Promotion: (PROMOTION, PROMOTION_DOCUMENT),
    Report: (REPORT, REPORT_DOCUMENT),
    Shared: (HELD_OUT, HELD_OUT_DOCUMENT),
}


def judgement_tag(digest: str, device_id: str) -> str:
    """Return the tag of what the device `device_id` found of the manifest `digest`."""
    return f"{digest.replace(':', '-')}.judged-{_short(device_id)}"


def promotion_tag(device_id: str) -> str:
    """Return the tag, on a remote, of what is promoted for one device, "" for all."""
    return f"for-{device_id}" if device_id else FOR_ALL


def shared_tag(digest: str, device_id: str) -> str:
    """Return the tag of what the device `device_id` shares beside the manifest `digest`."""
    return f"{digest.replace(':', '-')}.held-out-{_short(device_id)}"


def report_tag(device_id: str) -> str:
    """Return the tag, on a remote, of what a device last said of itself."""
    return f"device-{device_id}"


def attest(
    store: Store,
    subject: Descriptor,
    document: Judgement | Promotion | Report | Shared,
    signers: Sequence[PrivateKey],
    rotations: Sequence[Envelope] = (),
    further: Sequence[Descriptor] = (),
) -> Descriptor:
    """Sign a document about the manifest `subject`, write it to `store`, and return the manifest for a tag to point to.

    Raises:
        FormatError: it is too large.
        StorageError: the file system refused.
    """
    artifact, payload = _KINDS[type(document)]
    envelope = sign(payload, to_json(document), signers)
    public = [signer.public for signer in signers]
    return write_signed(store, artifact, envelope, public, rotations, subject, further)


def attested(
    kind: type[Document], read: Callable[[Descriptor], bytes], entry: Descriptor, trust: Trust, now: str, name: str
) -> tuple[Document, str]:
    """Return a document that a trusted key has signed, and the fingerprint of that key.

    Args:
        kind: which document.
        read: as in `signature.read_signed`.
        entry: its manifest.
        trust: the keys known here.
        now: the time.
        name: what errors call it.

    Raises:
        DigestError, FormatError: it is damaged.
        SignatureError: its signature is wrong, or of another kind of document.
        RevokedKeyError, UntrustedKeyError: nobody who is trusted has signed it.
    """
    artifact, payload = _KINDS[kind]
    signature = read_signed(read, entry, artifact, name, HELD_OUT_PAIRS if kind is Shared else "")
    signers = signers_of(signature.envelope, {**trust.public(), **signature.keys}, name)
    if signature.envelope.payload_type != payload:
        raise SignatureError(f"{name} is another document", expected=payload, got=signature.envelope.payload_type)
    standing = {each: following(trust, signature.rotations, now).standing(each) for each in signers}
    good = ("trusted", "retired") if kind is Judgement else ("trusted",)  # what was found was found, whoever signs now
    trusted = [each for each, how in standing.items() if how in good]
    if not trusted:
        got = ", ".join(f"key {short(each)}, {how}" for each, how in standing.items()) or "no key that came with it"
        hint = "`edge-cmcl keys trust FILE` trusts the public key of whoever made it"
        revoked = "revoked" in standing.values()
        if revoked and kind is Promotion:
            hint = "decide again on the host, by a key that is trusted here: `edge-cmcl fleet promote ... --key FILE`"
        raise (RevokedKeyError if revoked else UntrustedKeyError)(
            f"{name} is signed by nobody who is trusted here",
            expected="a signature by a key that is trusted",
            got=got,
            hint=hint,
        )
    return from_json(kind, signature.envelope.body(name), name), trusted[0]


def _short(device_id: str) -> str:
    """Return what a tag can hold of a device's id, whatever that is."""
    return hashlib.sha256(device_id.encode()).hexdigest()[:32]
