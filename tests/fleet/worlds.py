"""A small fleet for tests: two devices, a host, and the folder through which they sync."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.keys import PrivateKey
from edge_cmcl.data import open_pairs
from edge_cmcl.device.learner import update
from edge_cmcl.device.store import open_store
from edge_cmcl.device.syncing import SyncReport, sync
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.merging import merge_devices
from edge_cmcl.host.fleet.promoting import ALL, Stage, promote
from edge_cmcl.host.fleet.pulling import Pulled, pull
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.remote import Remote

LESSONS = {"a": ("acoustic", ["vibration"]), "b": ("vibration", ["text"])}
"""What each device learns: a new sensor, and labels."""


@dataclass(frozen=True)
class World:
    """Two devices, a host and the folder through which they sync.

    Attributes:
        folder: holds all of it.
        host: the key that has signed the bundle, and signs what the host decides.
    """

    folder: Path
    host: PrivateKey

    def device(self, name: str) -> Store:
        return open_store(self.folder / name)

    @property
    def devices(self) -> list[Store]:
        return [self.device(name) for name in LESSONS]

    @property
    def fleet(self) -> Fleet:
        return Fleet.create(self.folder / "fleet")

    def remote(self) -> Remote:
        return connect(f"file://{self.folder / 'remote'}")

    def sync(self, name: str) -> SyncReport:
        with self.remote() as remote:
            return sync(self.device(name), remote)

    def pull(self, *, trust: bool = True) -> Pulled:
        keys = {fingerprint_of(store) for store in self.devices} if trust else set()
        with self.remote() as remote:
            return pull(self.fleet, remote, self.host.public, keys)

    def promote(self, ref: str, *devices: str, stage: Stage = "release", signer: PrivateKey | None = None) -> int:
        with self.remote() as remote:
            done = promote(self.fleet, remote, ref, devices or (ALL,), [signer or self.host], stage=stage)
        return done.serial

    def merge(self) -> str:
        return merge_devices(self.fleet, (), [self.host]).digest


def fingerprint_of(store: Store) -> str:
    """Return the fingerprint of a device's own key, as `keys list` shows it."""
    own = json.loads((store.root / "keys" / "trust.json").read_bytes())["own"]
    assert isinstance(own, str)
    return own


def teach(store: Store, data: Path, modality: str, partners: list[str]) -> None:
    with open_pairs(data) as pairs:
        update(store, pairs, modality, partners=partners, hold_back=0.1, threads=1)
