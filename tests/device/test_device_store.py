from __future__ import annotations

from pathlib import Path

import pytest

from edge_cmcl.bundle import Store
from edge_cmcl.device.store import CURRENT, log, open_store, rollback, store_bytes
from edge_cmcl.errors import DigestError, ModelError


def test_a_store_in_which_nothing_is_installed_is_told_how_to_install(tmp_path: Path) -> None:
    Store.create(tmp_path / "empty")
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(ModelError, match="nothing is installed in"):
            open_store(path)
    assert not (tmp_path / "nowhere").exists()


def test_rollback_returns_to_the_parent_and_deletes_nothing(taught_copy: Store) -> None:
    learned = taught_copy.load(CURRENT)
    size = store_bytes(taught_copy)
    loaded = rollback(taught_copy)
    assert (loaded.generation.counter, loaded.digest) == (1, learned.generation.parents[0])
    assert taught_copy.tags()[CURRENT] == loaded.digest
    assert store_bytes(taught_copy) == size
    assert taught_copy.state().highest_counter == 2
    with pytest.raises(ModelError, match="nothing to roll back to"):
        rollback(taught_copy)


def test_rollback_goes_to_a_named_generation_in_either_direction(taught_copy: Store) -> None:
    learned = taught_copy.tags()[CURRENT]
    (tag,) = (t for t, digest in taught_copy.tags().items() if digest == learned and t != CURRENT)
    rollback(taught_copy)
    assert rollback(taught_copy, tag).digest == learned
    rollback(taught_copy)
    assert rollback(taught_copy, learned).digest == learned
    with pytest.raises(ModelError):
        rollback(taught_copy, "generation-7")


def test_rollback_to_a_damaged_generation_is_refused_and_the_current_one_stays(taught_copy: Store) -> None:
    learned = taught_copy.load(CURRENT)
    older = taught_copy.load(learned.generation.parents[0])
    own = {layer.digest for layer in older.manifest.layers} - {layer.digest for layer in learned.manifest.layers}
    path = taught_copy.blob_path(sorted(own)[0])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DigestError):
        rollback(taught_copy)
    assert taught_copy.tags()[CURRENT] == learned.digest


def test_the_log_lists_generations_newest_first_with_the_one_in_use(taught_copy: Store) -> None:
    newest, oldest = log(taught_copy)
    assert (newest["counter"], newest["action"], newest["current"], newest["in_use"]) == (2, "update", True, True)
    assert (oldest["counter"], oldest["action"], oldest["current"], oldest["in_use"]) == (1, "export", False, True)
    assert newest["parents"] == [oldest["digest"]]
    assert newest["device_id"] == taught_copy.state().device_id
    assert newest["modalities"] == ["acoustic", "current", "text", "vibration"]
    rollback(taught_copy)
    newest, oldest = log(taught_copy)
    assert (newest["current"], newest["in_use"], oldest["current"]) == (False, False, True)
