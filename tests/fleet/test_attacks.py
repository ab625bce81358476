"""What somebody can do who controls the remote, or one device of the fleet."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from worlds import LESSONS, World, fingerprint_of

from edge_cmcl.bundle import Store
from edge_cmcl.bundle.attested import Report, attest, report_tag
from edge_cmcl.bundle.keys import PrivateKey
from edge_cmcl.device.reporting import make_report
from edge_cmcl.device.signing import signing_key
from edge_cmcl.device.store import CURRENT
from edge_cmcl.errors import ModelError
from edge_cmcl.host.fleet import collecting
from edge_cmcl.host.fleet.state import FleetState
from edge_cmcl.sync.attached import push_attached


def report(world: World, signer: str, folder: Path, **changes: object) -> None:
    """Put a report that a device has signed on the remote, changed, under the id that it then has."""
    store = world.device(signer)
    told = Report.model_validate({**make_report(store).model_dump(by_alias=True), **changes})
    key, rotations = signing_key(store)
    scratch = Store.create(folder / "scratch")
    with scratch.writer():
        entry = attest(scratch, store.load(CURRENT).descriptor, told, [key], rotations)
    with world.remote() as remote:
        push_attached(scratch, entry, remote, report_tag(told.device_id))
    shutil.rmtree(folder / "scratch")


@pytest.mark.parametrize("name", ["..", ".", "-", "a.b", "x" * 65])
def test_a_tag_that_names_no_device_touches_nothing(pulled: World, name: str) -> None:
    before = {
        path: path.read_bytes() for path in pulled.fleet.root.rglob("*") if path.is_file() and path.name != "lock"
    }
    with pulled.remote() as remote:
        entry = remote.head(report_tag(pulled.device("a").state().device_id))
        assert entry is not None
        data = remote.manifest(entry.digest)
        assert data is not None
        remote.put(report_tag(name), data, entry.media_type)
    found = pulled.pull()
    assert list(found.problems) == [name]
    after = {path: path.read_bytes() for path in before}
    after.pop(pulled.fleet.root / "fleet.json"), before.pop(pulled.fleet.root / "fleet.json")  # the remote's address
    assert {path.name for path, data in before.items() if data != after[path]} <= {"copy-of-fleet.json"}


def test_a_device_cannot_speak_for_one_that_was_not_seen_yet(world: World, tmp_path: Path) -> None:
    world.sync("a")
    world.pull()
    other = world.device("b").state().device_id
    report(world, "a", tmp_path, device_id=other)
    assert "another device's key" in world.pull().problems[other]
    world.sync("b")
    assert world.pull().news == [other]
    assert world.fleet.devices()[other].fingerprint == fingerprint_of(world.device("b"))


def test_a_device_cannot_pass_for_a_generation(pulled: World, tmp_path: Path) -> None:
    merged = pulled.merge()
    device = pulled.fleet.devices()[pulled.device("a").state().device_id]
    with pulled.fleet.changing():
        pulled.fleet.save_device(device.model_copy(update={"device_id": merged[7:19]}))
    with pytest.raises(ModelError, match="may be a generation or a device"):
        pulled.fleet.generation(merged[7:19])
    assert pulled.fleet.generation(merged).digest == merged


def test_an_older_report_put_back_is_refused(pulled: World, tmp_path: Path) -> None:
    device = pulled.device("a").state().device_id
    pulled.sync("a")
    pulled.pull()
    seen = pulled.fleet.devices()[device].report.number
    report(pulled, "a", tmp_path, number=seen - 1)
    assert "older than the last one" in pulled.pull().problems[device]
    assert pulled.fleet.devices()[device].report.number == seen


def test_a_fleet_that_was_lost_goes_on_counting(pulled: World) -> None:
    merged = pulled.merge()
    for _ in range(3):
        serial = pulled.promote(merged)
    pulled.sync("a")
    with pulled.fleet.changing():
        pulled.fleet.save(FleetState(remote=pulled.fleet.state().remote))
    assert pulled.promote(merged) == serial + 1
    assert pulled.sync("a").followed.news == "confirmed"


def test_a_remote_that_lost_its_data_is_filled_again(pulled: World) -> None:
    store = pulled.device("a")
    pulled.sync("a")
    shutil.rmtree(pulled.folder / "remote")
    (pulled.folder / "remote").mkdir()
    assert pulled.sync("a").sent[-1] == store.tags()[CURRENT]


def test_a_decision_by_a_replaced_key_does_not_hide_the_next_one(pulled: World) -> None:
    merged = pulled.merge()
    device = pulled.device("a").state().device_id
    pulled.promote(merged, device, signer=PrivateKey.generate())  # stands for one whose key was replaced since
    pulled.promote(merged)
    assert pulled.sync("a").followed.news == "installed"


def test_promoting_what_a_device_made_leaves_its_signature_there(pulled: World) -> None:
    store = pulled.device("a")
    digest = store.tags()[CURRENT]
    pulled.promote(digest, pulled.device("b").state().device_id)
    shutil.rmtree(pulled.folder / "fleet")
    assert len(pulled.pull().news) == len(LESSONS)


def test_what_no_device_has_in_use_any_more_leaves_the_fleet(pulled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "KEPT_CANDIDATES", 1)
    first = pulled.merge()
    time.sleep(1.1)  # merges of one second are equal
    second = pulled.merge()
    assert first != second
    pulled.pull()
    store = pulled.fleet.store
    assert [digest for tag, digest in store.tags().items() if tag.startswith("candidate-")] == [second]
    assert not store.has(first)
    assert store.attachments(first) == []
    assert all(store.has(device.report.manifest) for device in pulled.fleet.devices().values())
