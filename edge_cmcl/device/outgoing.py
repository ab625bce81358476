"""What a sync would send, listed before anything leaves the device: generations, and the documents that it would sign.

A document is written as the sync writes it, so its size is the real one; only its time and signature are others. What
the device will say of a generation that the host offers is known after it was judged: its largest size is listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from edge_cmcl.bundle import Loaded, State, Store, timestamp
from edge_cmcl.bundle.attested import JudgedPair, Judgement, Report, judgement_tag, report_tag
from edge_cmcl.bundle.documents import Declined, Descriptor, Reverted, SyncState
from edge_cmcl.bundle.limits import MAX_DECLINED, MAX_JUDGED
from edge_cmcl.bundle.media_types import BUNDLE, ENVELOPE, OCI_MANIFEST
from edge_cmcl.device.attesting import written
from edge_cmcl.device.decisions import Latest, latest, leading, sound, was_followed
from edge_cmcl.device.judgement import kept_pairs
from edge_cmcl.device.outbox import lost
from edge_cmcl.device.reporting import due, make_report, own_judgement
from edge_cmcl.device.sharing import to_share
from edge_cmcl.device.store import CURRENT, generations
from edge_cmcl.device.trial import MAX_REASON, trial_of
from edge_cmcl.device.verdicts import untold
from edge_cmcl.errors import IntegrityError, RefusedError
from edge_cmcl.sync.attached import plan_attached
from edge_cmcl.sync.push import Item, own_tag, plan
from edge_cmcl.sync.remote import Remote

_LONGEST = 0.00012345678901234567
"""No share is longer when it is written."""
_REASON = "x" * MAX_REASON


@dataclass(frozen=True)
class Outgoing:
    """One blob or manifest that a sync would send.

    Attributes:
        item: what it is, and whether the remote has it.
        signed_then: whether it holds a time or a signature of the sync, so that its digest will be another one.
        exact: whether its size is known; it is at most that otherwise.
    """

    item: Item
    signed_then: bool = False
    exact: bool = True


@dataclass(frozen=True)
class _Foreseen:
    """What the host's latest decision may lead to.

    Attributes:
        serial: of it, or of what was seen before.
        news: the decision, where it may change what is in use; None otherwise.
        offered: manifest of what would be fetched and judged for it, None for nothing.
    """

    serial: int
    news: Latest | None = None
    offered: Descriptor | None = None


def outgoing(store: Store, remote: Remote, share: int = 0) -> list[Outgoing]:
    """Return everything that a sync would send, and what of it the remote has; nothing is sent, and nothing changed.

    Args:
        store: the device store.
        remote: the other side.
        share: how many pairs that were kept back of each step would be shared.

    Raises:
        RemoteError: the other side is away.
        DataError: pairs shall be shared, and none were kept back.
        DigestError, FormatError: a manifest here is damaged.
    """
    state, current = store.state(), store.tags()[CURRENT]
    known = _known_of(state.sync, remote)
    unsent = [each for each in reversed(generations(store)) if each.digest not in set(known.sent)]
    found = [Outgoing(item) for item in plan(store, unsent, remote)]
    for loaded in unsent:
        if loaded.digest == current and loaded.generation.device_id == state.device_id:
            tag = judgement_tag(loaded.digest, state.device_id)
            found += _document(store, loaded.descriptor, own_judgement(store, loaded), tag, remote)
    if (kept := untold(store)) is not None:
        judgement, loaded = kept
        tag = judgement_tag(judgement.manifest, judgement.device_id)
        found += _document(store, loaded.descriptor, judgement, tag, remote)
    foreseen = _foreseen(store, remote)
    if foreseen.offered is not None:
        judgement = _longest_judgement(store, foreseen.offered)
        tag = judgement_tag(judgement.manifest, judgement.device_id)
        found += _document(store, foreseen.offered, judgement, tag, remote, exact=False)
    found += _report(store, remote, known, foreseen)
    if share:
        found += _shared(store, remote, share, foreseen)
    return _each_once(found)


def _known_of(known: SyncState, remote: Remote) -> SyncState:
    """Return what a sync would know of the remote: nothing where it is another one, or has lost what it had."""
    if known.remote == remote.name and not lost(known, remote):
        return known
    return known.model_copy(update={"sent": (), "reported": None, "report": None})


def _each_once(found: list[Outgoing]) -> list[Outgoing]:
    """Leave out blobs that are sent earlier: the keys are the same in every document."""
    seen, once = set[str](), list[Outgoing]()
    for each in found:
        if each.item.tag or each.item.blob.digest not in seen:
            once.append(each)
        seen.add(each.item.blob.digest)
    return once


def _document(
    store: Store,
    subject: Descriptor,
    document: Judgement | Report,
    tag: str,
    remote: Remote,
    *,
    exact: bool = True,
) -> Iterator[Outgoing]:
    with written(store, subject, document) as (layout, entry):
        yield from (_signed(item, exact) for item in plan_attached(layout, entry, remote, tag))


def _signed(item: Item, exact: bool) -> Outgoing:
    anew = bool(item.tag) or item.blob.media_type == ENVELOPE
    return Outgoing(replace(item, there=item.there and not anew), anew, exact or not anew)


def _foreseen(store: Store, remote: Remote) -> _Foreseen:
    """Foresee what a sync would do for the host's latest decision; one that cannot be believed is not followed."""
    serial, current = store.state().sync.serial, store.tags()[CURRENT]
    try:
        found = latest(store, remote)
    except (IntegrityError, RefusedError):
        found = None
    if found is None:
        return _Foreseen(serial)
    decision, serial, before = found.decision, max(serial, found.serial), leading(store)
    news = not was_followed(store, found)
    if decision.stage == "withdrawn":
        return _Foreseen(serial, found if news and decision.manifest in before else None)
    if not news or (decision.manifest in before and sound(store, current)):
        confirms = decision.stage == "release" and decision.manifest == current
        ends = confirms and trial_of(store.state(), current) is not None
        return _Foreseen(serial, found if ends else None)
    there = remote.head(own_tag(decision.manifest))
    if there is None:
        return _Foreseen(serial)
    offered = Descriptor(media_type=OCI_MANIFEST, digest=decision.manifest, size=there.size, artifact_type=BUNDLE)
    return _Foreseen(serial, found, offered)


def _longest_judgement(store: Store, offered: Descriptor) -> Judgement:
    """Return the longest that this device may say of a generation before it has judged it."""
    asked = [(held, pair) for held in kept_pairs(store) for pair in combinations(held.members, 2)][:MAX_JUDGED]
    scores = dict.fromkeys(("mrr", "recall_at_1", "recall_at_10", "before"), _LONGEST)
    return Judgement(
        manifest=offered.digest,
        device_id=store.state().device_id,
        created=timestamp(),
        against=store.tags()[CURRENT],
        accepted=False,
        reason=_REASON,
        pairs=tuple(
            JudgedPair(
                modalities=pair,
                origin=held.origin,
                n=held.n,
                gallery=max(held.n, len(held.label_names)),
                change=(-_LONGEST, -_LONGEST),
                **scores,
            )
            for held, pair in asked
        ),
    )


def _report(store: Store, remote: Remote, known: SyncState, foreseen: _Foreseen) -> Iterator[Outgoing]:
    report = make_report(store).model_copy(update={"unsent": 0, "serial": foreseen.serial})
    subject = store.load_manifest(report.manifest).descriptor
    if foreseen.news is not None:
        report = _longest_report(store.state(), report, foreseen.news)
        subject = _largest(subject, foreseen, generations(store))
    elif not due(report, known):
        return
    tag = report_tag(report.device_id)
    yield from _document(store, subject, report, tag, remote, exact=foreseen.news is None)


def _longest_report(state: State, report: Report, news: Latest) -> Report:
    """Return the longest report after a decision was followed, in whatever way."""
    digest, now = news.decision.manifest, timestamp()
    others = [each for each in state.sync.declined if each.digest != digest]
    declined = Declined(digest=digest, since=now, reason=_REASON)
    return report.model_copy(
        update={
            "counter": max(report.counter, news.decision.counter),
            "trial": False,
            "reverted": Reverted(digest=digest, since=now, reason=_REASON),
            "declined": (*others, declined)[-MAX_DECLINED:],
        }
    )


def _largest(subject: Descriptor, foreseen: _Foreseen, there: list[Loaded]) -> Descriptor:
    """Return the largest manifest that a document may be about: its size stands in it."""
    others = [each.descriptor for each in there]
    offered = [foreseen.offered] if foreseen.offered else []
    return max([subject, *others, *offered], key=lambda each: each.size)


def _shared(store: Store, remote: Remote, count: int, foreseen: _Foreseen) -> Iterator[Outgoing]:
    sharing, exact = to_share(store, count), foreseen.news is None
    subject = sharing.loaded.descriptor
    if not exact:
        subject = _largest(subject, foreseen, generations(store))
    with written(store, subject, sharing.document, sharing.files) as (layout, entry):
        yield from (_signed(item, exact) for item in plan_attached(layout, entry, remote, sharing.tag))
