from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_samples import (
    base_generation,
    make_adapter,
    make_golden,
    make_labels,
    make_store,
    snapshot,
    updated_generation,
)

from edge_cmcl.bundle import Layout, State, Store, contents
from edge_cmcl.bundle.documents import Declined, SyncState
from edge_cmcl.bundle.layout import DAMAGED
from edge_cmcl.bundle.store_files import discard
from edge_cmcl.bundle.twofold import DamagedFileWarning
from edge_cmcl.errors import (
    DigestError,
    EdgeCmclError,
    FormatError,
    ModelError,
    StorageError,
    StoreLockedError,
    UsageError,
)

HERE = Path(__file__).parent


def test_a_committed_generation_is_read_back_by_tag_digest_and_prefix(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    current = Store(tmp_path / "store").load("current")
    assert current.generation.action == "update"
    assert current.digest == store.tags()["current"] == store.load("current").digest
    for ref in (current.digest, current.digest[7:], current.digest[7:19], current.digest[:19]):
        assert store.load(ref).digest == current.digest
    assert current.manifest == Layout(tmp_path / "store").load("current").manifest


def test_payloads_are_read_back_through_the_generation(tmp_path: Path) -> None:
    loaded = make_store(tmp_path / "store").load("current")
    base = loaded.layout.load("base").generation.modalities["acc"].adapter_blob
    assert contents.read_adapter(loaded, "gyro").weight.tolist() == make_adapter(2).weight.tolist()
    assert [origin.id for origin in contents.read_origins(loaded, "acc")] == ["base", "step-11"]
    assert contents.read_origins(loaded, "acc")[0].reference == base
    assert contents.read_references(loaded, "acc")[base].weight.tolist() == make_adapter(1).weight.tolist()
    golden, labels = contents.read_golden(loaded, "acc"), contents.read_labels(loaded)
    assert golden is not None
    assert golden.outputs["embeddings"].tolist() == make_golden().outputs["embeddings"].tolist()
    assert labels is not None
    assert labels.names == make_labels().names
    assert contents.read_labels(loaded, "acc") is None
    assert contents.read_golden(loaded, "text") is None
    contents.check_contents(loaded)
    with pytest.raises(ModelError, match="no modality"):
        contents.read_adapter(loaded, "nose")


def test_an_update_shares_the_blobs_that_did_not_change(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    with store.writer():
        base = store.commit(base_generation(store), ["base"])
        before = set(snapshot(store.root))
        store.commit(updated_generation(store, base), ["current"])
    added = set(snapshot(store.root)) - before
    assert len(added) == 4  # adapter, sketch, document, manifest


def test_the_same_generation_has_the_same_digest_everywhere(tmp_path: Path) -> None:
    stores = [make_store(tmp_path / name) for name in ("a", "b")]
    assert snapshot(stores[0].root) == snapshot(stores[1].root)


def test_a_lineage_follows_parents_the_nearest_first_and_through_merges(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with store.writer():
        other = store.commit(updated_generation(store, "base", seed=12), ["other"])
        ours = store.load("current")
        merged = updated_generation(store, "current", seed=13).model_copy(update={"parents": (ours.digest, other)})
        store.commit(merged, ["merged"])
    history = list(store.lineage([store.tags()["merged"]]))
    assert [loaded.generation.counter for loaded in history] == [3, 2, 2, 1]
    assert history[-1].digest == store.tags()["base"]
    assert {loaded.base for loaded in history} == {store.tags()["base"]}


def test_the_lineage_of_several_generations_has_each_once_and_reads_it_once(
    tmp_path: Path, manifests_read: list[str]
) -> None:
    store = make_store(tmp_path / "store")
    with store.writer():
        store.commit(updated_generation(store, "base", seed=12), ["other"])
    manifests_read.clear()
    found = [
        loaded.digest for loaded in store.lineage(store.tags()[tag] for tag in ("other", "current", "base", "current"))
    ]
    assert set(found) == set(store.tags().values())
    assert sorted(manifests_read) == sorted(found)


def test_a_commit_ends_the_generation_tags_of_its_parents_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with store.writer():
        store.set_tag("generation-1", "base")
        store.set_tag("generation-2", "current")
        child = store.commit(updated_generation(store, "current", seed=12), ["current", "generation-3"])
        assert set(store.tags()) == {"base", "current", "generation-1", "generation-3"}
        sibling = store.commit(updated_generation(store, "base", seed=13), ["generation-2b"])
    assert store.tags() == {
        "base": store.load("base").digest,
        "current": child,
        "generation-3": child,
        "generation-2b": sibling,
    }


def test_a_lineage_ends_where_a_parent_is_not_present_or_fails_where_it_is_damaged(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    base = store.blob_path(store.tags()["base"])
    data = base.read_bytes()
    base.write_bytes(data[:-1] + b" ")
    current = store.tags()["current"]
    with pytest.raises(DigestError):
        list(store.lineage([current], past=()))
    assert [loaded.generation.counter for loaded in store.lineage([current])] == [2]
    base.unlink()
    assert [loaded.generation.counter for loaded in store.lineage([current], past=())] == [2]


def test_a_disk_that_gives_no_bytes_is_no_end_of_a_lineage(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    current, limits = store.tags()["current"], resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # from now on, no file can be opened
    try:
        with pytest.raises(StorageError):
            list(store.lineage([current]))
        assert list(store.lineage([current], past=DAMAGED)) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_unknown_reference_says_what_there_is(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    for ref in ("nothing", "abcd", "", "../..", "*", "sha256:", store.load("base").manifest.config.digest):
        with pytest.raises(ModelError, match="no generation") as caught:
            store.load(ref)
        assert "base, current" in caught.value.got


def test_an_ambiguous_start_of_a_digest_is_refused(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    found: dict[str, str] = {}
    with store.writer():
        base = base_generation(store)
        for number in range(5000):  # two of about 300 manifests share the first four digits
            digest = store.commit(base.model_copy(update={"counter": number + 1}), [])
            if digest[7:11] in found:
                break
            found[digest[7:11]] = digest
    first = found[digest[7:11]]
    with pytest.raises(ModelError, match="several generations"):
        store.load(digest[7:11])
    assert store.load(first[7:31]).digest == first


def test_a_counter_must_grow_and_blobs_must_be_there(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    before = snapshot(store.root)
    base = store.load("base").generation
    with store.writer():
        newer = store.load("current").generation
        with pytest.raises(FormatError, match="not newer"):
            store.commit(newer.model_copy(update={"counter": 1}), ["x"])
        with pytest.raises(DigestError, match="missing"):
            store.commit(base.model_copy(update={"step": "sha256:" + "0" * 64}), ["x"])
        with pytest.raises(FormatError):
            store.commit(base.model_copy(update={"created": "now"}), ["x"])
        with pytest.raises(FormatError):
            store.save_state(State().model_copy(update={"highest_counter": -1}))
    assert snapshot(store.root) == before


def test_tags_move_are_checked_and_can_be_dropped(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with store.writer():
        assert store.set_tag("current", "base") == store.tags()["current"]
        for tag in ("", "-x", ".x", "a/b", "a b", "x" * 129):
            with pytest.raises(UsageError, match="not a tag"):
                store.set_tag(tag, "base")
        with pytest.raises(ModelError):
            store.set_tag("x", "unknown")
        store.set_tag("other", "current", drop=["base", "not there"])
    assert store.tags() == dict.fromkeys(("current", "other"), store.load("current").digest)


def test_a_document_beyond_the_limits_is_not_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    before = (store.root / "index.json").read_bytes()
    with store.writer():
        with pytest.raises(StorageError, match="index is full"):
            store.commit(updated_generation(store, "current", seed=12), [f"tag-{n}" for n in range(4097)])
        generation = store.load("base").generation
        acc = generation.modalities["acc"]
        sketches = [store.blob_path(f"sha256:{n:064x}") for n in range(12_500)]
        for path in sketches:
            path.touch()
        digests = [f"sha256:{path.name}" for path in sketches]
        many = {f"m{n}": acc.model_copy(update={"origins": tuple(digests[n * 250 : (n + 1) * 250])}) for n in range(50)}
        with pytest.raises(FormatError, match="too many blobs"):
            store.commit(generation.model_copy(update={"modalities": many, "pairs": (), "certificate": ()}), ["x"])
    assert (store.root / "index.json").read_bytes() == before


def test_a_blob_is_written_once_and_repaired_when_damaged(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    with store.writer():
        digest = store.put(b"blob")
        path = store.blob_path(digest)
        first = path.stat().st_ino
        assert store.put(b"blob") == digest
        assert path.stat().st_ino == first
        path.write_bytes(b"blab")
        assert store.put(b"blob") == digest
        assert path.read_bytes() == b"blob"


def test_the_state_is_kept_and_a_new_store_has_the_default_one(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    assert store.state() == State()
    declined = Declined(digest="sha256:" + "1" * 64, since="2026-01-02T03:04:05Z")
    state = State(device_id="device-1", highest_counter=7, sync=SyncState(serial=3, declined=(declined,)))
    with store.writer():
        store.save_state(state)
    assert Store(store.root).state() == state


def test_writing_without_the_lock_is_a_bug(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    generation = store.load("base").generation
    before = snapshot(store.root)
    for write in (
        lambda: store.put(b"x"),
        lambda: store.commit(generation, ["x"]),
        lambda: store.set_tag("x", "base"),
        lambda: store.save_state(State()),
        lambda: store.scratch().__enter__(),
    ):
        with pytest.raises(EdgeCmclError, match="without its lock"):
            write()
    assert snapshot(store.root) == before


def test_only_a_store_without_tags_is_discarded_and_files_of_others_stay(tmp_path: Path) -> None:
    used = make_store(tmp_path / "used")
    before = snapshot(used.root)
    discard(used.root)
    assert snapshot(used.root) == before
    for name in ("empty", "shared"):
        Store.create(tmp_path / name)
    (tmp_path / "shared" / "notes.txt").touch()
    (tmp_path / "half" / "blobs" / "sha256").mkdir(parents=True)
    for name in ("empty", "shared", "half"):
        discard(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"used", "shared"}
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["notes.txt"]


def test_a_lock_of_a_store_that_was_just_removed_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process removes the store between this one's opening of the lock file and its taking of the lock."""
    store = Store.create(tmp_path / "store")
    flock = fcntl.flock

    def removed_first(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        discard(store.root)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with pytest.raises(StoreLockedError, match="was removed"), store.writer():
        pass
    assert not store.root.exists()


def test_creating_a_store_keeps_one_that_is_there_and_refuses_what_is_not_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    before = snapshot(store.root)
    assert Store.create(store.root).tags() == store.tags()
    assert snapshot(store.root) == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for path in (mine, mine / "thesis.txt"):
        with pytest.raises(ModelError, match="not a store"):
            Store.create(path)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


def test_a_store_whose_creation_was_cut_short_is_completed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    (store.root / "oci-layout").unlink()
    with pytest.warns(DamagedFileWarning, match="its index is read all the same"):
        assert Store(store.root).tags() == store.tags()
    (tmp_path / "half" / "blobs").mkdir(parents=True)
    (tmp_path / "half" / "lock").touch()
    assert Store.create(tmp_path / "half").tags() == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"imageLayoutVersion":"2.0.0"}', "x" * 5000])
def test_another_layout_version_is_refused(tmp_path: Path, text: str) -> None:
    store = make_store(tmp_path / "store")
    (store.root / "oci-layout").write_text(text)
    with pytest.raises(FormatError):
        Store(store.root)


def test_a_pipe_in_place_of_a_blob_does_not_hang_the_reader(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    path = store.blob_path(store.tags()["current"])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FormatError, match="not a regular file"):
        store.load("current")


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    before = snapshot(store.root)
    (store.root / "work-abc" / "deep").mkdir(parents=True)
    (store.root / "work-abc" / "deep" / "cache").write_bytes(b"x")
    (store.root / ".index.json.abc.tmp").write_bytes(b"x")
    (store.root / "blobs" / "sha256" / ".00.abc.tmp").write_bytes(b"x")
    with store.writer(), store.scratch() as scratch:
        assert [path.name for path in store.root.glob("work-*")] == [scratch.name]
        with store.writer():
            assert scratch.is_dir()
    assert snapshot(store.root) == before
    assert not list(store.root.glob("work-*"))


def test_a_path_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        Store.create(tmp_path / "file" / "store")


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A store that nobody can write to: mounted read-only, since permissions do not stop root."""
    store = make_store(tmp_path / "store")
    if os.geteuid():
        for path in [*store.root.rglob("*"), store.root]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        return store.root
    mount = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"', "sh"]
    if subprocess.run([*mount, store.root], capture_output=True, check=False).returncode:
        pytest.skip("root cannot mount a folder read-only here")
    return store.root


def test_a_read_only_store_is_read_but_not_written(read_only: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from edge_cmcl.bundle import Store; from edge_cmcl.errors import StorageError\n"
        "store = Store.create(Path(sys.argv[1])); "
        "list(store.lineage([store.load('current').digest])); store.state()\n"
        "try:\n    with store.writer(): pass\n"
        "except StorageError as error: print(error.hint)"
    )
    command = [sys.executable, "-c", code, str(read_only)]
    if not os.geteuid():
        mounted = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mounted, "sh", str(read_only), *command]
    before = snapshot(read_only)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "choose another folder" in done.stdout
    assert snapshot(read_only) == before


HOLDER = """
import sys
from pathlib import Path
from edge_cmcl.bundle import Store
with Store(Path(sys.argv[1])).writer():
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_is_told_who_the_first_is_and_readers_go_on(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StoreLockedError) as caught, store.writer():
            pass
        assert f"process {holder.pid} (-c {store.root})" in caught.value.got
        assert caught.value.exit_code == 7
        assert store.load("current").generation.counter == 2
        with pytest.raises(EdgeCmclError, match="without its lock"):
            store.put(b"x")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with store.writer():
            store.put(b"x")
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()


def test_crashing_at_any_flush_of_a_commit_leaves_the_old_tags_or_the_new(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "crash_commits.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes[-1] == "finished"
    assert outcomes.count("old") >= 8  # adapter, sketch, document, manifest: file and folder each
    assert outcomes.count("new") >= 1  # index.json renamed, its folder not flushed yet
    assert outcomes == sorted(outcomes, key=["old", "new", "finished"].index)
