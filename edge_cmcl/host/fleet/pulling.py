"""What devices sent comes to the host: their reports, generations and judgements, each verified by the device's key."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edge_cmcl.bundle import Loaded, timestamp
from edge_cmcl.bundle.attested import Report, attested, report_tag
from edge_cmcl.bundle.documents import Manifest, from_json
from edge_cmcl.bundle.generation import Generation, check_manifest, generation_from_json
from edge_cmcl.bundle.keys import PublicKey
from edge_cmcl.bundle.media_types import REPORT
from edge_cmcl.bundle.signature import read_signature, read_signed
from edge_cmcl.bundle.statement import signers_of, statement_of
from edge_cmcl.bundle.store_files import SYNC_FOLDER
from edge_cmcl.bundle.transfer import import_layout
from edge_cmcl.bundle.trust import Trust, following
from edge_cmcl.bundle.verification import verified
from edge_cmcl.device.intact import intact
from edge_cmcl.errors import (
    EdgeCmclError,
    FormatError,
    IntegrityError,
    OlderError,
    PlatformError,
    RefusedError,
    RemoteError,
    SignatureError,
    UntrustedKeyError,
)
from edge_cmcl.host.fleet.collecting import tidy
from edge_cmcl.host.fleet.decided import settle
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.shared import bring
from edge_cmcl.host.fleet.speaking import makers, nobody_speaks, own_keys, speaking
from edge_cmcl.host.fleet.state import MAX_FORMER, MAX_HISTORY, Device, Past
from edge_cmcl.host.fleet.verdicts import judgement_of, new_verdicts
from edge_cmcl.progress import Progress, silent
from edge_cmcl.sync.attached import blob_reader
from edge_cmcl.sync.pull import fetch
from edge_cmcl.sync.push import own_tag
from edge_cmcl.sync.remote import Remote

_DEVICE = report_tag("")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass
class Pulled:
    """What a pull brought.

    Attributes:
        remote: where from.
        news: devices with something new.
        unchanged: how many others there are.
        strangers: devices whose keys are not trusted here, by id: the fingerprint that they sign with.
        revoked: devices that sign with a key that was revoked here: nothing of them is taken.
        unused: fingerprints that were to be trusted, and with which nothing on the remote is signed.
        problems: why what a device sent was not taken, by id.
        received_bytes: of the blobs that were fetched.
    """

    remote: str
    news: list[str] = field(default_factory=list)
    unchanged: int = 0
    strangers: dict[str, str] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    received_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return vars(self).copy()


def pull(
    fleet: Fleet, remote: Remote, own: PublicKey, trust: Iterable[str] = (), progress: Progress = silent
) -> Pulled:
    """Bring what devices sent since the last pull. What is wrong with one device keeps back that one alone.

    Args:
        fleet: where to.
        remote: where from.
        own: key of this host, which signs what it merges.
        trust: fingerprints of keys, of devices or of whoever exported their base, to be trusted from now on.
        progress: told how far it is.

    Raises:
        RemoteError: the remote is away.
        StoreLockedError, StorageError: the fleet cannot be written.
        DigestError, FormatError: the fleet is damaged.
    """
    pulled, wanted = Pulled(remote.name), set(trust)
    tags = remote.tags()
    names = [tag.removeprefix(_DEVICE) for tag in tags if tag.startswith(_DEVICE)]
    with fleet.changing():
        if fleet.state().remote != remote.name:
            fleet.save(fleet.state().model_copy(update={"remote": remote.name}))
        fleet.trust([own])
        settle(fleet, remote)
    for done, name in enumerate(names):
        try:
            with fleet.changing():
                _device(fleet, remote, _checked_id(name), tags, wanted, pulled)
        except (RemoteError, PlatformError):
            raise
        except EdgeCmclError as error:
            pulled.problems[name] = "; ".join(filter(None, (error.message, error.got, error.hint)))
        progress("devices", done + 1, len(names))
    with fleet.changing():
        tidy(fleet)
        pulled.unused = sorted(wanted - {record.fingerprint for record in fleet.ring.trust().keys})
    return pulled


def _checked_id(name: str) -> str:
    """Return the id of a device as a tag names it.

    Raises:
        FormatError: no device has such an id.
    """
    if not _ID.fullmatch(name):
        raise FormatError("a tag names no device", expected="device- and an id of letters and digits", got=name[:80])
    return name


def _device(fleet: Fleet, remote: Remote, name: str, tags: Sequence[str], wanted: set[str], pulled: Pulled) -> None:
    known = fleet.device(name)
    entry = remote.head(report_tag(name))
    if entry is None:
        return
    changed = known is not None and known.told != entry.digest
    verdicts = None if known is None else new_verdicts(fleet, remote, known, tags, changed=changed)
    if known is not None:
        pulled.received_bytes += bring(fleet, remote, name, known.report.manifest, own_keys(fleet, known))
    if known is not None and not changed:
        if verdicts is not None:
            fleet.save_device(known.model_copy(update={"verdicts": verdicts}))
            pulled.news.append(name)
        else:
            pulled.unchanged += 1
        return
    what = f"the report of {name}"
    signed = read_signed(blob_reader(remote), entry, REPORT, what)
    signers = signers_of(signed.envelope, {**fleet.ring.trust().public(), **signed.keys}, what)
    trusted = speaking(fleet, name, known, signed, signers, wanted)
    if trusted is None:
        _stranger(fleet, name, signers, pulled)
        return
    report, fingerprint = attested(Report, blob_reader(remote), entry, trusted, timestamp(), what)
    if report.device_id != name:
        raise SignatureError(
            f"the report of {name} is another device's",
            expected=name,
            got=report.device_id or "no device's",
            hint="somebody moved the tag: look at the remote",
        )
    if known is not None and report.number < known.report.number:
        raise OlderError(
            f"the report of {name} is older than the last one",
            expected=f"report {known.report.number} or a later one",
            got=f"report {report.number}",
            hint="somebody put the remote back to an older state: the next report of the device is taken",
        )
    _generation(fleet, remote, report, trusted, wanted, pulled)
    if known is None or known.report.manifest != report.manifest:
        pulled.received_bytes += bring(fleet, remote, name, report.manifest, trusted)
    history = _history(fleet, remote, report, known, trusted)
    fleet.save_device(
        Device(
            device_id=name,
            fingerprint=fingerprint,
            former=_former(known, fingerprint),
            told=entry.digest,
            report=report,
            seen=timestamp(),
            history=history,
            verdicts=verdicts if verdicts is not None else known.verdicts if known else {},
            decision=known.decision if known else None,
        )
    )
    pulled.news.append(name)


def _stranger(fleet: Fleet, name: str, signers: Sequence[str], pulled: Pulled) -> None:
    """Note a device whose key is not trusted here, or was revoked."""
    if any(fleet.ring.trust().standing(each) == "revoked" for each in signers):
        pulled.revoked.append(name)
    else:
        pulled.strangers[name] = next(iter(signers), "")


def _former(known: Device | None, fingerprint: str) -> tuple[str, ...]:
    """Return the keys that a device had before the one that it signs with now, the latest ones."""
    if known is None or known.fingerprint == fingerprint:
        return known.former if known else ()
    return tuple(dict.fromkeys((*known.former, known.fingerprint)))[-MAX_FORMER:]


def _generation(fleet: Fleet, remote: Remote, report: Report, trusted: Trust, wanted: set[str], pulled: Pulled) -> None:
    """Bring the generation that a device has in use, and check who has signed it: the device, or this host."""
    here = next(intact(fleet.store, [report.manifest]), None)
    if here is not None:
        _check_signed(fleet, here, report, trusted, wanted)
        _tag(fleet, report)
        return
    folder = fleet.root / SYNC_FOLDER / "incoming"

    def told(stage: str, done: int, total: int) -> None:
        if done == total:
            pulled.received_bytes += total

    fetch(remote, report.manifest, fleet.store, folder, progress=told)

    def admit(loaded: Loaded) -> None:
        _check_signed(fleet, loaded, report, trusted, wanted)

    import_layout(folder, fleet.store, tags=[report_tag(report.device_id)], admit=admit)
    shutil.rmtree(folder, ignore_errors=True)


def _tag(fleet: Fleet, report: Report) -> None:
    tag = report_tag(report.device_id)
    if fleet.store.tags().get(tag) != report.manifest:
        fleet.store.set_tag(tag, report.manifest)


def _check_signed(fleet: Fleet, loaded: Loaded, report: Report, trusted: Trust, wanted: set[str]) -> None:
    """Check that a generation is signed by whoever made it.

    What another device made is only taken with that device's signature, and what a host made, a base or a merge, with
    that of a key that is trusted here and no device's.
    """
    name = f"generation {loaded.digest[:19]} of {report.device_id}"
    signature = read_signature(loaded)
    if signature is None:
        raise UntrustedKeyError(f"{name} is not signed", expected="a signature by whoever made it", got="none")
    keys = makers(fleet, loaded.generation.device_id, report.device_id, trusted, signature.keys, wanted)
    signers = verified(signature, statement_of(loaded), keys, name)
    followed = following(keys, signature.rotations, timestamp())
    if not any(followed.standing(signer) in ("trusted", "retired") for signer in signers):
        raise nobody_speaks(fleet, name, signers)


def _history(fleet: Fleet, remote: Remote, report: Report, known: Device | None, trusted: Trust) -> tuple[Past, ...]:
    """Return the generations that a device had in use, back to what is known already."""
    older = known.history if known else ()
    seen, found, waiting = {each.digest for each in older}, list[Past](), [report.manifest]
    while waiting and len(found) < MAX_HISTORY:
        digest = waiting.pop(0)
        if digest in seen:
            continue
        seen.add(digest)
        generation = _document(fleet, remote, digest)
        if generation is not None:
            found.append(_past(remote, digest, generation, report.device_id, trusted))
            waiting += generation.parents
    every = sorted((*older, *found), key=lambda past: (past.counter, past.created))
    return tuple(every)[-MAX_HISTORY:]


def _past(remote: Remote, digest: str, generation: Generation, device: str, trusted: Trust) -> Past:
    judgement = None
    with suppress(IntegrityError, RefusedError):  # what it said of an old generation must not cost the new one
        judgement = judgement_of(remote, digest, device, trusted)
    return Past(
        digest=digest,
        counter=generation.counter,
        created=generation.created,
        action=generation.action,
        worst=max((each.relative for each in generation.certificate), default=0.0),
        judged=judgement.pairs if judgement else (),
    )


def _document(fleet: Fleet, remote: Remote, digest: str) -> Generation | None:
    """Return the document of a generation, from here or the remote; None where neither has it."""
    if fleet.store.has(digest):
        return fleet.store.load_manifest(digest).generation
    data = remote.manifest(own_tag(digest))
    if data is None:
        return None
    name = f"generation {digest[:19]}"
    manifest = from_json(Manifest, data, f"manifest {digest[:19]}")
    generation = generation_from_json(blob_reader(remote)(manifest.config), name)
    check_manifest(manifest, generation, name)
    return generation
