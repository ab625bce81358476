from __future__ import annotations

from pathlib import Path

import pytest
from machine_bundle import Machine

from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs
from edge_cmcl.device.learner import update
from edge_cmcl.device.memory import peak_memory_bytes
from edge_cmcl.errors import FormatError

STATUS = Path("/proc/self/status")


def test_a_damaged_state_is_noticed_before_anything_is_computed(machine: Machine, store: Store) -> None:
    for state in (store.root / "state.json", store.root / "copy-of-state.json"):
        state.write_bytes(state.read_bytes().replace(b'"highest_counter":0', b'"highest_counter":3'))
    told: list[str] = []
    with open_pairs(machine.new) as pairs, pytest.raises(FormatError, match="checksum"):
        update(store, pairs, "acoustic", progress=lambda stage, done, total: told.append(stage))
    assert told == []


@pytest.mark.parametrize("status", ["Name:\tpython\nVmRSS:\t100 kB\n", None])
def test_peak_memory_is_told_where_proc_does_not_have_it(monkeypatch: pytest.MonkeyPatch, status: str | None) -> None:
    read_text, known = Path.read_text, peak_memory_bytes()

    def restricted(self: Path, **how: str) -> str:
        if self != STATUS:
            return read_text(self, **how)
        if status is None:
            raise FileNotFoundError(self)
        return status

    monkeypatch.setattr(Path, "read_text", restricted)
    assert peak_memory_bytes() >= known > 0
