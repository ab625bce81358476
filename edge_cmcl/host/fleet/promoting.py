"""What the host decides for its devices: each decision a signed document under the tag of those whom it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from edge_cmcl.bundle import Loaded, Store, timestamp
from edge_cmcl.bundle.attested import Promotion, attest, attested, promotion_tag
from edge_cmcl.bundle.envelope import Envelope
from edge_cmcl.bundle.keys import PrivateKey
from edge_cmcl.bundle.signature import read_signature, write_signature
from edge_cmcl.bundle.trust import Trust, trusting
from edge_cmcl.errors import IntegrityError, ModelError, RefusedError, UsageError
from edge_cmcl.host.fleet.decided import remember, settle
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.state import Device
from edge_cmcl.progress import Progress, silent
from edge_cmcl.sync.attached import blob_reader, push_attached
from edge_cmcl.sync.push import push
from edge_cmcl.sync.remote import Remote

Stage = Literal["trial", "release", "withdrawn"]
ALL = ""


@dataclass(frozen=True)
class Decided:
    """What was decided.

    Attributes:
        generation: digest of the generation.
        counter: its counter.
        stage: "trial", "release" or "withdrawn".
        devices: for whom, by id; "" for all.
        serial: of the last of these decisions.
        sent_bytes: of the blobs and manifests that the remote had not got.
    """

    generation: str
    counter: int
    stage: Stage
    devices: tuple[str, ...]
    serial: int
    sent_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return vars(self).copy()


def wave(devices: Sequence[str], digest: str, share: float) -> list[str]:
    """Return a share of `devices` for a generation: always the same ones, and a larger share holds a smaller one.

    Args:
        devices: their ids.
        digest: of the generation, so that it is not always the same devices that go first.
        share: between 0 and 1; at least one device.
    """
    ordered = sorted(devices, key=lambda device: hashlib.sha256(f"{digest}/{device}".encode()).digest())
    return sorted(ordered[: max(1, round(share * len(ordered)))])


def promote(
    fleet: Fleet,
    remote: Remote,
    ref: str,
    devices: Sequence[str],
    signers: Sequence[PrivateKey],
    rotations: Sequence[Envelope] = (),
    *,
    stage: Stage = "release",
    progress: Progress = silent,
) -> Decided:
    """Send a generation to the remote and tell devices to use it, to try it, or to go back from it.

    A generation that none of `signers` has signed is signed first. The remote has it whole before a decision names it,
    and the fleet remembers a decision's number before the remote gets it: a cut leaves a gap, never a number twice.

    Args:
        fleet: the fleet.
        remote: where the devices sync.
        ref: as `Fleet.generation`.
        devices: ids, or (ALL,) for every device.
        signers: the host's keys, at least one.
        rotations: how they came after others.
        stage: what they are to do.
        progress: told of bytes.

    Raises:
        ModelError: there is no such generation or device.
        UsageError: it is for nobody.
        RemoteError: the remote is away.
        StoreLockedError, StorageError: the fleet cannot be written.
    """
    if not devices:
        raise UsageError("a decision needs somebody whom it is for", expected="devices, a share or all", got="nobody")
    with fleet.changing():
        fleet.trust(each.public for each in signers)
        settle(fleet, remote)
        loaded = fleet.generation(ref)
        records = fleet.devices()
        unknown = [each for each in devices if each != ALL and each not in records]
        if unknown:
            raise ModelError(f"there is no device {unknown[0]}", expected=", ".join(records) or "one", got=unknown[0])
        _sign(fleet, loaded, signers, rotations)
        sent = push(fleet.store, [loaded], remote, {}, progress).size
        serial = _highest(fleet, records, remote, devices, signers)
        for device in devices:
            serial += 1
            decision = _decision(fleet, loaded, device, stage, serial)
            sent += _tell(remote, loaded, decision, signers, rotations)
            remember(fleet, decision)
    return Decided(loaded.digest, loaded.generation.counter, stage, tuple(devices), decision.serial, sent)


def _sign(fleet: Fleet, loaded: Loaded, signers: Sequence[PrivateKey], rotations: Sequence[Envelope]) -> None:
    """Sign a generation, beside whoever has signed it before: a device's own signature stays."""
    signature = read_signature(loaded)
    if signature is None or not {each.public.fingerprint for each in signers} & signature.keys.keys():
        fleet.store.move_tags(write_signature(fleet.store, loaded, signers, rotations, beside=signature))


def _highest(
    fleet: Fleet, records: Mapping[str, Device], remote: Remote, devices: Sequence[str], own: Sequence[PrivateKey]
) -> int:
    """Return the highest number of a decision that anybody knows: a fleet that was lost must not begin with 1 again."""
    known = [fleet.state().serial, *(device.report.serial for device in records.values())]
    keys = Trust()
    for each in own:
        keys = trusting(keys, each.public, timestamp())
    for device in {*devices, ALL}:
        entry = remote.head(promotion_tag(device))
        if entry is not None:
            with suppress(IntegrityError, RefusedError):  # another key's: devices do not believe it either
                decision, _ = attested(Promotion, blob_reader(remote), entry, keys, timestamp(), "a decision")
                known.append(decision.serial)
    return max(known)


def _decision(fleet: Fleet, loaded: Loaded, device: str, stage: Stage, serial: int) -> Promotion:
    """Return a decision, whose number nothing else will have, and which `settle` finds where it is told to the end."""
    decision = Promotion(
        serial=serial,
        name=loaded.generation.name,
        device_id=device,
        stage=stage,
        manifest=loaded.digest,
        counter=loaded.generation.counter,
        created=timestamp(),
    )
    fleet.save(fleet.state().model_copy(update={"serial": serial, "last": decision}))
    return decision


def _tell(
    remote: Remote, loaded: Loaded, decision: Promotion, signers: Sequence[PrivateKey], rotations: Sequence[Envelope]
) -> int:
    with TemporaryDirectory(prefix="edge-cmcl-decides-") as folder:
        scratch = Store.create(Path(folder) / "layout")
        with scratch.writer():
            entry = attest(scratch, loaded.descriptor, decision, signers, rotations)
        return push_attached(scratch, entry, remote, promotion_tag(decision.device_id))
