from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_cmcl.bundle import Loaded, Store
from edge_cmcl.bundle.tags import generation_tag
from edge_cmcl.device.commit import commit_on_trial
from edge_cmcl.device.generations import collect_garbage, log, rollback
from edge_cmcl.device.store import CURRENT, open_store, store_bytes
from edge_cmcl.errors import DigestError, ModelError, StorageError


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


def successor(store: Store, parent: Loaded) -> str:
    """Commit a generation that follows `parent` as an update does, and return its digest."""
    generation = parent.generation.model_copy(
        update={
            "counter": parent.generation.counter + 1,
            "parents": (parent.digest,),
            "base": parent.base,
            "device_id": store.state().device_id,
            "action": "update",
        }
    )
    return store.commit(generation, [CURRENT, generation_tag(generation)])


def created_later(parent: Loaded) -> Loaded:
    return replace(parent, generation=parent.generation.model_copy(update={"created": "2036-01-02T03:04:05Z"}))


def test_a_hundred_updates_leave_a_short_index_and_a_log_that_reads_each_once(
    store: Store, manifests_read: list[str]
) -> None:
    with store.writer():
        for _ in range(100):
            newest = successor(store, store.load(CURRENT))
    tags = sorted(tag for tag in store.tags() if not tag.startswith("sha256-"))  # no signature: none was made here
    assert tags == sorted([CURRENT, generation_tag(store.load(newest).generation)])
    manifests_read.clear()
    found = log(store)
    assert [entry["counter"] for entry in found] == list(range(101, 0, -1))
    assert found[0]["tags"] == tags
    assert len(manifests_read) <= 2 * len(found)


def test_rollback_takes_a_counter_that_one_generation_alone_has(store: Store) -> None:
    base = store.load(CURRENT)
    with store.writer():
        first = successor(store, base)
        second = successor(store, store.load(first))
    assert rollback(store, "2").digest == first
    assert rollback(store, "3").digest == second
    assert rollback(store, "1").digest == base.digest
    with store.writer():
        other = successor(store, created_later(base))
    with pytest.raises(ModelError, match="2 generations 2 here") as caught:
        rollback(store, "2")
    assert first[7:19] in caught.value.got
    assert f"{other[7:19]} {CURRENT} {generation_tag(store.load(other).generation)}" in caught.value.got
    with pytest.raises(ModelError, match="no generation '7'"):
        rollback(store, "7")


def test_the_size_of_a_store_counts_whole_blobs_and_bears_a_writer_at_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = store_bytes(store)
    blobs = store.blob_path("")
    (blobs / ".0a.x.tmp").write_bytes(b"half a blob")
    assert store_bytes(store) == size
    listed = [*blobs.iterdir(), blobs / ("0" * 64), blobs / ".0b.y.tmp"]  # both are gone before their turn comes
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(listed))
    assert store_bytes(store) == size


def test_two_generations_of_one_second_on_two_branches_both_stay_findable(taught_copy: Store) -> None:
    first = taught_copy.load(CURRENT)
    with taught_copy.writer():
        parent = rollback(taught_copy)
        other = first.generation.model_copy(update={"metrics": {"another": 1}})  # of the same counter and time
        second = commit_on_trial(taught_copy, parent.digest, other)
    assert {first.digest, second, parent.digest} == {each["digest"] for each in log(taught_copy)}


def test_a_gc_on_a_disk_that_cannot_be_written_still_removes_what_a_killed_update_left(
    taught_copy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = taught_copy.blob_path("sha256:" + "5" * 64)
    left.write_bytes(b"of an update that was killed")

    def full(path: Path, data: bytes) -> None:
        raise StorageError(f"cannot write {path}", got="No space left on device")

    monkeypatch.setattr("edge_cmcl.bundle.twofold.write_bytes", full)
    assert collect_garbage(taught_copy).blobs == 1
    assert not left.exists()
