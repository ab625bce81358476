"""Devices of the simulated machine that learn apart from each other, each in a store of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from machine_bundle import Machine
from numpy.typing import NDArray

from edge_cmcl.bundle import Loaded, Store
from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.data.simulator import simulate
from edge_cmcl.device.learner import update
from edge_cmcl.device.model import Model
from edge_cmcl.device.store import CURRENT, install, open_store

SENSORS = ("acoustic", "temperature", "vibration", "current")
WINDOWS = 100

Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Fleet:
    """Stores of devices by name.

    Args:
        machine: whose bundle each device begins with.
        folder: where stores and recordings go.
    """

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self.stores: dict[str, Store] = {}

    def recording(self, seed: int, labels: Sequence[str] = (), acoustic: Change | None = None) -> Path:
        """Return a recording of one day, with its labels renamed, or the acoustic sensor changed, where asked."""
        path = self.folder / f"{seed}-{len(labels)}-{acoustic is not None}.safetensors"
        if not path.exists():
            made = simulate(WINDOWS, SENSORS, seed=seed)
            windows = {name: made.windows[name] for name in SENSORS}
            if acoustic is not None:
                windows["acoustic"] = acoustic(windows["acoustic"])
            names = labels or made.label_names
            write_pairs(path, windows, labels=made.labels, label_names=names, groups=made.groups)
        return path

    def device(self, name: str) -> Store:
        """Return the store of a device; a new one has the base alone."""
        if name not in self.stores:
            install(self.machine.bundle, self.folder / name, trust=self.machine.public_key)
            self.stores[name] = open_store(self.folder / name)
        return self.stores[name]

    def branch(self, name: str, new: str) -> Store:
        """Return a copy of a device's store, the device some time later."""
        shutil.copytree(self.stores[name].root, self.folder / new)
        self.stores[new] = open_store(self.folder / new)
        return self.stores[new]

    def teach(self, name: str, sensor: str, partners: Sequence[str], recording: Path) -> Loaded:
        """Let a device learn, whatever its guard says, and return what it has become."""
        store = self.device(name)
        with open_pairs(recording) as pairs:
            update(store, pairs, sensor, partners=list(partners), force=True)
        return store.load(CURRENT)

    def current(self, names: str) -> list[Loaded]:
        """Return what the devices `names` (one letter each) are now."""
        return [self.stores[name].load(CURRENT) for name in names]

    def model(self, name: str) -> Model:
        """Return what a device is now, ready to embed."""
        return Model(self.stores[name].load(CURRENT))
