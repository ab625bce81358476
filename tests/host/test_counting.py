from __future__ import annotations

from pathlib import Path

import pytest

from edge_cmcl.bundle.lock import locked
from edge_cmcl.errors import FormatError, StoreLockedError
from edge_cmcl.host.counting import counter_of


def test_each_run_of_a_project_is_newer_than_those_exported_before(tmp_path: Path) -> None:
    keys = tmp_path / "new" / "keys"
    assert [counter_of(keys, "machine", run) for run in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 2]
    assert counter_of(keys, "another", "d") == 1
    assert counter_of(keys, "machine", "d") == 4


def test_the_count_is_not_lost_silently(tmp_path: Path) -> None:
    counter_of(tmp_path, "machine", "a")
    path = tmp_path / "exports.json"
    path.write_bytes(path.read_bytes().replace(b'"a":1', b'"a":7'))
    with pytest.raises(FormatError, match="checksum") as caught:
        counter_of(tmp_path, "machine", "b")
    assert "--counter" in caught.value.hint


def test_two_exports_at_once_do_not_get_one_number(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StoreLockedError):
        counter_of(tmp_path, "machine", "a")
