"""What the host decided last for a device, as the remote has it: verified, and none older than was seen (SYNC.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_cmcl.bundle import Store, timestamp
from edge_cmcl.bundle.attested import Promotion, attested, promotion_tag
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.device.intact import intact
from edge_cmcl.device.reporting import answering
from edge_cmcl.device.signing import keyring
from edge_cmcl.device.store import CURRENT
from edge_cmcl.errors import EdgeCmclError, IntegrityError, OlderError, RefusedError, SignatureError
from edge_cmcl.sync.attached import blob_reader
from edge_cmcl.sync.remote import Remote


@dataclass(frozen=True)
class Latest:
    """The decision that a device has to follow.

    Attributes:
        decision: what was decided.
        entry: its manifest.
        serial: the highest number seen: that of a withdrawal which does not concern this device may be higher.
    """

    decision: Promotion
    entry: Descriptor
    serial: int


def latest(store: Store, remote: Remote) -> Latest | None:
    """Return the latest decision that this device has to follow, None where there is none.

    Of the decision for it alone and that for all the later one counts, but a withdrawal only of what is in use, and
    what was withdrawn later not at all: the device would take it again, and go back again, at every other sync. One
    that cannot be believed, as one that a key has signed which was replaced since, does not hide a good one.

    Raises:
        SignatureError, UntrustedKeyError, RevokedKeyError, DigestError, FormatError: there is none to be believed.
        OlderError: the latest is older than one that was seen.
        RemoteError: the other side is away.
    """
    found, errors = list[tuple[Promotion, Descriptor]](), list[EdgeCmclError]()
    for device in (store.state().device_id, ""):
        try:
            found += _decision(store, remote, device)
        except (IntegrityError, RefusedError) as error:
            errors.append(error)
    if not found:
        if errors:
            raise errors[0]
        return None
    serial, seen = max(each[0].serial for each in found), store.state().sync.serial
    if serial < seen:
        raise OlderError(
            "the remote offers an older decision than it did before",
            expected=f"decision {seen} or a later one",
            got=f"decision {serial}",
            hint="the remote was put back to an older state: promote again from the host",
        )
    decisions, before = [decision for decision, _ in found], leading(store)
    meant = [each for each in found if _is_meant(each[0], decisions, before)]
    return Latest(*max(meant or found, key=lambda each: each[0].serial), serial)


def _is_meant(decision: Promotion, decisions: Sequence[Promotion], before: set[str]) -> bool:
    """Whether a decision says anything to a device whose generations in use and before are `before`."""
    if decision.stage == "withdrawn":
        return decision.manifest in before
    later = [each for each in decisions if each.serial > decision.serial and each.manifest == decision.manifest]
    return all(each.stage != "withdrawn" for each in later)


def was_followed(store: Store, found: Latest) -> bool:
    """Whether a decision is no news; what it names comes again where it is in use and damaged here."""
    current = store.tags()[CURRENT]
    damaged = found.decision.manifest == current and not sound(store, current)
    return store.state().sync.decided == found.entry.digest and not damaged


def leading(store: Store) -> set[str]:
    """Return the generation in use and those before it, by digest."""
    current = store.tags()[CURRENT]
    return {current, *(loaded.digest for loaded in store.lineage([current]))}


def sound(store: Store, digest: str) -> bool:
    """Whether a generation here is as it was written: one that is not may come again."""
    return next(intact(store, [digest]), None) is not None


def _decision(store: Store, remote: Remote, device: str) -> list[tuple[Promotion, Descriptor]]:
    """Return the decision for a device, "" for all, if there is one."""
    tag, name = promotion_tag(device), answering(store).generation.name
    entry = remote.head(tag)
    if entry is None:
        return []
    trust = keyring(store).trust()
    promotion, _ = attested(Promotion, blob_reader(remote), entry, trust, timestamp(), f"the decision {tag}")
    if (promotion.device_id, promotion.name) != (device, name):
        raise SignatureError(
            f"the decision {tag} is for something else",
            expected=f"one for {device or 'all devices'} of {name}",
            got=f"one for {promotion.device_id or 'all devices'} of {promotion.name}",
            hint="somebody moved the tag: look at the remote",
        )
    return [(promotion, entry)]
