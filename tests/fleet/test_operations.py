"""Steps of deploy/OPERATIONS.md by the installed command: a device in the place of another, lost keys, a full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machine_bundle import Machine
from worlds import World, fingerprint_of

from edge_cmcl.device.store import CURRENT

Cli = Callable[..., Any]


@pytest.fixture
def cli(run_cli: Cli, world: World) -> Cli:
    """Run a command in the folder of the fleet, `cli("sync", store="a")`; it must end with `code`."""

    def run(*arguments: object, store: str = "", code: int = 0) -> Any:
        env = {"EDGE_CMCL_FLEET": "fleet", **({"EDGE_CMCL_STORE": store} if store else {})}
        done = run_cli(*arguments, env=env, cwd=world.folder)
        assert done.code == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def old(cli: Cli, world: World) -> str:
    """The id of device "a", which has sent what it learned to a host that trusts it."""
    cli("sync", f"file://{world.folder / 'remote'}", store="a")
    key = fingerprint_of(world.device("a"))
    pulled = cli("fleet", "pull", f"file://{world.folder / 'remote'}", "--trust", key, "--json")
    device_id = world.device("a").state().device_id
    assert pulled.json["news"] == [device_id]
    return device_id


def test_another_device_takes_the_place_of_one_that_broke(cli: Cli, world: World, machine: Machine, old: str) -> None:
    cli("install", machine.bundle, "--trust", world.host.public.fingerprint, store="new")
    key = fingerprint_of(world.device("new"))
    assert f"nothing there is signed by {key}" in cli("fleet", "pull", "--trust", key).stdout  # it has not synced yet
    cli("sync", f"file://{world.folder / 'remote'}", store="new")
    new = world.device("new").state().device_id
    problems = cli("fleet", "pull", "--trust", key, "--json").json["problems"]
    by = world.host.public.fingerprint  # the base was signed by `export --key`, not by this user's own key
    assert f"fleet pull --trust {by}" in problems[new]
    assert cli("fleet", "pull", "--trust", by, "--json").json["news"] == [new]
    cli("fleet", "promote", old, "--device", new, "--key", machine.key)
    assert "release: installed" in cli("sync", store="new").stdout
    assert "release: confirmed" in cli("sync", store="new").stdout
    known = {each["modality"] for each in cli("status", "--json", store="new").json["modalities"]}
    assert known >= {"acoustic", "vibration", "current"}

    assert "is forgotten" in cli("fleet", "forget", old[:8]).stdout
    cli("rollback", store="a")
    cli("sync", store="a")  # somebody starts the broken one again
    pulled = cli("fleet", "pull", "--json").json
    assert (pulled["news"], pulled["revoked"], pulled["problems"], pulled["strangers"]) == ([new], [old], {}, {})
    assert [each["device_id"] for each in cli("fleet", "list", "--json").json["devices"]] == [new]


def test_a_device_that_lost_its_key_comes_back_with_a_new_one(
    cli: Cli, world: World, machine: Machine, old: str
) -> None:
    (secret,) = (world.folder / "a/keys").glob("*.pem")
    secret.unlink()
    assert (
        "edge-cmcl keys rotate"
        in cli("update", "--modality", "acoustic", "--data", machine.new, store="a", code=4).stderr
    )
    assert "must be told to trust this one" in cli("keys", "rotate", store="a").stdout
    cli("sync", store="a")
    key = fingerprint_of(world.device("a"))
    (problem,) = cli("fleet", "pull", "--json", code=4).json["problems"].values()
    assert f"`edge-cmcl fleet pull --trust {key}`" in problem
    pulled = cli("fleet", "pull", "--trust", key, "--json").json
    assert (pulled["news"], pulled["problems"]) == ([old], {})  # although the lost key has signed what it has in use
    assert cli("fleet", "show", old, "--json").json["fingerprint"] == key


def test_what_a_rotated_key_has_signed_counts_again_after_a_rollback(cli: Cli, world: World, old: str) -> None:
    learned = world.device("a").tags()[CURRENT]
    assert "must be told" not in cli("keys", "rotate", store="a").stdout  # the key that is there endorses the next one
    for generation in ("1", learned):
        cli("rollback", generation, store="a")
        cli("sync", store="a")
        pulled = cli("fleet", "pull", "--trust", world.host.public.fingerprint, "--json").json
        assert (pulled["news"], pulled["problems"]) == ([old], {})


def test_a_host_that_lost_its_key_goes_on_with_another_one(cli: Cli, world: World, machine: Machine, old: str) -> None:
    cli("fleet", "promote", old, "--device", old, "--key", machine.key)
    assert "release: confirmed" in cli("sync", store="a").stdout
    cli("keys", "generate", "--public", "host.pub")
    cli("keys", "generate", "--public", "host.pub", code=2)
    cli("keys", "trust", "host.pub", store="a")
    cli("keys", "revoke", world.host.public.fingerprint, store="a")
    refused = cli("sync", store="a", code=5).stderr
    assert "revoked" in refused
    assert "fleet promote" in refused
    cli("fleet", "promote", old, "--device", old)
    cli("sync", store="a")
    assert cli("fleet", "pull", "--json").json["problems"] == {}


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 6 MB."""
    if os.geteuid() != 0:
        pytest.skip("to mount a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=False).returncode != 0:
        pytest.skip("this machine may not mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_collection_makes_room_on_a_disk_that_is_full_to_the_last_byte(
    cli: Cli, world: World, machine: Machine, full_disk: Path
) -> None:
    store = full_disk / "store"
    subprocess.run(["cp", "-a", world.folder / "a", store], check=True)
    cli("update", "--modality", "vibration", "--data", machine.new, "--with", "text", store=str(store))
    cli("confirm", store=str(store))
    subprocess.run(["dd", "if=/dev/zero", f"of={full_disk / 'rest'}", "bs=4k"], check=False, capture_output=True)
    assert shutil.disk_usage(full_disk).free == 0
    assert cli("keys", "rotate", store=str(store), code=7).stderr.endswith("old recordings, edge-cmcl gc\n")
    done = cli("gc", "--keep", "1", "--json", store=str(store)).json
    assert len(done["generations"]) == 1
    assert done["bytes"] > 0
    (full_disk / "rest").unlink()
    assert len(cli("log", "--json", store=str(store)).json["generations"]) == 2
