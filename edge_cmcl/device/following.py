"""Following the host's decisions: taking a generation that it promoted, keeping it, or going back from it (SYNC.md).

Nothing that the device learned by itself is lost: a generation that does not hold all of it waits until the host has
merged it. One that is worse on the pairs that the device kept back is declined, and the host told why.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_cmcl.bundle import Loaded, Store, timestamp
from edge_cmcl.bundle.attested import Judgement, Promotion
from edge_cmcl.bundle.documents import Declined, Descriptor
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.limits import MAX_DECLINED
from edge_cmcl.bundle.store_files import SYNC_FOLDER
from edge_cmcl.bundle.verification import Consent
from edge_cmcl.device import verdicts
from edge_cmcl.device.admission import check_admissible, continues
from edge_cmcl.device.decisions import latest, leading, sound, was_followed
from edge_cmcl.device.generations import rollback
from edge_cmcl.device.judgement import judge, kept_pairs, worse
from edge_cmcl.device.model import Model
from edge_cmcl.device.outbox import note, note_sent
from edge_cmcl.device.reporting import answering, tell_judgement
from edge_cmcl.device.signing import admit
from edge_cmcl.device.starting import confirm
from edge_cmcl.device.store import CURRENT, generations, install
from edge_cmcl.device.trial import MAX_REASON, trial_of
from edge_cmcl.errors import (
    ModelError,
    ParityError,
    RefusedError,
    RemoteError,
    StoreLockedError,
)
from edge_cmcl.limits import MAX_DRIFT
from edge_cmcl.progress import Progress
from edge_cmcl.sync.pull import fetch
from edge_cmcl.sync.remote import Remote

NONE, KNOWN, WAITS, DECLINED = "none", "known", "waits", "declined"
INSTALLED, CONFIRMED, ROLLED_BACK = "installed", "confirmed", "rolled back"


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
        ModelError: the remote has not got what was promoted.
        RemoteError, DigestError, FormatError, SignatureError, RefusedError, StorageError: as `syncing.sync`.
    """
    found = latest(store, remote)
    if found is None:
        return
    if found.serial > store.state().sync.serial:
        note(store, serial=found.serial)
    followed.decision, entry = found.decision, found.entry
    try:
        if was_followed(store, found):
            _known(store, followed.decision, followed)
            return
        _obey(store, remote, followed.decision, followed, progress)
    except StoreLockedError:
        followed.news, followed.reason = WAITS, "another process writes to the store"
    except RefusedError as error:
        _decline(store, followed.decision, entry, error.message)
        raise
    if followed.news == DECLINED:
        _decline(store, followed.decision, entry, followed.reason)
    elif followed.news != WAITS:
        others = [each for each in store.state().sync.declined if each.digest != followed.decision.manifest]
        note(store, decided=entry.digest, declined=tuple(others))


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
    current, before = store.tags()[CURRENT], leading(store)
    if decision.stage == "withdrawn":
        _withdraw(store, decision, current, before, followed)
    elif decision.manifest in before and sound(store, current):
        followed.news = KNOWN
        _keep(store, decision, followed)
    else:
        _take(store, remote, decision, followed, progress)


def _withdraw(store: Store, decision: Promotion, current: str, before: set[str], followed: Followed) -> None:
    if decision.manifest == current:
        try:
            rollback(store)
            followed.news = ROLLED_BACK
        except ModelError as error:
            followed.news, followed.reason = DECLINED, error.message
    elif decision.manifest in before:
        followed.news, followed.reason = DECLINED, "this device has learned more since, and that builds on it"


def _take(store: Store, remote: Remote, decision: Promotion, followed: Followed, progress: Progress) -> None:
    """Fetch what was promoted, judge it against what is in use, and install it on trial.

    What was fetched stays for the next sync only where the link failed.
    """
    folder = store.root / SYNC_FOLDER / "incoming"

    def told(stage: str, done: int, total: int) -> None:
        followed.received_bytes = done
        progress(stage, done, total)

    try:
        layout = fetch(remote, decision.manifest, store, folder, progress=told)
        _judge_and_install(store, remote, layout.load_manifest(decision.manifest), folder, followed)
    except RemoteError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _judge_and_install(store: Store, remote: Remote, candidate: Loaded, folder: Path, followed: Followed) -> None:
    known, tag = generations(store), store.tags()[CURRENT]
    admit(store, candidate, Consent(), candidate.digest in {each.digest for each in known})
    current = answering(store)
    if current.generation.device_id and candidate.digest != tag and not continues(candidate, current):
        followed.news, followed.reason = WAITS, "it does not hold all that this device has learned"
        return
    check_admissible(candidate, store.state(), current, known)
    judgement = _judgement(store, candidate, current)
    if judgement.accepted:
        verdicts.keep(store, judgement)
        judgement = _installed(store, candidate, folder, tag, judgement, followed)
        if followed.news == WAITS:
            return
    if not judgement.accepted:
        followed.news, followed.reason = DECLINED, judgement.reason
    tell_judgement(store, remote, candidate, judgement)
    verdicts.drop(store)


def _installed(
    store: Store, candidate: Loaded, folder: Path, tag: str, judgement: Judgement, followed: Followed
) -> Judgement:
    """Install a generation that was judged; return the judgement after what that came to."""
    try:
        install(folder, store.root)
    except ParityError as error:
        return _refusing(judgement, f"it does not compute here what its maker says: {error.message}")
    except RefusedError as error:
        if store.tags()[CURRENT] != tag:  # an update came in between: what was judged is no longer what is in use
            followed.news, followed.reason = WAITS, error.message
            return judgement
        return _refusing(judgement, error.message)
    note_sent(store, candidate.digest)
    followed.news = INSTALLED
    return judgement


def _refusing(judgement: Judgement, reason: str) -> Judgement:
    return judgement.model_copy(update={"accepted": False, "reason": reason[:MAX_REASON]})


def _judgement(store: Store, candidate: Loaded, current: Loaded) -> Judgement:
    """Judge a generation that is offered against the one in use, where that can be read."""
    model, kept = Model(candidate), kept_pairs(store)
    try:
        judged, against = judge(model, kept, Model(current)), current.digest
        had = {(each.modality, each.origin): each.relative for each in current.generation.certificate}
    except DAMAGED:
        judged, against, had = judge(model, kept), current.digest, {}
    reasons = [
        f"{' - '.join(pair.modalities)} became worse on pairs kept back here: MRR {pair.before:.3f} to {pair.mrr:.3f}"
        for pair in worse(judged)
    ]
    reasons += [
        f"{each.modality} as learned in {each.origin} may have moved by {each.relative:.0%}"
        for each in candidate.generation.certificate
        if not each.relative <= max(MAX_DRIFT, had.get((each.modality, each.origin), 0.0))
    ]
    return Judgement(
        manifest=candidate.digest,
        device_id=store.state().device_id,
        created=timestamp(),
        against=against,
        accepted=not reasons,
        reason=next(iter(reasons), "")[:MAX_REASON],
        pairs=judged,
    )


def _decline(store: Store, decision: Promotion, entry: Descriptor, reason: str) -> None:
    declined = Declined(digest=decision.manifest, since=timestamp(), reason=reason[:MAX_REASON])
    others = (each for each in store.state().sync.declined if each.digest != declined.digest)
    kept = (*others, declined)[-MAX_DECLINED:]
    note(store, decided=entry.digest, declined=kept)
