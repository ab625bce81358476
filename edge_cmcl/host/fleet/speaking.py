"""Whose key speaks for what came from a device: its reports, and the generations that it has in use (DESIGN.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edge_cmcl.bundle import timestamp
from edge_cmcl.bundle.keys import PublicKey, short
from edge_cmcl.bundle.signature import Signature
from edge_cmcl.bundle.trust import KeyRecord, Trust, following, trusting
from edge_cmcl.errors import UntrustedKeyError
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.state import Device


def own_keys(fleet: Fleet, known: Device) -> Trust:
    """Return the key that speaks for a device, and those that it had before, retired: what they signed was its own."""
    return Trust(keys=tuple(_own(fleet.ring.trust(), known)))


def _own(trust: Trust, known: Device) -> Iterable[KeyRecord]:
    for each in trust.keys:
        if each.fingerprint == known.fingerprint:
            yield each
        elif each.fingerprint in known.former:
            yield _retired(each)


def _retired(record: KeyRecord) -> KeyRecord:
    return record if record.standing == "revoked" else record.model_copy(update={"standing": "retired"})


def speaking(
    fleet: Fleet, name: str, known: Device | None, signed: Signature, signers: Sequence[str], wanted: set[str]
) -> Trust | None:
    """Return the keys that speak for a device: the one it was first seen with, or what took that one's place.

    That is a key that the one before endorsed, or, for a device that lost its key, one that the user names. One
    device's key must not speak for another device, however trusted it is. None for a device whose key is unknown.

    Args:
        fleet: the fleet; its lock is held.
        name: the device's id.
        known: what is known of it, None for nothing.
        signed: the signature of its report.
        signers: by whom that is, verified.
        wanted: fingerprints of keys that the user trusts from now on.

    Raises:
        RevokedKeyError: the user names one that was revoked here.
        UntrustedKeyError: another device's key has signed, or another one than before.
        FormatError, SignatureError: a key that came along is damaged.
    """
    came = {signer: key for signer, key in signed.keys.items() if signer in signers}
    trust = _wanted(fleet, came, wanted)
    good = [each for each in trust.keys if each.fingerprint in signers and each.standing == "trusted"]
    _check_nobody_elses(fleet, name, good, signers)
    if known is None:
        return Trust(keys=tuple(good)) if good else None
    own = own_keys(fleet, known)
    followed = following(own, signed.rotations, timestamp())
    if any(followed.standing(signer) == "trusted" for signer in signers):
        if any(trust.find(record.fingerprint) is None for record in followed.keys):
            fleet.ring.save(following(trust, signed.rotations, timestamp()))
        return followed
    named = [each for each in good if each.fingerprint in wanted]
    if not named:
        raise _another_key(name, known, trust, signers)
    retired = [_retired(each) for each in own.keys if each.fingerprint not in signers]
    return Trust(keys=(*retired, *named))


def makers(
    fleet: Fleet, maker: str, device: str, trusted: Trust, came: Mapping[str, PublicKey], wanted: set[str]
) -> Trust:
    """Return the keys that may speak for what `maker`, "" for a host, has made and `device` has in use.

    A host's key may speak for anything: it signs what it promotes, so what a device made counts after that device is
    gone and its key revoked.

    Args:
        fleet: the fleet; its lock is held.
        maker: id of the device that made it.
        device: id of the device that has it in use.
        trusted: the keys that speak for that one.
        came: the keys that came with the signature.
        wanted: fingerprints of keys that the user trusts from now on.

    Raises:
        RevokedKeyError: the user names one that was revoked here.
    """
    known = fleet.device(maker) if maker and maker != device else None
    theirs = _devices_keys(fleet) | {each.fingerprint for each in trusted.keys}
    keys = _wanted(fleet, {name: key for name, key in came.items() if name not in theirs}, wanted)
    own = trusted if maker == device else own_keys(fleet, known) if known else Trust()
    return Trust(keys=(*own.keys, *(each for each in keys.keys if each.fingerprint not in theirs)))


def nobody_speaks(fleet: Fleet, name: str, signers: Sequence[str]) -> UntrustedKeyError:
    """Return why a generation is not taken that `signers` have signed."""
    hint = "trust the key of whoever exported it: `edge-cmcl fleet pull --trust FINGERPRINT`"
    if any(fleet.ring.trust().standing(each) == "revoked" for each in signers):
        hint = "its key was revoked here: what the device learns next, by another key, is taken"
    elif signers:
        hint = f"if that is the key of whoever exported it: `edge-cmcl fleet pull --trust {signers[0]}`"
    return UntrustedKeyError(
        f"{name} is signed by nobody who may speak for it",
        expected="whoever made it: the device, or a host whose key is trusted here",
        got=", ".join(map(short, signers)) or "keys that did not come with it",
        hint=hint,
    )


def _devices_keys(fleet: Fleet) -> set[str]:
    return {key for device in fleet.devices().values() for key in (device.fingerprint, *device.former)}


def _check_nobody_elses(fleet: Fleet, name: str, good: Iterable[KeyRecord], signers: Sequence[str]) -> None:
    others = [device for device in fleet.devices().values() if device.device_id != name]
    taken = {key for device in others for key in (device.fingerprint, *device.former)}
    if any(each.fingerprint in taken for each in good):
        raise UntrustedKeyError(
            f"the report of {name} is signed by another device's key",
            expected="a key of its own",
            got=", ".join(map(short, signers)),
            hint="a device that was set up anew has a new key, too: look at the remote",
        )


def _another_key(name: str, known: Device, trust: Trust, signers: Sequence[str]) -> UntrustedKeyError:
    what = f"the report of {name} is signed by another key than before"
    if trust.standing(known.fingerprint) == "revoked":
        what = f"the key of {name} was revoked here"
    new = next((each for each in signers if trust.standing(each) == "unknown"), "FINGERPRINT")
    return UntrustedKeyError(
        what,
        expected=f"{short(known.fingerprint)}, or one that takes its place",
        got=", ".join(map(short, signers)) or "none that came with it",
        hint=f"if it lost its key, and `keys list` there shows the new one: `edge-cmcl fleet pull --trust {new}`",
    )


def _wanted(fleet: Fleet, keys: Mapping[str, PublicKey], wanted: set[str]) -> Trust:
    """Return the keys that are trusted, after those of `keys` were added that the user names."""
    trust = before = fleet.ring.trust()
    for fingerprint in keys.keys() & wanted:
        trust = trusting(trust, keys[fingerprint], timestamp())
    if trust != before:
        fleet.ring.save(trust)
    return trust
