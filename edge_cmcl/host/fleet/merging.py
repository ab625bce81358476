"""Merging what the devices of a fleet have in use, signed by the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_cmcl.bundle import Loaded
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.envelope import Envelope
from edge_cmcl.bundle.keys import PrivateKey
from edge_cmcl.bundle.signature import write_signature
from edge_cmcl.host.fleet.collecting import CANDIDATE
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.merge import Merged, merge
from edge_cmcl.limits import MAX_DRIFT


def merge_devices(
    fleet: Fleet,
    refs: Sequence[str],
    signers: Sequence[PrivateKey],
    rotations: Sequence[Envelope] = (),
    *,
    max_drift: float = MAX_DRIFT,
    force: bool = False,
) -> Merged:
    """Merge generations into one that the host signs (see `merge`).

    Args:
        fleet: the fleet.
        refs: as `Fleet.generation`; none for what every device has in use.
        signers: the host's keys, at least one.
        rotations: how they came after others.
        max_drift, force: as `merge`.

    Raises:
        ModelError: there is no such generation.
        UsageError, WrongBaseError, RefusedError, DigestError, FormatError, StorageError: as `merge`.
    """
    with fleet.changing():
        fleet.trust(each.public for each in signers)
        chosen = [fleet.generation(ref) for ref in refs] or _in_use(fleet)

        def signed(new: Loaded) -> Mapping[str, Descriptor]:
            tag = f"{CANDIDATE}{new.generation.counter}-{new.digest[7:15]}"
            return {**write_signature(fleet.store, new, signers, rotations), tag: new.descriptor}

        return merge(fleet.store, chosen, max_drift=max_drift, force=force, accept=signed)


def _in_use(fleet: Fleet) -> list[Loaded]:
    """Return each generation that a device has in use once, without those that another one continues."""
    digests = sorted({device.report.manifest for device in fleet.devices().values()})
    found = [fleet.store.load_manifest(digest) for digest in digests]
    older = {
        loaded.digest
        for each in found
        for loaded in fleet.store.lineage([parent for parent in each.generation.parents if fleet.store.has(parent)])
    } | {parent for each in found for parent in each.generation.parents}
    return [each for each in found if each.digest not in older]
