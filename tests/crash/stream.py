"""A stream of what happens to a device over months, in seconds: updates, real and quick ones, confirm, rollback, gc.

With a host it syncs, too: after each sync the host offers something, and the next one takes it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from host import Host

from edge_cmcl.bundle import Loaded, Store, timestamp
from edge_cmcl.bundle.collect import Collected
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.payloads import Golden, golden_from_bytes, golden_to_bytes
from edge_cmcl.bundle.store_files import SYNC_FOLDER
from edge_cmcl.bundle.tags import generation_tag
from edge_cmcl.data import open_pairs
from edge_cmcl.device.generations import collect_garbage, rollback
from edge_cmcl.device.learner import update
from edge_cmcl.device.signing import keyring, signed
from edge_cmcl.device.starting import confirm
from edge_cmcl.device.store import CURRENT, generations
from edge_cmcl.device.syncing import sync
from edge_cmcl.device.trial import begun, noted, trial_of
from edge_cmcl.errors import ModelError
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.settings import LinkSettings

Known = dict[str, Any]


@dataclass(frozen=True)
class Stream:
    """The operations of one process on a store.

    Attributes:
        store: the device store, installed.
        data: pairs that real updates learn from.
        rng: chooses what comes next.
        gc: share of operations that collect garbage.
        real: share of operations that are real updates.
        host: with whom it syncs, None for nobody.
        sync: share of operations that are syncs, if there is a host; another one follows each.
    """

    store: Store
    data: Path
    rng: random.Random
    gc: float = 0.12
    real: float = 0.05
    host: Host | None = None
    sync: float = 0.15
    _then: list[str] = field(default_factory=list)

    def next(self) -> tuple[str, Callable[[], object]]:
        """Return the name of what comes next, and what does it; the host's part of it is done at once."""
        weights = {"real": self.real, "quick": 0.6, "confirm": 0.12, "rollback": 0.15, "gc": self.gc}
        if self.host is not None:
            rest = sum(weights.values())
            weights["sync"] = rest * self.sync / (1.0 - self.sync)
        name = self._then.pop() if self._then else self.rng.choices(list(weights), list(weights.values()))[0]
        if name == "sync":
            self._then.append("take")
        if name == "take":
            self._offer()
            return name, self._sync
        return name, getattr(self, f"_{name}")

    def _real(self) -> None:
        with open_pairs(self.data) as pairs:
            update(self.store, pairs, "acoustic", threads=1, budget_s=0.0, force=True, max_drift=1e6, seed=self._seed())

    def _quick(self) -> None:
        quick_update(self.store, self._seed())

    def _confirm(self) -> None:
        confirm(self.store)

    def _rollback(self) -> None:
        try:
            rollback(self.store)
        except ModelError:  # nothing to go back to
            quick_update(self.store, self._seed())

    def _gc(self) -> Collected:
        return collect_garbage(self.store, keep=self.rng.randint(1, 3))

    def _sync(self) -> None:
        assert self.host is not None
        work = self.store.root / SYNC_FOLDER
        with connect(self.host.remote, LinkSettings(work=work)) as remote:
            sync(self.store, remote)

    def _offer(self) -> None:
        own = keyring(self.store).trust().own
        assert self.host is not None
        assert own is not None
        self.host.offer(own)

    def _seed(self) -> int:
        return self.rng.randrange(2**31)


def quick_update(store: Store, seed: int) -> str:
    """Commit what an update commits, without its computing: a new blob, a generation, its trial; return its digest.

    The blob holds golden vectors chosen from those there are, so that the generation passes its self-test.
    """
    rng = np.random.default_rng(seed)
    with store.writer():
        current = store.load(CURRENT)
        old = current.generation
        name = next(name for name, record in sorted(old.modalities.items()) if record.golden_blob)
        golden = golden_from_bytes(current.read(str(old.modalities[name].golden_blob)))
        rows = rng.integers(0, len(golden.inputs["windows"]), rng.integers(4, 12))
        chosen = [{key: value[rows] for key, value in part.items()} for part in (golden.inputs, golden.outputs)]
        blob = store.put(golden_to_bytes(Golden(*chosen)))
        generation = old.model_copy(
            update={
                "counter": old.counter + 1,
                "parents": (current.digest,),
                "base": current.base,
                "device_id": store.state().device_id,
                "created": timestamp(),
                "action": "update",
                "modalities": {**old.modalities, name: old.modalities[name].model_copy(update={"golden_blob": blob})},
                "metrics": {"quick": seed},
            }
        )

        def accept(new: Loaded) -> dict[str, Descriptor]:
            signature = signed(store, new)
            state = noted(store.state(), old.counter)
            store.save_state(begun(state, current.digest, new.digest, generation.created))
            return signature

        return store.commit(generation, [CURRENT, f"{generation_tag(generation)}-{seed}"], accept)


def known(store: Store) -> Known:
    """Return what an acknowledgement promises: the generation in use, its trial, and every generation.

    And what of the host's decisions: "decided" is the one that was followed last, "serial" the highest that was seen.
    """
    tags, state = store.tags(), store.state()
    trial = trial_of(state, tags[CURRENT])
    return {
        "current": tags[CURRENT],
        "trial": trial and trial.previous,
        "generations": sorted(loaded.digest for loaded in generations(store)),
        "decided": state.sync.decided,
        "serial": state.sync.serial,
    }
