"""A device that is gone, or whose key is in wrong hands: the fleet forgets it, and takes nothing more of that key."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

from edge_cmcl.bundle import timestamp
from edge_cmcl.bundle.attested import report_tag
from edge_cmcl.bundle.trust import revoking
from edge_cmcl.durable import storage_errors, sync_folder
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.shared import shared_folder


@dataclass(frozen=True)
class Forgotten:
    """What was forgotten.

    Attributes:
        device_id: the device.
        revoked: fingerprints of its keys.
    """

    device_id: str
    revoked: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return vars(self).copy()


def forget(fleet: Fleet, device: str) -> Forgotten:
    """Revoke the keys of a device, then forget it; what of its making other devices use stays where a host promoted it.

    The keys come first: after a cut the device is still listed, and can be forgotten again.

    Args:
        fleet: the fleet.
        device: its id or the start of it.

    Raises:
        ModelError: there is no such device.
        StoreLockedError, StorageError: the fleet cannot be written.
    """
    with fleet.changing():
        known = fleet.named(device)
        keys = (known.fingerprint, *known.former)
        trust = fleet.ring.trust()
        for fingerprint in keys:
            trust = revoking(trust, fingerprint, timestamp())
        fleet.ring.save(trust)
        tag = report_tag(known.device_id)
        if tag in fleet.store.tags():
            fleet.store.move_tags({}, drop=[tag])
        path = fleet.device_file(known.device_id)
        with storage_errors(path):
            shutil.rmtree(shared_folder(fleet, known.device_id), ignore_errors=True)
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
    return Forgotten(known.device_id, keys)
