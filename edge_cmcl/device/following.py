"""Following the host's decisions: taking a generation that it promoted, keeping it, or going back from it (SYNC.md).

Nothing that the device learned by itself is lost: a generation that does not hold all of it waits until the host has
merged it. One that is worse on the pairs that the device kept back is declined, and the host told why.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

from edge_cmcl.bundle import Loaded, Store, timestamp
from edge_cmcl.bundle.attested import Judgement, Promotion, attested, promotion_tag
from edge_cmcl.bundle.documents import Declined, Descriptor
from edge_cmcl.bundle.limits import MAX_DECLINED
from edge_cmcl.bundle.store_files import SYNC_FOLDER
from edge_cmcl.bundle.verification import Consent
from edge_cmcl.device.admission import check_admissible, continues
from edge_cmcl.device.generations import rollback
from edge_cmcl.device.judgement import judge, kept_pairs, worse
from edge_cmcl.device.model import Model
from edge_cmcl.device.outbox import note, note_sent
from edge_cmcl.device.reporting import tell_judgement
from edge_cmcl.device.signing import admit, keyring
from edge_cmcl.device.starting import confirm
from edge_cmcl.device.store import CURRENT, generations, install
from edge_cmcl.device.trial import trial_of
from edge_cmcl.errors import OlderError, RefusedError, SignatureError, StoreLockedError
from edge_cmcl.limits import MAX_DRIFT
from edge_cmcl.progress import Progress
from edge_cmcl.sync.attached import blob_reader
from edge_cmcl.sync.pull import fetch
from edge_cmcl.sync.remote import Remote

MAX_REASON = 500

NONE, KNOWN, INSTALLED, CONFIRMED, ROLLED_BACK, WAITS, DECLINED = (
    *("none", "known", "installed", "confirmed", "rolled back"),
    *("waits", "declined"),
)


@dataclass
class Followed:
    """What came of the host's decisions.

    Attributes:
        decision: the latest that concerns this device, None for none.
        news: "none"; "known", for one that was followed before; "installed", on trial; "confirmed"; "rolled back";
            "waits", for another sync; "declined".
        reason: why it waits or was declined.
        received_bytes: of the blobs that were fetched.
    """

    decision: Promotion | None = None
    news: str = NONE
    reason: str = ""
    received_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        decision = None if self.decision is None else self.decision.model_dump(exclude={"schema_name"})
        return {**vars(self), "decision": decision}


def follow(store: Store, remote: Remote, followed: Followed, progress: Progress) -> None:
    """Do what the host decided last for this device, where that is news, and fill in what came of it.

    Raises:
        RemoteError, DigestError, FormatError, SignatureError, RefusedError, StorageError: as `syncing.sync`.
    """
    found = _latest(store, remote)
    if found is None:
        return
    followed.decision, entry = found
    if store.state().sync.decided == entry.digest:
        _known(store, followed.decision, followed)
        return
    try:
        _obey(store, remote, followed.decision, followed, progress)
    except StoreLockedError:
        followed.news, followed.reason = WAITS, "another process writes to the store"
    except RefusedError as error:
        _decline(store, followed.decision, entry, error.message)
        raise
    if followed.news == DECLINED:
        _decline(store, followed.decision, entry, followed.reason)
    elif followed.news != WAITS:
        note(store, serial=followed.decision.serial, decided=entry.digest)


def _latest(store: Store, remote: Remote) -> tuple[Promotion, Descriptor] | None:
    """Return the latest decision that concerns this device, verified, and its manifest.

    Raises:
        SignatureError: one stands under a tag that it is not for.
        OlderError: it is older than one that was seen.
    """
    state, name = store.state(), store.load(CURRENT).generation.name
    trust, found = keyring(store).trust(), []
    for device in (state.device_id, ""):
        tag = promotion_tag(device)
        entry = remote.head(tag)
        if entry is None:
            continue
        promotion, _ = attested(Promotion, blob_reader(remote), entry, trust, timestamp(), f"the decision {tag}")
        if (promotion.device_id, promotion.name) != (device, name):
            raise SignatureError(
                f"the decision {tag} is for something else",
                expected=f"one for {device or 'all devices'} of {name}",
                got=f"one for {promotion.device_id or 'all devices'} of {promotion.name}",
                hint="somebody moved the tag: look at the remote",
            )
        found.append((promotion, entry))
    if not found:
        return None
    latest = max(found, key=lambda each: each[0].serial)
    if latest[0].serial < state.sync.serial:
        raise OlderError(
            "the remote offers an older decision than it did before",
            expected=f"decision {state.sync.serial} or a later one",
            got=f"decision {latest[0].serial}",
            hint="the remote was put back to an older state: promote again from the host",
        )
    return latest


def _known(store: Store, decision: Promotion, followed: Followed) -> None:
    """Tell what came of a decision that was followed before; what was released and still works is kept for good."""
    declined = [each.reason for each in store.state().sync.declined if each.digest == decision.manifest]
    followed.news, followed.reason = (DECLINED, declined[-1]) if declined else (KNOWN, "")
    _keep(store, decision, followed)


def _keep(store: Store, decision: Promotion, followed: Followed) -> None:
    """End the trial of a generation that was released and is in use: it must pass its self-test."""
    current = store.tags()[CURRENT]
    if decision.stage == "release" and decision.manifest == current and trial_of(store.state(), current) is not None:
        confirm(store)
        followed.news, followed.reason = CONFIRMED, ""


def _obey(store: Store, remote: Remote, decision: Promotion, followed: Followed, progress: Progress) -> None:
    current = store.tags()[CURRENT]
    if decision.stage == "withdrawn":
        _withdraw(store, decision, current, followed)
    elif decision.manifest == current:
        followed.news = KNOWN
        _keep(store, decision, followed)
    else:
        _take(store, remote, decision, followed, progress)


def _withdraw(store: Store, decision: Promotion, current: str, followed: Followed) -> None:
    if decision.manifest == current:
        rollback(store)
        followed.news = ROLLED_BACK
    elif decision.manifest in {loaded.digest for loaded in store.lineage([current])}:
        followed.news, followed.reason = DECLINED, "this device has learned more since, and that builds on it"


def _take(store: Store, remote: Remote, decision: Promotion, followed: Followed, progress: Progress) -> None:
    """Fetch what was promoted, judge it against what is in use, and install it on trial."""
    folder = store.root / SYNC_FOLDER / "incoming"

    def told(stage: str, done: int, total: int) -> None:
        followed.received_bytes = done
        progress(stage, done, total)

    layout = fetch(remote, decision.manifest, store, folder, progress=told)
    candidate, current, known = layout.load_manifest(decision.manifest), store.load(CURRENT), generations(store)
    admit(store, candidate, Consent(), candidate.digest in {each.digest for each in known})
    if current.generation.device_id and not continues(candidate, current):
        followed.news, followed.reason = WAITS, "it does not hold all that this device has learned"
        return
    check_admissible(candidate, store.state(), current, known)
    followed.reason = _judge(store, remote, candidate, current)
    if followed.reason:
        followed.news = DECLINED
    else:
        install(folder, store.root)
        note_sent(store, candidate.digest)
        followed.news = INSTALLED
    shutil.rmtree(folder, ignore_errors=True)


def _judge(store: Store, remote: Remote, candidate: Loaded, current: Loaded) -> str:
    """Judge a generation that is offered against the one in use, and tell the host; return why not to take it."""
    judged = judge(Model(candidate), kept_pairs(store), Model(current))
    reasons = [
        f"{' - '.join(pair.modalities)} became worse on pairs kept back here: MRR {pair.before:.3f} to {pair.mrr:.3f}"
        for pair in worse(judged)
    ]
    reasons += [
        f"{each.modality} as learned in {each.origin} may have moved by {each.relative:.0%}"
        for each in candidate.generation.certificate
        if not each.relative <= MAX_DRIFT
    ]
    reason = next(iter(reasons), "")[:MAX_REASON]
    judgement = Judgement(
        manifest=candidate.digest,
        device_id=store.state().device_id,
        created=timestamp(),
        against=current.digest,
        accepted=not reason,
        reason=reason,
        pairs=judged,
    )
    tell_judgement(store, remote, candidate, judgement)
    return reason


def _decline(store: Store, decision: Promotion, entry: Descriptor, reason: str) -> None:
    declined = Declined(digest=decision.manifest, since=timestamp(), reason=reason[:MAX_REASON])
    kept = (*store.state().sync.declined, declined)[-MAX_DECLINED:]
    note(store, serial=decision.serial, decided=entry.digest, declined=kept)
