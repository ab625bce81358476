"""The folder of a fleet: a store of the devices' generations, the keys that are trusted, and `fleet.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_cmcl.bundle import Loaded, Store, timestamp
from edge_cmcl.bundle.attested import Promotion
from edge_cmcl.bundle.documents import sealed, unsealed
from edge_cmcl.bundle.keyring import KeyRing
from edge_cmcl.bundle.keys import PublicKey
from edge_cmcl.bundle.limits import MAX_DOCUMENT_BYTES
from edge_cmcl.bundle.lock import WAIT_S
from edge_cmcl.bundle.reading import read_file
from edge_cmcl.bundle.store_files import KEYS_FOLDER
from edge_cmcl.bundle.trust import trusting
from edge_cmcl.bundle.twofold import copy_of, read_either, write_twice
from edge_cmcl.durable import make_folder, write_bytes
from edge_cmcl.errors import ModelError
from edge_cmcl.host.fleet.state import Device, FleetState

STATE_FILE = "fleet.json"


class Fleet:
    """What a host keeps of its devices, in one folder.

    Args:
        root: the folder.

    Raises:
        ModelError: there is no fleet.
        FormatError: it is damaged.
    """

    def __init__(self, root: Path) -> None:
        if not (root / "oci-layout").is_file():
            raise ModelError(
                f"there is no fleet in {root}",
                expected="a folder made by `edge-cmcl fleet pull REMOTE`",
                got="no such folder" if not root.exists() else "something else",
                hint="pull from the remote that the devices sync with, or name another folder with --fleet",
            )
        self.root = root
        self.store = Store(root)
        self.ring = KeyRing(root / KEYS_FOLDER)

    @classmethod
    def create(cls, root: Path) -> Fleet:
        """Open the fleet at `root`, made where there is none.

        Raises:
            ModelError: something else is there.
            StorageError: the file system refused.
        """
        Store.create(root)
        return cls(root)

    def state(self) -> FleetState:
        """Read what is known.

        Raises:
            FormatError: `fleet.json` and its copy are damaged.
        """
        path = self.root / STATE_FILE
        if not path.exists() and not copy_of(path).exists():
            return FleetState()
        return read_either(path, _state_from_json)

    @contextmanager
    def changing(self, wait_s: float = WAIT_S) -> Iterator[None]:
        """Hold the fleet for a change: one at a time.

        Args:
            wait_s: seconds to wait for another process.

        Raises:
            StoreLockedError: another process changes it.
        """
        with self.store.writer(wait_s):
            yield

    def save(self, state: FleetState) -> None:
        """Replace what concerns all devices; within `changing`.

        Raises:
            FormatError: it is too large to be read again; nothing was written.
            StorageError: the file system refused.
        """
        data = sealed(state)
        _state_from_json(data, "the new state of the fleet")
        write_twice(self.root / STATE_FILE, data)

    def trust(self, keys: Iterable[PublicKey]) -> None:
        """Trust keys from now on: with which this host signs; within `changing`.

        Raises:
            RevokedKeyError: one was revoked here.
            StorageError: the file system refused.
        """
        trust = before = self.ring.trust()
        for key in keys:
            trust = trusting(trust, key, timestamp())
        if trust != before:
            self.ring.save(trust)

    def devices(self) -> dict[str, Device]:
        """Return every device by its id.

        Raises:
            FormatError: what is known of one is damaged.
        """
        return {device.device_id: device for device in map(_device, sorted(self._folder.glob("*.json")))}

    def device(self, device_id: str) -> Device | None:
        """Return one device by its whole id, None where it was never seen.

        Raises:
            FormatError: what is known of it is damaged.
        """
        path = self.device_file(device_id)
        return _device(path) if path.exists() else None

    def save_device(self, device: Device) -> None:
        """Replace what is known of one device; within `changing`.

        Raises:
            FormatError: it is too large to be read again; nothing was written.
            StorageError: the file system refused.
        """
        data = sealed(device)
        unsealed(Device, data, f"what is known of {device.device_id}", "")
        make_folder(self._folder)
        write_bytes(self.device_file(device.device_id), data)

    def device_file(self, device_id: str) -> Path:
        """Return the file of what is known of a device."""
        return self._folder / f"{device_id}.json"

    def named(self, start: str) -> Device:
        """Return the device whose id begins with `start`.

        Raises:
            ModelError: there is none, or there are several.
        """
        devices = self.devices()
        found = [start] if start in devices else [each for each in devices if each.startswith(start)]
        if len(found) != 1:
            raise ModelError(
                f"{'several devices begin' if found else 'no device begins'} with {start[:64]!r}",
                expected="the id of one device, or its first digits",
                got=", ".join(found[:5]) or f"devices: {', '.join(list(devices)[:10]) or 'none'}",
                hint="`edge-cmcl fleet list` shows them",
            )
        return devices[found[0]]

    def generation(self, ref: str) -> Loaded:
        """Return the generation `ref`: a tag, a digest or its start, or a device for what it has in use.

        Raises:
            ModelError: there is none, or `ref` may be several things: a device chooses its id, and must not be able to
                pass for a generation.
            DigestError, FormatError: it is damaged.
        """
        devices = {name: device for name, device in self.devices().items() if ref and name.startswith(ref)}
        try:
            loaded = self.store.load(ref)
        except ModelError:
            if len(devices) != 1:
                raise
            (device,) = devices.values()
            return self.store.load(device.report.manifest)
        if devices and ref != loaded.digest:
            raise ModelError(
                f"{ref[:64]!r} may be a generation or a device",
                expected="a whole digest, a tag, or more of the id of a device",
                got=f"generation {loaded.digest[7:19]}, and device {', '.join(devices)}",
                hint="`edge-cmcl fleet list` shows both",
            )
        return loaded

    @property
    def _folder(self) -> Path:
        return self.root / "devices"


def latest_decision(device: Device, for_all: Promotion | None) -> Promotion | None:
    """Return the decision that a device follows: the later one of its own and that for all."""
    found = [each for each in (device.decision, for_all) if each is not None]
    return max(found, key=lambda each: each.serial, default=None)


def _state_from_json(data: bytes, name: str) -> FleetState:
    return unsealed(FleetState, data, name, "restore it from a backup; what devices sent is on the remote")


def _device(path: Path) -> Device:
    hint = f"remove {path.name} and pull again: what the device sent is on the remote"
    return unsealed(Device, read_file(path, MAX_DOCUMENT_BYTES), str(path), hint)
