"""Bad links between a device and a registry, in network namespaces (issue 5, must-show 4).

EDGE_CMCL_LINKS chooses: "" for a small one, "reduced", or "full" with an update of real size. What was measured is
printed, and shown by `pytest -rP`. Payload is what this room sends of blobs and manifests, wire what leaves the
device's end of the link: headers, TLS and what TCP itself repeats after a loss.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import make_store
from servers import PASSWORD, USER
from sync_samples import large_update, new_bytes
from world import World, missing, world

from edge_cmcl.bundle import Loaded

SIZE = os.environ.get("EDGE_CMCL_LINKS", "")
SHARE = {"": 0.1, "reduced": 0.2, "full": 1.0}[SIZE]
RATE = "1mbit"
TWICE = 1.10
"""At most 10 % of the bytes are sent twice."""

larger = pytest.mark.skipif(not SIZE, reason="takes a minute: EDGE_CMCL_LINKS=reduced or `make links` runs it")


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    if why := missing():
        pytest.skip(why)


class Case:
    """A world whose registry has the base and one update already, and an update that it has not."""

    def __init__(self, made: World, folder: Path) -> None:
        self.world = made
        self.store = make_store(folder / "store")
        self.old = [self.store.load("base"), self.store.load("current")]
        self.folder = folder
        assert not made.push(self.store.root, folder / "work", "base", "current").result()["error"]
        self.update: Loaded = large_update(self.store, SHARE)
        self.new = new_bytes(self.update, *self.old)
        self.wire = made.sent()

    def push(self) -> Any:
        return self.world.push(self.store.root, self.folder / "work", "large")

    def await_half(self, push: Any) -> None:
        push.await_sent(self.world, self.wire + self.new // 2)

    def show(self, what: str, *results: dict[str, Any], killed_bytes: int = 0) -> dict[str, Any]:
        """Print what it took, and check that the registry has the update intact.

        Args:
            what: the case.
            results: of the processes that pushed.
            killed_bytes: what one that could not tell had put on the wire.
        """
        payload = killed_bytes + sum(result["payload_sent"] for result in results)
        # The device's tag is a second copy of the manifest, which is no repetition.
        twice = payload - self.new - self.update.size
        found = {
            "case": what,
            "new_bytes": self.new,
            "payload_sent": payload,
            "sent_twice_percent": round(100 * twice / self.new, 2),
            "wire_bytes": self.world.sent() - self.wire,
            "seconds": round(sum(result["seconds"] for result in results), 1),
        }
        print(json.dumps(found))
        self.check_remote()
        return found

    def check_remote(self) -> None:
        """Fetch what the registry has, every blob verified."""
        space = ["ip", "netns", "exec", self.world.host]
        code = (
            "import sys; from pathlib import Path; from edge_cmcl.sync.connect import connect;"
            "from edge_cmcl.sync.pull import fetch; from edge_cmcl.sync.settings import LinkSettings;"
            "remote = connect(sys.argv[1], LinkSettings(ca_file=Path(sys.argv[2])));"
            "print(fetch(remote, 'device-1', None, Path(sys.argv[3])).load(sys.argv[4]).digest)"
        )
        arguments = [self.world.server.url(), str(self.world.server.ca), str(self.folder / "back"), self.update.digest]
        environment = {**os.environ, "EDGE_CMCL_REGISTRY_USER": USER, "EDGE_CMCL_REGISTRY_PASSWORD": PASSWORD}
        command = [*space, sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.stdout.strip() == self.update.digest, done.stderr


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with world(tmp_path / "registry") as made:
        yield Case(made, tmp_path)


def test_a_slow_link_that_is_cut_for_five_seconds_in_the_middle_of_a_blob_loses_nothing(case: Case) -> None:
    case.world.shape(RATE)
    push = case.push()
    case.await_half(push)
    case.world.lose(100)
    time.sleep(5)
    case.world.lose(0)
    result = push.result()
    assert not result["error"]
    assert case.show("1 Mbit/s, cut for 5 s", result)["sent_twice_percent"] <= 10


@larger
def test_a_slow_link_carries_an_update(case: Case) -> None:
    case.world.shape(RATE)
    result = case.push().result()
    assert not result["error"]
    assert case.show("1 Mbit/s", result)["sent_twice_percent"] == 0


@larger
def test_a_link_that_loses_every_tenth_packet_carries_an_update(case: Case) -> None:
    case.world.shape(RATE)
    case.world.lose(10)
    result = case.push().result(600)
    assert not result["error"]
    case.world.lose(0)
    assert case.show("1 Mbit/s, 10 % loss", result)["sent_twice_percent"] <= 10


@larger
def test_a_registry_that_is_killed_and_started_again_in_mid_push_gets_the_rest(case: Case) -> None:
    case.world.shape(RATE)
    push = case.push()
    case.await_half(push)
    case.world.server.kill()
    time.sleep(1)
    case.world.start()
    result = push.result()
    assert not result["error"]
    assert case.show("1 Mbit/s, registry killed and started again", result)["sent_twice_percent"] <= 10


@larger
def test_a_device_process_that_is_killed_in_mid_push_is_followed_by_one_that_ends_it(case: Case) -> None:
    """What was under way arrives after the process's end, and costs the upload of that part with this registry."""
    case.world.shape(RATE)
    push = case.push()
    case.await_half(push)
    push.process.send_signal(signal.SIGKILL)
    push.process.communicate()
    sent = case.world.sent() - case.wire
    result = case.push().result()
    assert not result["error"]
    found = case.show("1 Mbit/s, device's process killed", result, killed_bytes=sent)
    assert found["wire_bytes"] < 1.25 * case.new  # headers are a tenth of it at this rate


@larger
def test_a_full_disk_of_the_registry_is_told_and_the_push_ends_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(SHARE * 1_500_000) + 300_000}", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    try:
        with world(tmp_path / "registry", disk) as made:
            case = Case(made, tmp_path)
            made.shape(RATE)
            full = case.push().result()
            assert "is full" in full["error"]
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            rest = case.push().result()
            assert not rest["error"]
            found = case.show("1 Mbit/s, registry's disk full, then not", full, rest)
            assert found["sent_twice_percent"] <= 10
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
