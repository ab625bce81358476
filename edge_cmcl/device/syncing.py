"""One sync of a device: what it made goes to the remote, and what the host decided for it comes back (SYNC.md).

The network is never waited for with the store's writer lock held, so the device goes on working.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from edge_cmcl.bundle import Loaded, Store
from edge_cmcl.bundle.attested import promotion_tag
from edge_cmcl.bundle.collect import hold
from edge_cmcl.bundle.lock import WAIT_S, locked
from edge_cmcl.bundle.store_files import SYNC_FOLDER
from edge_cmcl.device import verdicts
from edge_cmcl.device.following import Followed, follow
from edge_cmcl.device.outbox import lost, meet, note, note_sent
from edge_cmcl.device.reporting import own_judgement, send_report, tell_judgement
from edge_cmcl.device.store import CURRENT, generations
from edge_cmcl.durable import make_folder
from edge_cmcl.errors import EdgeCmclError, EdgeCmclWarning, IntegrityError, ModelError, RefusedError
from edge_cmcl.progress import Progress, silent
from edge_cmcl.sync.push import push
from edge_cmcl.sync.remote import Remote


class UnsentWarning(EdgeCmclWarning):
    """A generation could not be sent, because it is damaged here."""


@dataclass
class SyncReport:
    """What a sync did.

    Attributes:
        remote: where the other side is.
        sent: generations sent, oldest first.
        sent_bytes: of the blobs and manifests that were sent.
        judged: pairs of the generation in use, on what the device kept back, as they were told; None for none.
        followed: what came of the host's decisions.
    """

    remote: str
    sent: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    judged: list[dict[str, Any]] | None = None
    followed: Followed = field(default_factory=Followed)

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {**vars(self), "followed": self.followed.as_json()}


def sync(store: Store, remote: Remote, *, progress: Progress = silent) -> SyncReport:
    """Send what this device has made, follow what the host decided for it, and report.

    Args:
        store: the device store.
        remote: the other side.
        progress: told how far it is.

    Raises:
        RemoteError: the other side is away; what was sent until then counts.
        ModelError: it has not got what was promoted.
        DigestError, FormatError, SignatureError: what it offers is damaged or forged; nothing of it was taken.
        RefusedError: what it offers may not be taken: older than what was seen, not signed by a trusted key, of another
            project. What the device declines by its own judgement is no error: the report says so.
        StoreLockedError: another sync is running, or this is a new remote and another process writes to the store.
        StorageError: there is no room.

    Warns:
        UnsentWarning: a generation is damaged here, and could not be sent.
    """
    folder = store.root / SYNC_FOLDER
    make_folder(folder)
    with locked(folder, WAIT_S):
        report = SyncReport(remote.name)
        remote.head(promotion_tag(""))  # it answers: from now on this is the remote
        meet(store, remote.name)
        _check_there(store, remote)
        _send(store, remote, report, progress)
        verdicts.tell(store, remote)
        refused: EdgeCmclError | None = None
        try:
            follow(store, remote, report.followed, progress)
        except (IntegrityError, ModelError, RefusedError) as error:
            refused = error  # the host is told first
        send_report(store, remote)
        if refused is not None:
            raise refused
    return report


def _check_there(store: Store, remote: Remote) -> None:
    """Forget what was sent where the remote has lost it."""
    if lost(store.state().sync, remote):
        note(store, sent=(), reported=None, report=None)


def _send(store: Store, remote: Remote, report: SyncReport, progress: Progress) -> None:
    """Send every generation that the remote has not got, oldest first, and what the device says of the one in use."""
    current, sent = store.tags()[CURRENT], set(store.state().sync.sent)
    for loaded in reversed(generations(store)):
        if loaded.digest in sent:
            continue
        with _held(store, loaded) as there:
            if not there:
                continue
            try:
                done = push(store, [loaded], remote, {}, progress)
                if loaded.digest == current and loaded.generation.device_id == store.state().device_id:
                    judgement = own_judgement(store, loaded)
                    tell_judgement(store, remote, loaded, judgement)
                    report.judged = [pair.model_dump() for pair in judgement.pairs]
            except IntegrityError as error:  # of one generation: the others must not wait for it
                text = f"generation {loaded.generation.counter} could not be sent: {error.message}"
                warnings.warn(text, UnsentWarning, stacklevel=3)
                continue
            report.sent.append(loaded.digest)
            report.sent_bytes += done.size
        note_sent(store, loaded.digest)


@contextmanager
def _held(store: Store, loaded: Loaded) -> Iterator[bool]:
    """Keep a generation from collection while it is sent; yield whether it is still there."""
    descriptor = hold(store, loaded.digest)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)
