"""Shared folders, near and behind ssh: what only they can get wrong."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_samples import make_store, snapshot
from relay import relaying
from servers import SshServer
from sync_samples import blob_of, kill_after, large_update

from edge_cmcl.bundle import Layout, Store
from edge_cmcl.bundle.transfer import export_layout, import_layout
from edge_cmcl.errors import DigestError, FormatError, RemoteError
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.folder import Folder
from edge_cmcl.sync.pull import fetch
from edge_cmcl.sync.push import own_tag, push
from edge_cmcl.sync.settings import LinkSettings

SETTINGS = LinkSettings(patience_s=5)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


def ssh_settings(server: SshServer, work: Path | None = None) -> LinkSettings:
    return LinkSettings(known_hosts=server.known_hosts, identity=server.identity, patience_s=10, work=work)


def test_a_folder_that_is_not_there_is_away_and_is_not_made(tmp_path: Path, store: Store) -> None:
    with connect(f"file://{tmp_path}/stick", SETTINGS) as remote, pytest.raises(RemoteError, match="is away") as caught:
        push(store, [store.load("base")], remote, {})
    assert "mount" in caught.value.hint
    assert not (tmp_path / "stick").exists()


def test_a_folder_of_something_else_is_left_alone(shared: Path, store: Store) -> None:
    (shared / "holiday.jpg").write_bytes(b"x")
    with connect(f"file://{shared}", SETTINGS) as remote, pytest.raises(FormatError, match="is something else"):
        push(store, [store.load("base")], remote, {})
    assert [path.name for path in shared.iterdir()] == ["holiday.jpg"]


def test_what_was_pushed_is_an_oci_layout_for_other_tools(shared: Path, store: Store, tmp_path: Path) -> None:
    current = store.load("current")
    with connect(f"file://{shared}", SETTINGS) as remote:
        push(store, [store.load("base"), current], remote, {"device-1": current.descriptor})
    layout = Layout(shared)
    assert layout.tags()["device-1"] == current.digest
    other = Store.create(tmp_path / "other")
    assert import_layout(shared, other, ref="device-1", tags=["current"]) == current.digest


def test_a_bundle_that_was_exported_into_the_folder_keeps_its_tags(shared: Path, store: Store, tmp_path: Path) -> None:
    export_layout(store, "base", shared)
    base = store.load("base")
    with connect(f"file://{shared}", SETTINGS) as remote:
        assert remote.tags() == ["machine-1"]
        before = snapshot(shared)
        fetch(remote, "machine-1", None, tmp_path / "fetched")
        assert snapshot(shared) == before  # reading changes nothing
        remote.put("other", store.read(base.descriptor), base.descriptor.media_type)
    with connect(f"file://{shared}", SETTINGS) as remote:
        assert remote.tags() == ["machine-1", "other"]
        assert remote.remove("machine-1")
        assert not remote.remove("machine-1")
        assert remote.head("machine-1") is None
    assert sorted(Layout(shared).tags()) == ["other"]


def test_tags_that_differ_in_capitals_stay_apart_where_file_names_do_not(shared: Path, store: Store) -> None:
    base, current = store.load("base"), store.load("current")
    with connect(f"file://{shared}", SETTINGS) as remote:
        push(
            store,
            [base, current],
            remote,
            {"Device": base.descriptor, "device": current.descriptor, "x.": base.descriptor},
        )
        names = [path.name for path in (shared / "tags").iterdir()]
        assert len({name.lower() for name in names}) == len(names) == 5
        assert remote.tags() == ["Device", "device", *sorted([own_tag(base.digest), own_tag(current.digest)]), "x."]
        heads = [remote.head(tag) for tag in ("Device", "device")]
        assert [head.digest for head in heads if head is not None] == [base.digest, current.digest]


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", ".hidden", "-x", "x" * 129])
def test_a_tag_that_is_a_path_is_refused(shared: Path, name: str) -> None:
    with connect(f"file://{shared}", SETTINGS) as remote, pytest.raises(FormatError, match="is not a tag"):
        remote.head(name)


def test_a_damaged_tag_or_manifest_is_named(shared: Path, store: Store) -> None:
    base = store.load("base")
    with connect(f"file://{shared}", SETTINGS) as remote:
        push(store, [base], remote, {"a": base.descriptor, "b": base.descriptor})
        (shared / "tags" / "a.json").write_bytes(b"{}")
        with pytest.raises(FormatError, match="the tag a"):
            remote.head("a")
        manifest = shared / "blobs" / "sha256" / base.digest[7:]
        manifest.write_bytes(manifest.read_bytes().replace(b"machine", b"machina"))
        manifest.write_bytes(b" " + manifest.read_bytes()[1:])
        with pytest.raises(DigestError, match="is damaged"):
            remote.manifest("b")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("kind", ["near", "ssh"])
def test_a_full_disk_is_told_and_the_upload_goes_on_when_there_is_room(
    tiny_disk: Path, tmp_path: Path, ssh_server: SshServer, kind: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2_500_000))
    blob = blob_of(source.read_bytes())
    near = (f"file://{tiny_disk}", replace(SETTINGS, work=tmp_path / "work"))
    address = near if kind == "near" else (ssh_server.url(tiny_disk), ssh_settings(ssh_server, tmp_path / "work"))
    with connect(*address) as remote:
        with pytest.raises(RemoteError, match="is full"):
            remote.upload(blob, source)
        subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
        moved: list[int] = []
        remote.moved = moved.append
        remote.upload(blob, source)
        remote.download(blob, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert sum(moved) < 2 * blob.size  # both ways


def test_an_unknown_host_key_is_refused(ssh_server: SshServer, shared: Path, tmp_path: Path) -> None:
    strange = replace(ssh_settings(ssh_server), known_hosts=tmp_path / "known")
    (tmp_path / "known").write_text("")
    with (
        connect(ssh_server.url(shared), strange) as remote,
        pytest.raises(RemoteError, match="does not prove") as caught,
    ):
        remote.tags()
    assert "known_hosts" in caught.value.hint


def test_a_key_that_is_not_let_in_says_so(ssh_server: SshServer, shared: Path, tmp_path: Path) -> None:
    other = SshServer(tmp_path / "other-keys")
    settings = replace(ssh_settings(ssh_server), identity=other.identity)
    with (
        connect(ssh_server.url(shared), settings) as remote,
        pytest.raises(RemoteError, match="does not let us in") as caught,
    ):
        remote.tags()
    assert "authorized_keys" in caught.value.hint


def test_a_users_ssh_configuration_counts(
    ssh_server: SshServer, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    lines = ["Host fleet", "HostName 127.0.0.1", f"Port {ssh_server.port}", f"IdentityFile {ssh_server.identity}"]
    (tmp_path / ".ssh" / "config").write_text("\n".join(lines) + "\n")
    known = ssh_server.known_hosts.read_text().replace("[127.0.0.1]", "[fleet],[127.0.0.1]")
    (tmp_path / ".ssh" / "known_hosts").write_text(known)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with connect(f"ssh://fleet{shared}", SETTINGS) as remote:
        assert remote.tags() == []


def test_a_server_that_is_away_is_tried_again_and_then_named(tmp_path: Path, shared: Path) -> None:
    server = SshServer(tmp_path / "keys")
    with (
        connect(server.url(shared), replace(ssh_settings(server), patience_s=1.5)) as remote,
        pytest.raises(RemoteError, match="is away"),
    ):
        remote.tags()


def test_a_connection_that_is_cut_is_opened_again_and_little_is_sent_twice(
    ssh_server: SshServer, shared: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2_000_000))
    blob = blob_of(source.read_bytes())
    with relaying(ssh_server.port) as relay:
        (tmp_path / "known").write_text(
            ssh_server.known_hosts.read_text().replace(str(ssh_server.port), str(relay.port))
        )
        relay.cut_at(700_000, 1_400_000)
        settings = replace(ssh_settings(ssh_server), known_hosts=tmp_path / "known")
        with connect(ssh_server.url(shared, relay.port), settings) as remote:
            remote.upload(blob, source)
            assert remote.has(blob)
            relay.cut()
            remote.download(blob, tmp_path / "target")
    assert relay.connections == 4
    assert relay.up < blob.size + 2 * 131_072 + 100_000
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("kind", ["near", "ssh"])
def test_a_push_that_is_killed_is_finished_by_another_process(
    ssh_server: SshServer, shared: Path, tmp_path: Path, kind: str
) -> None:
    store = make_store(tmp_path / "killed")
    update = large_update(store)
    url = f"file://{shared}" if kind == "near" else ssh_server.url(shared)
    settings = ssh_settings(ssh_server, tmp_path / "work")
    kill_after(1_200_000, url, settings, store, ("base", "current", "large"))
    with connect(url, settings) as remote:
        push(store, [store.load(ref) for ref in ("base", "current", "large")], remote, {"new": update.descriptor})
        assert remote.link.sent < 1_700_000
        fetch(remote, "new", None, tmp_path / "fetched")
    assert not list((shared / "uploads").glob("*.*"))


def test_the_host_lists_tags_that_came_by_ssh_in_the_index(ssh_server: SshServer, shared: Path, store: Store) -> None:
    base = store.load("base")
    with connect(ssh_server.url(shared), ssh_settings(ssh_server)) as remote:
        push(store, [base], remote, {"device-1": base.descriptor})
        assert Layout(shared).tags() == {}
        assert isinstance(remote, Folder)
        remote.fold()
    assert Layout(shared).tags()["device-1"] == base.digest
