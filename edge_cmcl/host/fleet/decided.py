"""What a fleet remembers of its host's decisions: what was told, also where the telling was cut short."""

from __future__ import annotations

from contextlib import suppress

from edge_cmcl.bundle import timestamp
from edge_cmcl.bundle.attested import Promotion, attested, promotion_tag
from edge_cmcl.errors import IntegrityError, RefusedError
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.sync.attached import blob_reader
from edge_cmcl.sync.remote import Remote


def remember(fleet: Fleet, decision: Promotion) -> None:
    """Remember a decision that devices can see; within `Fleet.changing`.

    Raises:
        FormatError: what is known is damaged.
        StorageError: the file system refused.
    """
    if not decision.device_id:
        fleet.save(fleet.state().model_copy(update={"for_all": decision}))
    elif (device := fleet.device(decision.device_id)) is not None:
        fleet.save_device(device.model_copy(update={"decision": decision}))


def settle(fleet: Fleet, remote: Remote) -> None:
    """Remember the last decision where it was told and the process was cut before it could; within `Fleet.changing`.

    One that the remote has not got was told to nobody: it is forgotten.

    Raises:
        RemoteError: the remote is away.
        FormatError, StorageError: as `remember`.
    """
    state = fleet.state()
    last = state.last
    if last is None or _remembered(fleet, last) >= last.serial:
        return
    if _told(fleet, remote, last):
        remember(fleet, last)
    else:
        fleet.save(state.model_copy(update={"last": None}))


def _remembered(fleet: Fleet, last: Promotion) -> int:
    """Return the number of the decision that is known of those whom `last` is for."""
    device = fleet.device(last.device_id) if last.device_id else None
    known = device.decision if device else None if last.device_id else fleet.state().for_all
    return known.serial if known else 0


def _told(fleet: Fleet, remote: Remote, last: Promotion) -> bool:
    tag = promotion_tag(last.device_id)
    entry = remote.head(tag)
    if entry is None:
        return False
    with suppress(IntegrityError, RefusedError):  # damaged, or another host's: devices do not believe it either
        return attested(Promotion, blob_reader(remote), entry, fleet.ring.trust(), timestamp(), tag)[0] == last
    return False
