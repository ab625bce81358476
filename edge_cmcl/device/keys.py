"""What a user does with the keys of a device: trust, revoke, rotate, list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_cmcl.bundle import Store, timestamp
from edge_cmcl.bundle.keyring import KeyRing
from edge_cmcl.bundle.keys import PublicKey, read_public_key
from edge_cmcl.bundle.trust import Trust, revoking, trusting
from edge_cmcl.device.signing import FINGERPRINT, keyring
from edge_cmcl.errors import UsageError

_LEAST_DIGITS = 8


def trust(path: Path, key: PublicKey, *, restore: bool = False) -> None:
    """Trust a key on the device whose store is at `path`; one on which nothing is installed yet gets a store.

    Args:
        path: the store.
        key: the key.
        restore: trust it although it was revoked here.

    Raises:
        RevokedKeyError: it was, and `restore` is not set.
        FormatError: the keys of the device are damaged.
        StoreLockedError, StorageError: the store cannot be written.
    """
    store = Store.create(path)
    with store.writer():
        ring = keyring(store)
        ring.save(trusting(ring.trust(), key, timestamp(), restore=restore))


def revoke(store: Store, name: str) -> str:
    """Revoke a key on a device, known to it or not; return its fingerprint.

    Args:
        store: the device store.
        name: a key file, a fingerprint, or the first eight or more digits of a known one.

    Raises:
        UsageError: `name` is none of them, or the device's own current key.
        FormatError: the keys of the device are damaged.
        StoreLockedError, StorageError: the store cannot be written.
    """
    with store.writer():
        ring = keyring(store)
        known = ring.trust()
        fingerprint = _named(known, name)
        ring.save(revoking(known, fingerprint, timestamp()))
    return fingerprint


def rotate(store: Store) -> tuple[Trust, bool]:
    """Replace the key with which a device signs; return its keys, and whether the old one endorsed the new one.

    The next sync reports, though there be no other news: the host gets to know the new key by that.

    Raises:
        FormatError: the keys of the device are damaged.
        StoreLockedError, StorageError: the store cannot be written.
    """
    with store.writer():
        state = store.state()
        if state.sync.report is not None:
            known = state.sync.model_copy(update={"reported": None, "report": None})
            store.save_state(state.model_copy(update={"sync": known}))
        return keyring(store).rotate()


def listed(ring: KeyRing) -> list[dict[str, Any]]:
    """Return the keys that a place knows, in JSON types; nothing of them is secret.

    Raises:
        FormatError: they are damaged.
    """
    trust = ring.trust()
    return [
        {
            "fingerprint": record.fingerprint,
            "role": record.role,
            "standing": record.standing,
            "since": record.since,
            "signs": record.fingerprint == trust.own,
        }
        for record in trust.keys
    ]


def _named(trust: Trust, name: str) -> str:
    if FINGERPRINT.fullmatch(name.lower()):
        return name.lower()
    if Path(name).is_file():
        return read_public_key(Path(name)).fingerprint
    digits = len(name) >= _LEAST_DIGITS
    found = [each.fingerprint for each in trust.keys if digits and each.fingerprint.startswith(name.lower())]
    if len(found) != 1:
        raise UsageError(
            f"{name[:80]!r} names {'several keys' if found else 'no key'}",
            expected=f"a key file, 64 hexadecimal digits, or at least {_LEAST_DIGITS} of a key that is known here",
            got=", ".join(each[:16] for each in found) or "nothing that is known here",
            hint="`edge-cmcl keys list` shows what is",
        )
    return found[0]
