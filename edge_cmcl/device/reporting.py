"""What a device says at a sync, signed: of itself, and of generations that it has judged."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_cmcl.bundle import Loaded, Store, timestamp
from edge_cmcl.bundle.attested import Judgement, Report, attest, judgement_tag, report_tag
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.documents import to_json
from edge_cmcl.device.outbox import note, unsent
from edge_cmcl.device.signing import signing_key
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
    _send(store, remote, loaded, judgement, judgement_tag(loaded.digest, judgement.device_id))


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
    report, known = make_report(store), store.state().sync
    said = digest_of(to_json(report.model_copy(update={"created": _NO_TIME, "number": 0})))
    if known.report == said and known.reported is not None and _age(known.reported) < REPORT_EVERY:
        return False
    _send(store, remote, store.load_manifest(report.manifest), report, report_tag(report.device_id))
    note(store, reported=report.created, report=said, reports=report.number)
    return True


def _send(store: Store, remote: Remote, subject: Loaded, document: Judgement | Report, tag: str) -> None:
    """Sign a document in a folder of its own, since the store may be busy, and send it from there."""
    key, rotations = signing_key(store)
    with TemporaryDirectory(prefix="edge-cmcl-says-") as folder:
        scratch = Store.create(Path(folder) / "layout")
        with scratch.writer():
            entry = attest(scratch, subject, document, [key], rotations)
        push_attached(scratch, entry, remote, tag)


def _age(since: str) -> timedelta:
    """Return how far away a time is, in the past or, written by a wrong clock, in the future."""
    then = datetime.fromisoformat(since.replace("Z", "+00:00"))
    return abs(datetime.now(then.tzinfo) - then)
