"""The host of a device that is crashed: it pulls what the device sent, and promotes a child of what that has in use."""

from __future__ import annotations

from pathlib import Path

from edge_cmcl.bundle.keys import read_private_key
from edge_cmcl.bundle.signature import write_signature
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.promoting import promote
from edge_cmcl.host.fleet.pulling import pull
from edge_cmcl.sync.connect import connect


class Host:
    """A host of one device, in `folder`, and the folder through which the two sync; it signs with the key `private`.

    Attributes:
        remote: address of that folder.
    """

    def __init__(self, folder: Path, private: Path) -> None:
        self._remote, self._fleet, self._key = folder / "remote", folder / "fleet", read_private_key(private)
        self._remote.mkdir(parents=True, exist_ok=True)
        self.remote = f"file://{self._remote}"

    def offer(self, own: str) -> str:
        """Pull from the device whose key has the fingerprint `own`, release a child of what it has in use.

        Its counter is above all that was offered before, also where the device has gone back since.

        Raises:
            AssertionError: what the device sent was not taken.
        """
        fleet = Fleet.create(self._fleet)
        with connect(self.remote) as remote:
            pulled = pull(fleet, remote, self._key.public, [own])
            assert pulled.problems == {}
            assert pulled.strangers == {}
            device = next(each for each in fleet.devices().values() if each.fingerprint == own)
            current = fleet.store.load(device.report.manifest)
            offered = device.decision.counter if device.decision else 0
            child = current.generation.model_copy(
                update={
                    "counter": max(current.generation.counter, offered) + 1,
                    "parents": (current.digest,),
                    "base": current.base,
                    "device_id": "",
                    "action": "merge",
                }
            )
            with fleet.changing():
                digest = fleet.store.commit(
                    child, ["offer"], lambda loaded: write_signature(fleet.store, loaded, [self._key])
                )
            promote(fleet, remote, digest, [device.device_id], [self._key])
        return digest
