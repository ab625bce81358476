"""What a device says at a sync, signed: of itself, and of generations that it has judged."""

from __future__ import annotations

from datetime import datetime, timedelta

from edge_cmcl.bundle import Loaded, Store, timestamp
from edge_cmcl.bundle.attested import Judgement, Report, judgement_tag, report_tag
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.documents import SyncState, to_json
from edge_cmcl.device.attesting import written
from edge_cmcl.device.judgement import judge, kept_pairs
from edge_cmcl.device.model import Model
from edge_cmcl.device.outbox import note, unsent
from edge_cmcl.device.store import in_use
from edge_cmcl.device.trial import reverted_of, trial_of
from edge_cmcl.errors import DigestError
from edge_cmcl.sync.attached import push_attached
from edge_cmcl.sync.remote import Remote
from edge_cmcl.version import SOFTWARE

REPORT_EVERY = timedelta(hours=1)
"""A device that has nothing new to say reports so often: each report stays on the remote."""

_NO_TIME = "0001-01-01T00:00:00Z"


def tell_judgement(store: Store, remote: Remote, loaded: Loaded, judgement: Judgement) -> None:
    """Put a judgement beside the generation that it is of, on the remote.

    Raises:
        RemoteError: the other side is away.
        FormatError: this device's keys are damaged.
        StorageError: there is no room.
    """
    with written(store, loaded.descriptor, judgement) as (layout, entry):
        push_attached(layout, entry, remote, judgement_tag(loaded.digest, judgement.device_id))


def own_judgement(store: Store, loaded: Loaded) -> Judgement:
    """Return what this device finds of a generation that it has made, on the pairs that it kept back."""
    judged, device = judge(Model(loaded), kept_pairs(store)), store.state().device_id
    return Judgement(manifest=loaded.digest, device_id=device, created=timestamp(), pairs=judged)


def answering(store: Store) -> Loaded:
    """Return the generation in use or, where that is damaged, the one that answers instead.

    Raises:
        DigestError: every one is damaged.
    """
    found = in_use(store)
    if found is None:
        raise DigestError(f"no intact generation is left in {store.name}", hint="install its bundle again")
    return found


def make_report(store: Store) -> Report:
    """Return what this device says of itself now."""
    state, loaded = store.state(), answering(store)
    return Report(
        device_id=state.device_id,
        name=loaded.generation.name,
        created=timestamp(),
        manifest=loaded.digest,
        counter=loaded.generation.counter,
        trial=trial_of(state, loaded.digest) is not None,
        reverted=reverted_of(state, loaded.digest),
        declined=state.sync.declined,
        serial=state.sync.serial,
        unsent=len(unsent(store, state)),
        number=state.sync.reports + 1,
        software=SOFTWARE,
    )


def send_report(store: Store, remote: Remote) -> bool:
    """Report, where there is something new to say or the last report is old; return whether that was so.

    Raises:
        RemoteError, FormatError, StorageError: as `tell_judgement`.
    """
    report = make_report(store)
    if not due(report, store.state().sync):
        return False
    with written(store, store.load_manifest(report.manifest).descriptor, report) as (layout, entry):
        push_attached(layout, entry, remote, report_tag(report.device_id))
    note(store, reported=report.created, report=_content(report), reports=report.number)
    return True


def due(report: Report, known: SyncState) -> bool:
    """Whether a report is to be sent: it says something new, or the last one is old."""
    return known.report != _content(report) or known.reported is None or _age(known.reported) >= REPORT_EVERY


def _content(report: Report) -> str:
    """Return the digest of what a report says, its time and number left out."""
    return digest_of(to_json(report.model_copy(update={"created": _NO_TIME, "number": 0})))


def _age(since: str) -> timedelta:
    """Return how far away a time is, in the past or, written by a wrong clock, in the future."""
    then = datetime.fromisoformat(since.replace("Z", "+00:00"))
    return abs(datetime.now(then.tzinfo) - then)
