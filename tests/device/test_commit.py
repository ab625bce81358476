from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.payloads import Golden
from edge_cmcl.data import open_pairs
from edge_cmcl.device import next_generation
from edge_cmcl.device.learner import update
from edge_cmcl.device.store import CURRENT
from edge_cmcl.errors import RefusedError


def files(store: Store) -> set[Path]:
    return {path for path in store.root.rglob("*") if path.is_file()}


def test_an_update_that_fails_its_self_test_is_refused_without_a_trace(
    machine: Machine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden vectors that are off stand for a device that does not compute the same twice."""
    make, before, current = next_generation.make_golden, files(store), store.tags()[CURRENT]

    def off(*arguments: object) -> Golden:
        golden = make(*arguments)  # type: ignore[arg-type]
        return Golden(golden.inputs, {"embeddings": np.roll(golden.outputs["embeddings"], 1, axis=1)})

    monkeypatch.setattr(next_generation, "make_golden", off)
    with open_pairs(machine.new) as pairs, pytest.raises(RefusedError, match="fails its self-test") as caught:
        update(store, pairs, "acoustic", partners=["vibration"])
    assert caught.value.exit_code == 5
    assert (files(store), store.tags()[CURRENT]) == (before, current)
    assert store.state().trial is None
