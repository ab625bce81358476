"""Debian's docker-registry behind TLS and basic auth: trust, credentials, cuts, kills, a full disk, bytes sent."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_samples import make_store
from relay import relaying
from servers import PASSWORD, USER, RegistryServer, running
from sync_samples import blob_of, kill_after, large_update, new_bytes

from edge_cmcl.bundle import Store
from edge_cmcl.errors import RemoteError, UsageError
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.pull import fetch
from edge_cmcl.sync.push import push
from edge_cmcl.sync.settings import LinkSettings

MBIT = 125_000.0
pytestmark = pytest.mark.usefixtures("credentials")


def settings(server: RegistryServer, work: Path | None = None) -> LinkSettings:
    return LinkSettings(ca_file=server.ca, work=work, patience_s=20)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(150_000))
    return path


def test_a_certificate_of_another_authority_is_refused_at_once(shared_registry: RegistryServer) -> None:
    with (
        connect(shared_registry.url(), LinkSettings()) as remote,
        pytest.raises(RemoteError, match="does not prove who it is") as caught,
    ):
        remote.tags()
    assert "SSL_CERT_FILE" in caught.value.hint


def test_the_authority_may_come_from_the_environment(
    shared_registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(shared_registry.ca))
    with connect(shared_registry.url("nobody/here"), LinkSettings()) as remote:
        assert remote.tags() == []


def test_authorities_that_cannot_be_read_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot use the authorities"):
        connect("oci://127.0.0.1:1/x", LinkSettings(ca_file=tmp_path / "none"))


@pytest.mark.parametrize("password", [None, "wrong and secret"])
def test_missing_or_wrong_credentials_say_what_to_set_and_show_nothing(
    shared_registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    monkeypatch.delenv("EDGE_CMCL_REGISTRY_USER")
    if password is not None:
        monkeypatch.setenv("EDGE_CMCL_REGISTRY_USER", USER)
        monkeypatch.setenv("EDGE_CMCL_REGISTRY_PASSWORD", password)
    with (
        connect(shared_registry.url(), settings(shared_registry)) as remote,
        pytest.raises(RemoteError, match="does not let us in") as caught,
    ):
        remote.head("x")
    assert "EDGE_CMCL_REGISTRY_USER" in caught.value.hint
    assert "wrong and secret" not in str(caught.value)


def test_credentials_may_come_from_dockers_config(
    shared_registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EDGE_CMCL_REGISTRY_USER")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config = {"auths": {f"127.0.0.1:{shared_registry.port}": {"auth": auth}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with connect(shared_registry.url("nobody/here"), settings(shared_registry)) as remote:
        assert remote.tags() == []


def test_a_registry_that_is_away_is_tried_again_and_then_named(tmp_path: Path) -> None:
    server = RegistryServer(tmp_path / "registry")
    began = time.monotonic()
    with (
        connect(server.url(), replace(settings(server), patience_s=1.5)) as remote,
        pytest.raises(RemoteError, match="is away") as caught,
    ):
        remote.tags()
    assert time.monotonic() - began < 5
    assert "tries" in caught.value.got
    assert "refused" in caught.value.got


def test_an_upload_that_is_cut_in_the_middle_goes_on_and_sends_little_twice(
    shared_registry: RegistryServer, large: Path
) -> None:
    blob = blob_of(large.read_bytes())
    with relaying(shared_registry.port, MBIT) as relay:
        relay.cut_at(60_000, 120_000)
        with connect(shared_registry.url(port=relay.port), settings(shared_registry)) as remote:
            moved: list[int] = []
            remote.moved = moved.append
            remote.upload(blob, large)
            assert remote.has(blob)
        assert sum(moved) == blob.size
        assert relay.up < 1.1 * blob.size + 25_000  # requests, TLS, and two chunks


def test_a_download_that_is_cut_goes_on(shared_registry: RegistryServer, large: Path, tmp_path: Path) -> None:
    large.write_bytes(os.urandom(3_000_000))
    blob = blob_of(large.read_bytes())
    with connect(shared_registry.url(), settings(shared_registry)) as remote:
        remote.upload(blob, large)
    with (
        relaying(shared_registry.port) as relay,
        connect(shared_registry.url(port=relay.port), settings(shared_registry)) as remote,
    ):
        done = 0

        def cut_once(count: int) -> None:
            nonlocal done
            done += count
            if relay.connections == 1 and done > 100_000:
                relay.cut()

        remote.moved = cut_once
        remote.download(blob, tmp_path / "target")
        assert relay.connections == 2
        assert done == blob.size  # no byte twice
    assert (tmp_path / "target").read_bytes() == large.read_bytes()


def test_a_registry_that_is_killed_and_started_again_gets_the_rest(own_registry: RegistryServer, large: Path) -> None:
    blob = blob_of(large.read_bytes())
    with relaying(own_registry.port, MBIT) as relay:

        def restart() -> None:
            relay.await_up(90_000)
            own_registry.kill()
            own_registry.start()

        restarting = threading.Thread(target=restart)
        restarting.start()
        with connect(own_registry.url(port=relay.port), settings(own_registry)) as remote:
            remote.upload(blob, large)
            assert remote.has(blob)
        restarting.join(10)
        assert relay.up < 1.1 * blob.size + 25_000


def test_a_push_that_is_killed_in_the_middle_of_a_blob_is_finished_by_another_process(
    shared_registry: RegistryServer, store: Store, tmp_path: Path
) -> None:
    update = large_update(store, whole=True)
    refs = ("base", "current", "large")
    with relaying(shared_registry.port) as relay:
        place = shared_registry.url("killed/push", relay.port)
        capped = replace(settings(shared_registry, tmp_path / "work"), bytes_per_s=2_000_000)
        kill_after(500_000, place, capped, store, refs)
        assert list((tmp_path / "work").glob("*.json"))
        with connect(place, settings(shared_registry, tmp_path / "work")) as remote:
            assert remote.head("new") is None
            sent = push(store, [store.load(ref) for ref in refs], remote, {"new": update.descriptor})
            head = remote.head("new")
        assert sent.tags == ("new",)
        assert head is not None
        assert head.digest == update.digest
        total = sum(layer.size for layer in update.manifest.layers)
        assert relay.up < 1.1 * total + 60_000  # the requests of three generations among it
    assert not list((tmp_path / "work").glob("*.json"))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / ("a long name " * 10) / "tiny"  # what a registry says of it is long, too
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_of_the_registry_is_named_and_nothing_is_lost_when_there_is_room_again(
    tiny_disk: Path, tmp_path: Path, large: Path
) -> None:
    blob = blob_of(large.read_bytes())
    with running(RegistryServer(tmp_path / "registry", storage=tiny_disk)) as server:
        began = time.monotonic()
        with connect(server.url(), settings(server)) as remote:
            with pytest.raises(RemoteError, match="is full") as caught:
                remote.upload(blob, large)
            assert time.monotonic() - began < 10
            assert "no space left" in caught.value.got
            (tiny_disk / "rest").write_bytes(bytes(1 << 16)[: shutil.disk_usage(tiny_disk).free])
            with pytest.raises(RemoteError, match="is full"):
                remote.upload(blob, large)
            assert time.monotonic() - began < 10
            subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
            remote.upload(blob, large)
            remote.download(blob, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == large.read_bytes()


def test_an_update_takes_its_changed_blobs_on_the_wire_and_a_second_sync_nearly_nothing(
    shared_registry: RegistryServer, store: Store, tmp_path: Path
) -> None:
    update = large_update(store)
    old = [store.load("base"), store.load("current")]
    changed_bytes = new_bytes(update, *old)
    tags = {"device-1": update.descriptor}
    with connect(shared_registry.url("wire"), settings(shared_registry)) as remote:
        push(store, old, remote, {})
    with relaying(shared_registry.port) as relay:
        url = shared_registry.url("wire", relay.port)
        with connect(url, settings(shared_registry)) as remote:
            push(store, [update], remote, tags)
        assert changed_bytes > 2_300_000
        assert relay.up + relay.down <= 1.05 * changed_bytes + 10_000
        assert relay.connections == 1
        first_up = relay.up
        with connect(url, settings(shared_registry)) as remote:
            assert push(store, [update], remote, tags).blobs == 0
        assert relay.up - first_up < 5000
        assert relay.connections == 2


def test_a_pull_that_is_cut_off_goes_on_in_the_same_folder(
    shared_registry: RegistryServer, store: Store, tmp_path: Path
) -> None:
    update = large_update(store)
    url = shared_registry.url("pull/cut")
    with connect(url, settings(shared_registry)) as remote:
        push(store, [store.load("base"), store.load("current"), update], remote, {"new": update.descriptor})
    with relaying(shared_registry.port) as relay:

        def end(stage: str, done: int, total: int) -> None:
            if done > total / 2:
                relay.target = 1  # where nobody listens
                relay.cut()

        away = replace(settings(shared_registry), patience_s=0.5)
        with (
            connect(shared_registry.url("pull/cut", relay.port), away) as remote,
            pytest.raises(RemoteError, match="is away"),
        ):
            fetch(remote, "new", None, tmp_path / "pulled", progress=end)
    assert not (tmp_path / "pulled" / "index.json").exists()
    with connect(url, settings(shared_registry)) as remote:
        layout = fetch(remote, "new", None, tmp_path / "pulled")
        assert remote.link.received < 0.6 * sum(layer.size for layer in update.manifest.layers)
    assert layout.load(update.digest).read(update.generation.modalities["acc"].adapter_blob)


def test_a_tag_that_the_registry_cannot_remove_stays(shared_registry: RegistryServer, tmp_path: Path) -> None:
    store = make_store(tmp_path / "other")
    with connect(shared_registry.url("remove"), settings(shared_registry)) as remote:
        push(store, [store.load("base")], remote, {"keep": store.load("base").descriptor})
        assert not remote.remove("keep")
        assert remote.head("keep") is not None
