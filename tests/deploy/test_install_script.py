"""install.sh in a Debian root: run twice, upgraded, rolled back, interrupted, taken off (issue 7, no. 5)."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from installed import Device, State
from interruptions import Fork, forks, kill_after, kill_at, some
from kits import SIZE
from machine_bundle import Machine

SEED = 20261126
STRIKES = {"reduced": 3, "full": 10_000}.get(SIZE, 0)
"""Commands of install.sh at which it is killed, in each situation that takes seconds."""
SLOW_STRIKES = {"reduced": 2, "full": 12}.get(SIZE, 0)
"""The same where a whole version is built anew, and as many moments."""


@dataclass(frozen=True)
class History:
    """Devices as they are after each step of a life without interruptions, and what lies on them.

    Attributes:
        fresh: nothing was installed.
        first: version 0.1.0, with a model in the store.
        built: the same, and version 0.1.1 lies beside it, whole, but is not in use.
        second: version 0.1.1 is in use.
        installing, upgrading, removing: each start of a command by install.sh on the way to it: of 0.1.0, to 0.1.1
            where that is built already, and of taking it off.
        build_s: seconds that the first install took.
    """

    fresh: Device
    first: Device
    built: Device
    second: Device
    installing: list[Fork]
    upgrading: list[Fork]
    removing: list[Fork]
    build_s: float
    states: dict[str, State]


@pytest.fixture(scope="module")
def history(scratch: Path, debian: object, kit: Path, next_kit: Path, small: Machine) -> Iterator[History]:
    """A device's life, step by step."""
    wheels = kit / "wheels"
    device = Device(debian).copy(scratch / "life")  # type: ignore[arg-type]
    device.plug_in(kit, wheels)
    fresh = device.copy(scratch / "fresh")
    began = time.monotonic()
    installing = forks(device, scratch / "forks.txt")
    build_s = time.monotonic() - began
    states = {"installed": device.state()}

    give_model(device, small)
    first = device.copy(scratch / "first")
    states["first"] = device.state()

    device.plug_in(next_kit, wheels)
    upgrade = forks(device, scratch / "forks.txt")
    second = device.copy(scratch / "second")
    states["second"] = device.state()
    # Back to the version before, as if the power had failed when the new one was built.
    current = (device.root / "opt/edge-cmcl/previous").readlink()
    (device.root / "opt/edge-cmcl/previous").unlink()
    (device.root / "opt/edge-cmcl/current").unlink()
    (device.root / "opt/edge-cmcl/current").symlink_to(current)
    built = device.copy(scratch / "built")
    upgrading = forks(device, scratch / "forks.txt")
    assert device.state() == states["second"]
    assert len(upgrading) < len(upgrade)
    removing = forks(device, scratch / "forks.txt", "--uninstall")
    states["removed"] = device.state()
    print(
        f"install.sh starts {len(installing)} commands to install, {len(upgrading)} to switch, "
        f"{len(removing)} to remove; an install took {build_s:.1f} s"
    )
    yield History(fresh, first, built, second, installing, upgrading, removing, build_s, states)
    for used in (fresh, first, built, second, device):
        shutil.rmtree(used.root.folder)


def give_model(device: Device, machine: Machine) -> None:
    """Install a bundle as an operator does."""
    for source in (machine.bundle, machine.public_key):
        shutil.copy(source, device.root / "media")
    done = device.command("install", "/media/base.tar", "--trust", "/media/machine.key.pub")
    assert done.returncode == 0, done.stderr


def generation(device: Device) -> str:
    """Return the generation in use, as the installed command tells it."""
    done = device.command("status", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads(done.stdout)["generation"])


def version(device: Device) -> str:
    done = device.command("--version")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_an_install_puts_everything_where_it_says_and_leaves_nothing_else(history: History) -> None:
    before, after = Device(history.fresh.root).state(), history.states["installed"]
    added = {name for name in after if name not in before and "/versions/" not in name}
    units = {f"etc/systemd/system/edge-cmcl{name}" for name in ("-record@.service", "-sync.service", "-sync.timer")}
    units |= {f"etc/systemd/system/edge-cmcl{name}" for name in ("-update.service", "-update.timer", ".service")}
    named = {"opt/edge-cmcl", "opt/edge-cmcl/current", "opt/edge-cmcl/versions", "usr/local/bin/edge-cmcl"}
    settings = {"etc/edge-cmcl", "etc/edge-cmcl/edge-cmcl.env", "etc/edge-cmcl/links"}
    store = {"var/lib/edge-cmcl", "var/lib/edge-cmcl/recordings"}
    folders = {"etc/systemd", "etc/systemd/system", "etc/udev", "etc/udev/rules.d", "usr/local/bin", "opt"}
    assert added - folders == units | named | settings | store | {"etc/udev/rules.d/60-edge-cmcl.rules"}
    assert "edge-cmcl" in after["etc/passwd"]
    assert "/usr/sbin/nologin" in after["etc/passwd"]
    assert after["var/lib/edge-cmcl"].startswith("40750 999:")


def test_the_command_works_on_the_store_as_the_service_user(history: History) -> None:
    assert version(history.first) == "0.1.0"
    store = history.first.root / "var/lib/edge-cmcl/store"
    owners = {path.stat().st_uid for path in store.rglob("*")}
    assert owners == {(history.first.root / "var/lib/edge-cmcl").stat().st_uid} != {0}


def test_a_second_run_changes_nothing(history: History, tmp_path: Path) -> None:
    device = history.first.copy(tmp_path / "device")
    device.must_install()
    assert device.state() == history.states["first"]


def test_an_upgrade_keeps_model_and_settings_and_goes_back(history: History, tmp_path: Path) -> None:
    device = history.second.copy(tmp_path / "device")
    assert (version(device), version(history.first)) == ("0.1.1", "0.1.0")
    assert generation(device) == generation(history.first)
    settings = device.root / "etc/edge-cmcl/edge-cmcl.env"
    settings.write_text("OMP_NUM_THREADS=1\n")
    device.must_install("--rollback")
    assert (version(device), generation(device)) == ("0.1.0", generation(history.first))
    device.must_install()
    assert (version(device), settings.read_text()) == ("0.1.1", "OMP_NUM_THREADS=1\n")


def test_a_version_that_cannot_read_the_store_is_not_switched_to(
    history: History, broken_kit: Path, kit: Path, tmp_path: Path
) -> None:
    device = history.first.copy(tmp_path / "device")
    device.plug_in(broken_kit, kit / "wheels")
    done = device.install()
    assert done.returncode == 3
    assert "nothing was switched" in done.stderr
    assert version(device) == "0.1.0"
    device.plug_in(kit, kit / "wheels")
    device.must_install()
    assert device.state() == history.states["first"]


def test_a_package_that_is_not_the_locked_one_is_refused_and_leaves_nothing(history: History, tmp_path: Path) -> None:
    device = history.fresh.copy(tmp_path / "device")
    before = device.state()
    (wheel,) = (device.root / "media/wheels").glob("typer-*.whl")
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    done = device.install()
    assert (done.returncode, "hash" in done.stderr.lower()) == (4, True)
    assert not list((device.root / "opt/edge-cmcl/versions").iterdir())
    assert not (device.root / "usr/local/bin/edge-cmcl").exists()
    assert before["etc/passwd"] == ""
    (device.root / "media/kit/udev/60-edge-cmcl.rules").write_text("changed")
    done = device.install()
    assert (done.returncode, "60-edge-cmcl.rules" in done.stdout + done.stderr) == (4, True)


def test_without_units_and_under_another_prefix(history: History, tmp_path: Path) -> None:
    device = history.fresh.copy(tmp_path / "device")
    device.must_install("--no-systemd", "--prefix", "/srv/own")
    assert version(device) == "0.1.0"
    assert not (device.root / "opt/edge-cmcl").exists()
    assert not list((device.root / "etc/systemd").rglob("edge-cmcl*"))
    assert not (device.root / "etc/udev/rules.d/60-edge-cmcl.rules").exists()
    device.must_install("--uninstall", "--purge", "--prefix", "/srv/own")
    assert not (device.root / "srv/own").exists()


def test_an_uninstall_keeps_the_store_and_a_purge_keeps_nothing(history: History, tmp_path: Path) -> None:
    device = history.second.copy(tmp_path / "device")
    model = generation(device)
    device.must_install("--uninstall")
    assert device.state() == history.states["removed"]
    kept = {name.split("/")[0] + "/" + name.split("/")[1] for name in device.state() if "edge-cmcl" in name}
    assert kept == {"etc/edge-cmcl", "var/lib"}
    device.must_install()
    assert generation(device) == model
    # From its own copy, when the stick is gone.
    shutil.rmtree(device.root / "media")
    done = device.root.run("/opt/edge-cmcl/current/deploy/install.sh", "--uninstall", "--purge")
    assert done.returncode == 0, done.stderr
    again = device.root.run(
        "sh", "-c", "getent passwd edge-cmcl || ls -d /opt/edge-cmcl /var/lib/edge-cmcl /etc/edge-cmcl"
    )
    assert again.stdout == ""


def test_a_recording_is_learned_from_once(history: History, small: Machine, tmp_path: Path) -> None:
    device = history.first.copy(tmp_path / "device")
    user = (device.root / "var/lib/edge-cmcl").stat()
    recording = device.root / "var/lib/edge-cmcl/recordings/new.safetensors"
    shutil.copy(small.new, recording)
    run = ["setpriv", "--reuid", "edge-cmcl", "--regid", "edge-cmcl", "--init-groups", "env"]
    settings = ["EDGE_CMCL_STORE=/var/lib/edge-cmcl/store", "HOME=/var/lib/edge-cmcl"]
    script = [*run, *settings, "EDGE_CMCL_UPDATE_MODALITIES=acoustic", "/opt/edge-cmcl/current/deploy/update-newest.sh"]
    assert "no finished recording" in device.root.run(*script).stderr
    os.chown(recording, user.st_uid, user.st_gid)
    os.utime(recording, (time.time() - 3600,) * 2)
    done = device.root.run(*script)
    assert done.returncode == 0, done.stderr
    learned = json.loads(device.command("status", "--json").stdout)
    assert (learned["counter"], "acoustic" in [each["modality"] for each in learned["modalities"]]) == (2, True)
    assert "learned from already" in device.root.run(*script).stderr


HOOKS = "/opt/edge-cmcl/current/deploy/hooks"


def test_hooks_of_a_system_update_accept_a_model_that_works_and_refuse_one_that_does_not(
    history: History, tmp_path: Path
) -> None:
    device = history.first.copy(tmp_path / "device")
    for hook in ("self-test.sh", "mender/ArtifactCommit_Enter_50_edge-cmcl"):
        done = device.root.run(f"{HOOKS}/{hook}")
        assert (done.returncode, "passed" in done.stderr) == (0, True), done.stderr
    assert json.loads(device.command("status", "--json").stdout)["trial"] is None
    largest = max(
        (device.root / "var/lib/edge-cmcl/store/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    done = device.root.run(f"{HOOKS}/mender/ArtifactCommit_Enter_50_edge-cmcl")
    assert (done.returncode, "failed" in done.stderr, "Traceback" in done.stderr) == (4, True, False), done.stderr
    shutil.rmtree(device.root / "var/lib/edge-cmcl/store")
    assert device.root.run(f"{HOOKS}/self-test.sh").returncode == 0
    refused = device.root.run(f"{HOOKS}/mender/ArtifactInstall_Leave_50_edge-cmcl")
    assert (refused.returncode, "root file system" in refused.stderr) == (1, True)


def strike(device: Device, kill: Callable[[Device], None], expected: State, *options: str, model: str = "") -> None:
    """Kill install.sh on this device, look whether it works, run it again and compare what is there then."""
    kill(device)
    if (device.root / "opt/edge-cmcl/current").is_symlink():
        program = device.root.run("/opt/edge-cmcl/current/bin/edge-cmcl", "--version")
        if "--uninstall" not in options:
            assert program.returncode == 0, program.stderr
            if model and (device.root / "usr/local/bin/edge-cmcl").exists():
                assert generation(device) == model
    device.must_install(*options)
    assert device.state() == expected
    shutil.rmtree(device.root.folder)


def test_an_interrupted_install_is_done_by_the_next_run(history: History, tmp_path: Path) -> None:
    expected = history.states["installed"]
    for fork in some(history.installing, SLOW_STRIKES, SEED):
        print("killed at", fork)
        strike(history.fresh.copy(tmp_path / "d"), lambda device, at=fork: kill_at(device, at), expected)  # type: ignore[misc]
    moments = random.Random(SEED)
    for _ in range(SLOW_STRIKES):
        seconds = moments.uniform(0.1, history.build_s)
        print(f"killed after {seconds:.2f} s")
        strike(history.fresh.copy(tmp_path / "d"), lambda device, s=seconds: kill_after(device, s), expected)  # type: ignore[misc]


def test_an_interrupted_upgrade_leaves_one_version_in_use_and_is_done_by_the_next_run(
    history: History, tmp_path: Path
) -> None:
    model, expected = generation(history.first), history.states["second"]
    for fork in some(history.upgrading, 2 * STRIKES, SEED):
        print("killed at", fork)
        strike(history.built.copy(tmp_path / "d"), lambda device, at=fork: kill_at(device, at), expected, model=model)  # type: ignore[misc]


def test_an_interrupted_uninstall_is_done_by_the_next_run(history: History, tmp_path: Path) -> None:
    expected = history.states["removed"]
    for fork in some(history.removing, STRIKES, SEED):
        print("killed at", fork)
        strike(  # type: ignore[misc]
            history.second.copy(tmp_path / "d"),
            lambda device, at=fork: kill_at(device, at, "--uninstall"),
            expected,
            "--uninstall",
        )
