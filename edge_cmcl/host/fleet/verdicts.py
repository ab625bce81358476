"""What devices found of generations that they were offered, whatever the host has decided since."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from edge_cmcl.bundle import timestamp
from edge_cmcl.bundle.attested import Judgement, attested, judgement_tag
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.trust import Trust
from edge_cmcl.errors import IntegrityError, RefusedError, SignatureError
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.speaking import own_keys
from edge_cmcl.host.fleet.state import MAX_VERDICTS, Device
from edge_cmcl.sync.attached import blob_reader
from edge_cmcl.sync.remote import Remote

_HEX = re.compile(r"sha256-([0-9a-f]{64})")


def new_verdicts(
    fleet: Fleet, remote: Remote, known: Device, tags: Sequence[str], *, changed: bool
) -> dict[str, Judgement] | None:
    """Return what a device found of what it was offered, None where nothing of that is new.

    Args:
        fleet: the fleet.
        remote: where the devices sync.
        known: the device.
        tags: those of the remote.
        changed: whether the device has reported since: then it may have judged again what it had declined.

    Raises:
        RemoteError: the remote is away.
    """
    found, trust = dict(known.verdicts), own_keys(fleet, known)
    for digest in _judged(fleet, known, tags):
        before = found.get(digest)
        if before is not None and (before.accepted or not changed):
            continue
        judgement = None
        with suppress(IntegrityError, RefusedError):  # what cannot be believed is no answer
            judgement = judgement_of(remote, digest, known.device_id, trust)
        if judgement is not None and judgement.against is not None:
            found[digest] = judgement
    kept = dict(sorted(found.items(), key=lambda each: each[1].created)[-MAX_VERDICTS:])
    return None if kept == known.verdicts else kept


def _judged(fleet: Fleet, known: Device, tags: Sequence[str]) -> Iterator[str]:
    """Yield the generations here that a device has judged and not made.

    Decisions do not tell that: a later one may have taken the place of that which a device has answered.
    """
    suffix = judgement_tag("", known.device_id)
    for tag in tags:
        match = _HEX.fullmatch(tag.removesuffix(suffix)) if tag.endswith(suffix) else None
        if match is None or not fleet.store.has(digest := f"sha256:{match[1]}"):
            continue
        with suppress(*DAMAGED):
            if fleet.store.load_manifest(digest).generation.device_id != known.device_id:
                yield digest


def judgement_of(remote: Remote, digest: str, device: str, trusted: Trust) -> Judgement | None:
    """Return what a device found of a generation, None where it told nothing.

    Raises:
        RemoteError: the remote is away.
        IntegrityError, RefusedError: it is damaged, of something else, or signed by nobody who speaks for the device.
    """
    entry = remote.head(judgement_tag(digest, device))
    if entry is None:
        return None
    name = f"the judgement of {device}"
    judgement, _ = attested(Judgement, blob_reader(remote), entry, trusted, timestamp(), name)
    if (judgement.manifest, judgement.device_id) != (digest, device):
        raise SignatureError(
            f"{name} is of something else",
            expected=f"{digest[:19]} by {device}",
            got=f"{judgement.manifest[:19]} by {judgement.device_id}",
            hint="somebody moved the tag: look at the remote",
        )
    return judgement
