"""What holds for every kind of remote, each of them the real thing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_samples import base_generation, make_store, updated_generation
from sync_samples import blob_of, large_update

from edge_cmcl.bundle import Layout, Loaded, Store
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.bundle.keys import PrivateKey
from edge_cmcl.bundle.signature import read_signature, signature_tag, write_signature
from edge_cmcl.bundle.transfer import import_layout
from edge_cmcl.errors import DigestError, ModelError
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.pull import fetch
from edge_cmcl.sync.push import own_tag, plan, push
from edge_cmcl.sync.settings import LinkSettings

RemoteAt = Callable[[str], tuple[str, LinkSettings]]


def generations(store: Store) -> list[Loaded]:
    return [store.load("base"), store.load("current")]


def signed_store(folder: Path) -> Store:
    store = make_store(folder)
    with store.writer():
        for loaded in generations(store):
            store.move_tags(write_signature(store, loaded, [PrivateKey.generate()]))
    return store


def test_what_is_pushed_can_be_fetched_and_installed_with_its_signature(remote_at: RemoteAt, tmp_path: Path) -> None:
    store = signed_store(tmp_path / "signed")
    current = store.load("current")
    progress: list[tuple[str, int, int]] = []
    with connect(*remote_at("a")) as remote:
        planned = plan(store, generations(store), remote)
        sent = push(
            store, generations(store), remote, {"device-1": current.descriptor}, lambda *step: progress.append(step)
        )
        assert remote.tags() == sorted(
            ["device-1", *(own_tag(g.digest) for g in generations(store)), *map(signature_tag, sent.generations)]
        )
    assert sent.generations == tuple(g.digest for g in generations(store))
    assert sent.tags == ("device-1",)
    assert not any(item.there for item in planned)
    assert (sent.blobs, sent.size) == (len(planned), sum(item.blob.size for item in planned))
    assert progress[-1] == ("send", sent.size, sent.size)

    with connect(*remote_at("b")) as remote:
        head = remote.head("device-1")
        assert head is not None
        assert (head.digest, head.size, head.media_type) == (
            current.digest,
            current.size,
            current.descriptor.media_type,
        )
        assert remote.manifest("device-1") == remote.manifest(current.digest) == store.read(current.descriptor)
        fetched = fetch(remote, "device-1", None, tmp_path / "fetched")
    other = Store.create(tmp_path / "other")
    assert import_layout(fetched.root, other, tags=["current"]) == current.digest
    assert read_signature(other.load("current")) is not None


def test_a_second_push_sends_nothing(remote_at: RemoteAt, store: Store) -> None:
    tags = {"device-1": store.load("current").descriptor}
    with connect(*remote_at("a")) as remote:
        push(store, generations(store), remote, tags)
        again = push(store, generations(store), remote, tags)
    assert (again.generations, again.blobs, again.size, again.tags) == ((), 0, 0, ())


def test_an_update_sends_only_what_its_parent_has_not_got(remote_at: RemoteAt, store: Store) -> None:
    base, current = generations(store)
    with connect(*remote_at("a")) as remote:
        push(store, [base], remote, {})
        sent = push(store, [current], remote, {})
    old = {base.manifest.config.digest, *(layer.digest for layer in base.manifest.layers)}
    new = [current.manifest.config, *current.manifest.layers, current.descriptor]
    assert sent.blobs == len([blob for blob in new if blob.digest not in old]) == 4


def test_of_an_update_one_blob_is_asked_for_and_after_a_cut_those_that_arrived(
    remote_at: RemoteAt, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = large_update(store, 0.3)
    with connect(*remote_at("a")) as remote:
        push(store, generations(store), remote, {})
        asked: list[str] = []
        has = remote.has

        def noted(blob: Descriptor) -> bool:
            asked.append(blob.digest)
            return has(blob)

        monkeypatch.setattr(remote, "has", noted)
        own = [item.blob for item in plan(store, [update], remote) if not item.there and not item.tag]
        assert asked == [update.manifest.config.digest]
        for blob in own[:4]:
            remote.upload(blob, store.blob_path(blob.digest))
        asked.clear()
        assert [item.blob for item in plan(store, [update], remote) if not item.there and not item.tag] == own[4:]
        assert len(own) > 10
        assert asked == [blob.digest for blob in own[:5]]


def test_what_is_not_there_is_said_to_be_absent(remote_at: RemoteAt, store: Store, tmp_path: Path) -> None:
    with connect(*remote_at("a")) as remote:
        assert (remote.head("none"), remote.manifest("none"), remote.tags()) == (None, None, [])
        assert remote.head("sha256:" + "0" * 64) is None
        assert not remote.has(blob_of(b"none"))
        with pytest.raises(ModelError, match="has no 'none'"):
            fetch(remote, "none", None, tmp_path / "fetched")


def test_a_pull_takes_from_the_store_what_it_holds_intact(remote_at: RemoteAt, store: Store, tmp_path: Path) -> None:
    base, current = generations(store)
    have = Store.create(tmp_path / "have")
    with have.writer():
        have.commit(base_generation(have), ["base"])
    damaged = have.blob_path(base.generation.universal)
    damaged.write_bytes(b"?" * damaged.stat().st_size)
    received: list[int] = []
    with connect(*remote_at("a")) as remote:
        push(store, [base, current], remote, {"new": current.descriptor})
        remote.moved = received.append
        fetch(remote, "new", have, tmp_path / "fetched", progress=lambda stage, done, total: received.append(total))
    shared = {layer.digest for layer in base.manifest.layers} - {base.generation.universal}
    lacking = [b for b in (current.manifest.config, *current.manifest.layers) if b.digest not in shared]
    assert max(received) == sum(blob.size for blob in lacking)
    assert Layout(tmp_path / "fetched").load(current.digest).read(base.generation.universal)


def test_a_download_goes_on_with_what_is_there_and_never_keeps_a_wrong_part(
    remote_at: RemoteAt, tmp_path: Path
) -> None:
    data = os.urandom(300_000)
    blob, source, target = blob_of(data), tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    with connect(*remote_at("a")) as remote:
        remote.upload(blob, source)
        assert remote.has(blob)
        for part, expected in (
            (data[:100_000], 200_000),
            (data, 0),
            (b"?" * 100_000, 500_000),
            (b"?" * 400_000, 300_000),
        ):
            target.write_bytes(part)
            moved: list[int] = []
            remote.moved = moved.append
            remote.download(blob, target)
            assert (target.read_bytes() == data, sum(moved)) == (True, expected)


def test_a_damaged_blob_is_not_sent(remote_at: RemoteAt, store: Store) -> None:
    base = store.load("base")
    path = store.blob_path(base.generation.universal)
    path.write_bytes(b"?" * path.stat().st_size)
    with connect(*remote_at("a")) as remote:
        with pytest.raises(DigestError, match="is damaged"):
            push(store, [base], remote, {"device-1": base.descriptor})
        assert not any(remote.has(layer) for layer in base.layers(base.generation.universal))
        assert remote.tags() == []


def test_two_pushes_at_once_lose_nothing(remote_at: RemoteAt, tmp_path: Path) -> None:
    stores = []
    for number in (1, 2):
        store = make_store(tmp_path / f"store-{number}")
        with store.writer():
            store.commit(updated_generation(store, "current", seed=100 + number), ["current"])
        stores.append(store)
    errors: list[BaseException] = []
    start = threading.Barrier(2)

    def run(number: int, store: Store) -> None:
        try:
            with connect(*remote_at(f"device-{number}")) as remote:
                start.wait(10)
                for turn in range(5):
                    loaded = [store.load("base"), store.load("current")]
                    push(store, loaded, remote, {f"device-{number}-{turn}": loaded[-1].descriptor})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i + 1, store)) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    url, settings = remote_at("host")
    with connect(url, settings) as remote:
        for number, store in enumerate(stores, 1):
            for turn in range(5):
                head = remote.head(f"device-{number}-{turn}")
                assert head is not None
                assert head.digest == store.load("current").digest
            fetch(remote, f"device-{number}-0", None, tmp_path / f"fetched-{number}")
        names = remote.tags()
    if url.startswith("file:"):
        assert sorted(Layout(tmp_path / "shared-folder").tags()) == names


def test_two_syncs_of_one_device_at_once_send_whole_blobs(remote_at: RemoteAt, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    update = large_update(store, 0.3)
    errors: list[BaseException] = []
    start = threading.Barrier(3)

    def run() -> None:
        try:
            with connect(*remote_at("same")) as remote:
                start.wait(10)
                push(store, [*generations(store), update], remote, {"new": update.descriptor})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    with connect(*remote_at("host")) as remote:
        assert fetch(remote, "new", None, tmp_path / "fetched").load(update.digest).digest == update.digest


def test_a_cap_on_the_bandwidth_holds_in_both_directions(remote_at: RemoteAt, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    source = tmp_path / "source"
    source.write_bytes(data)
    url, settings = remote_at("a")
    with connect(url, replace(settings, bytes_per_s=400_000)) as remote:
        for action in (
            lambda: remote.upload(blob_of(data), source),
            lambda: remote.download(blob_of(data), tmp_path / "target"),
        ):
            began = time.monotonic()
            action()
            assert 0.2 < time.monotonic() - began < 3
