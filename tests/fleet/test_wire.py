"""What a sync of a device costs on the wire, against a real registry with TLS, counted by a relay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from machine_bundle import make_machine
from relay import Relay
from servers import PASSWORD, USER, RegistryServer, running

from edge_cmcl.bundle import Store
from edge_cmcl.data import open_pairs
from edge_cmcl.device.learner import update
from edge_cmcl.device.outgoing import outgoing
from edge_cmcl.device.store import CURRENT, install, open_store
from edge_cmcl.device.syncing import SyncReport, sync
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.settings import LinkSettings


@pytest.fixture
def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Relay, RegistryServer]]:
    monkeypatch.setenv("EDGE_CMCL_REGISTRY_USER", USER)
    monkeypatch.setenv("EDGE_CMCL_REGISTRY_PASSWORD", PASSWORD)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with running(RegistryServer(tmp_path / "registry")) as server:
        between = Relay(server.port)
        yield between, server
        between.close()


def test_a_sync_costs_little_more_than_what_changed_and_the_next_one_next_to_nothing(
    relay: tuple[Relay, RegistryServer], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    between, server = relay
    machine = make_machine(tmp_path_factory)
    install(machine.bundle, tmp_path / "store", trust=machine.public_key)
    store = open_store(tmp_path / "store")

    def synced() -> tuple[SyncReport, int]:
        settings = LinkSettings(work=tmp_path / "work", ca_file=server.ca)
        with connect(server.url(port=between.port), settings) as remote:
            shown = sum(each.item.blob.size for each in outgoing(store, remote) if not each.item.there)
            assert remote.link.sent == 0, "to list it sends nothing"
        before = between.up
        with connect(server.url(port=between.port), settings) as remote:
            report = sync(store, remote)
            assert remote.link.sent == shown
        return report, between.up - before

    synced()
    blobs = blobs_of(store)
    with open_pairs(machine.new) as pairs:
        update(store, pairs, "acoustic", partners=["vibration"])
    changed = sum(size for name, size in blobs_of(store).items() if name not in blobs)
    report, sent = synced()
    assert report.sent == [store.tags()[CURRENT]]
    assert sent <= 1.05 * changed + 10_000
    report, sent = synced()
    assert report.sent == []
    assert sent < 5_000


def blobs_of(store: Store) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in store.blob_path("").iterdir()}
