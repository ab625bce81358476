"""What `sync --show` lists, against what the next sync really puts on the remote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machine_bundle import Machine
from worlds import World, teach

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.documents import Manifest, from_json
from edge_cmcl.bundle.media_types import ENVELOPE, HELD_OUT, HELD_OUT_PAIRS, JUDGEMENT, REPORT
from edge_cmcl.bundle.store_files import SYNC_FOLDER
from edge_cmcl.device.outgoing import Outgoing, outgoing
from edge_cmcl.device.sharing import share
from edge_cmcl.device.syncing import sync

Cli = Callable[..., Any]


def on(world: World) -> dict[str, int]:
    """Return the size of every blob and manifest on the remote, by digest."""
    return {f"sha256:{path.name}": path.stat().st_size for path in (world.folder / "remote" / "blobs").glob("*/*")}


def listed(world: World, name: str, count: int = 0) -> list[Outgoing]:
    with world.remote() as remote:
        return [each for each in outgoing(world.device(name), remote, count) if not each.item.there]


def state_of(store: Store) -> dict[str, bytes]:
    """Return every file of a store but those of the link, such as its lock."""
    paths = (path for path in sorted(store.root.rglob("*")) if path.is_file() and path.parent.name != SYNC_FOLDER)
    return {str(path): path.read_bytes() for path in paths}


@pytest.fixture
def cli(run_cli: Cli, world: World) -> Cli:
    return lambda *arguments: run_cli(*arguments, "--json", "--store", "a", cwd=world.folder).json


@pytest.mark.parametrize("share", [0, 3])
def test_what_is_shown_is_what_is_sent(cli: Cli, world: World, share: int) -> None:
    remote, options = f"file://{world.folder / 'remote'}", ["--share-heldout", str(share)] if share else []
    before = state_of(world.device("a"))
    shown = [each for each in cli("sync", remote, "--show", *options)["files"] if not each["there"]]
    assert on(world) == {}, "nothing was sent"
    assert state_of(world.device("a")) == before, "nothing was changed"
    assert all(each["exact"] for each in shown)
    cli("sync", remote, *options)
    there = on(world)
    assert Counter(each["bytes"] for each in shown) == Counter(there.values())
    known = {each["digest"]: each["bytes"] for each in shown if each["digest"] is not None}
    assert known.items() <= there.items()
    documents = {each["artifact_type"] for each in shown if each["digest"] is None and each["artifact_type"]}
    assert documents == {JUDGEMENT, REPORT, *([HELD_OUT] if share else [])}
    assert (HELD_OUT_PAIRS in {each["media_type"] for each in shown}) is bool(share)


def test_parts_of_a_blob_are_shown_in_one_line_and_listed_for_scripts(cli: Cli, run_cli: Cli, world: World) -> None:
    remote = f"file://{world.folder / 'remote'}"
    files = cli("sync", remote, "--show")["files"]
    lines = run_cli("sync", remote, "--show", "--store", "a", cwd=world.folder).stdout.splitlines()
    wholes = Counter(each["part_of"] for each in files if each["part_of"])
    assert wholes
    for whole, parts in wholes.items():
        (line,) = (line for line in lines if whole[7:19] in line)
        assert f"{parts} parts" in line
        assert str(sum(each["bytes"] for each in files if each["part_of"] == whole)) in line
    assert len(lines) == len(files) - sum(wholes.values()) + len(wholes) + 3  # header, its line, the sum


def test_nothing_is_shown_where_nothing_would_be_sent(world: World) -> None:
    world.sync("a")
    before = on(world)
    assert listed(world, "a") == []
    world.sync("a")
    assert on(world) == before


def test_an_update_after_a_sync_is_shown_with_its_documents(world: World, machine: Machine) -> None:
    world.sync("a")
    teach(world.device("a"), machine.new, "current", ["vibration"])
    before, shown = on(world), listed(world, "a")
    world.sync("a")
    sent = {digest: size for digest, size in on(world).items() if digest not in before}
    assert Counter(each.item.blob.size for each in shown) == Counter(sent.values())


def test_everything_is_shown_where_the_remote_was_wiped(world: World) -> None:
    world.sync("a")
    for path in (world.folder / "remote").rglob("*"):
        if path.is_file():
            path.unlink()
    shown = listed(world, "a")
    world.sync("a")
    assert Counter(each.item.blob.size for each in shown) == Counter(on(world).values())


def test_what_will_be_said_of_an_offer_is_shown_with_its_largest_size(pulled: World) -> None:
    for name in ("a", "b"):
        pulled.sync(name)
    pulled.pull()
    pulled.promote(pulled.merge())
    before, shown = on(pulled), listed(pulled, "a", count=2)
    assert {each.exact for each in shown if each.signed_then} == {False}
    with pulled.remote() as remote:
        assert sync(pulled.device("a"), remote).followed.news == "installed"
        share(pulled.device("a"), remote, 2)
    sent = {digest: size for digest, size in on(pulled).items() if digest not in before}
    largest = _by_kind(shown)
    real = _kinds_of(pulled.folder / "remote", sent)
    assert {kind: len(sizes) for kind, sizes in real.items()} == {kind: len(sizes) for kind, sizes in largest.items()}
    for kind, sizes in real.items():
        assert all(size <= most for size, most in zip(sizes, largest[kind], strict=True)), kind


def _by_kind(shown: list[Outgoing]) -> dict[str, list[int]]:
    kinds: dict[str, list[int]] = {}
    for each in shown:
        kind = each.item.blob.artifact_type or each.item.blob.media_type
        kinds.setdefault(kind, []).append(each.item.blob.size)
    return {kind: sorted(found) for kind, found in kinds.items()}


def _kinds_of(remote: Path, sent: dict[str, int]) -> dict[str, list[int]]:
    """Return the sizes of blobs by their kind, which the manifests among them say."""
    kinds: dict[str, list[int]] = {}
    for digest in sent:
        data = (remote / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
        if not data.startswith(b"{") or b"artifactType" not in data:
            continue
        manifest = from_json(Manifest, data, digest)
        kinds.setdefault(str(manifest.artifact_type), []).append(len(data))
        for layer in manifest.layers:
            if layer.digest in sent:
                kinds.setdefault(layer.media_type, []).append(layer.size)
    assert ENVELOPE in kinds
    return {kind: sorted(found) for kind, found in kinds.items()}
