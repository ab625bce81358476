"""The crash harness in its sizes: a few points by default, more in `.ci/run`, everything in `make proof`.

Each test runs a program of this folder, which forks: a process of pytest has threads. EDGE_CMCL_CRASH chooses: "" for
what takes seconds, "reduced", or "full". What was done is printed, and shown by `pytest -rP`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from calls import missing_tools
from machine_bundle import make_machine, make_small
from mounts import missing

HERE = Path(__file__).parent
SIZE = os.environ.get("EDGE_CMCL_CRASH", "")
FULL, LARGER = SIZE == "full", SIZE in ("reduced", "full")
HOURS_S = 4 * 3600.0

larger = pytest.mark.skipif(not LARGER, reason="takes minutes: EDGE_CMCL_CRASH=reduced or `make proof` runs it")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle; a small one where there is much to do, else that which other tests have made already."""
    return (make_small(tmp_path_factory.mktemp("small")) if LARGER else make_machine(tmp_path_factory)).bundle


@pytest.fixture
def traced() -> None:
    if why := missing_tools():
        pytest.skip(why)


def run(program: str, bundle: Path, folder: Path, *options: object, code: int = 0) -> dict[str, Any]:
    """Run a program of this folder and return the JSON that it prints."""
    one_core = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, HERE / program, "--bundle", bundle, *map(str, options)],
        env={**os.environ, **one_core, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=HOURS_S,
        check=False,
    )
    assert done.returncode == code, f"{program} {options}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    result: dict[str, Any] = json.loads(done.stdout)
    print(program, *options, json.dumps(result))
    return result


def counted(some: int) -> list[object]:
    return [] if FULL else ["--some", some]


@pytest.mark.usefixtures("traced")
def test_a_command_killed_at_any_call_leaves_the_old_state_or_the_new(bundle: Path, tmp_path: Path) -> None:
    few = [] if LARGER else ["--command", "rollback"]
    found = run("kills.py", bundle, tmp_path, *few, *counted(5 if LARGER else 2))
    assert found["failed"] == 0
    assert found["struck"] == found["old"] + found["new"] + found["partly"]
    for name, command in found["commands"].items():
        assert command["calls"] > command["scratch"] + 6, name
        assert command["struck"] == (command["calls"] + 1 if FULL else (6 if LARGER else 3)), name
        assert command["new"] >= 1, name


@larger
@pytest.mark.usefixtures("traced")
def test_a_killed_installed_command_leaves_the_old_state_or_the_new(bundle: Path, tmp_path: Path) -> None:
    found = run("kills.py", bundle, tmp_path, "--installed", "--command", "rollback", *counted(4))
    assert (found["failed"], found["commands"]["rollback"]["new"] >= 1) == (0, True)


@pytest.mark.usefixtures("traced")
def test_a_call_that_fails_is_told_and_leaves_the_old_state(bundle: Path, tmp_path: Path) -> None:
    few = [] if LARGER else ["--command", "rollback"]
    found = run("kills.py", bundle, tmp_path, "--errors", *few, *counted(6 if LARGER else 3))
    assert (found["failed"], found["bug_reports"]) == (0, 0)
    for name, command in found["commands"].items():
        assert command["struck"] >= (3 * command["calls"] if FULL else 3), name


@larger
def test_a_full_disk_is_told_and_leaves_the_old_state(bundle: Path, tmp_path: Path) -> None:
    if why := missing("tmpfs", tmp_path) or missing_tools():
        pytest.skip(why)
    found = run("full_disk.py", bundle, tmp_path, *([] if FULL else ["--room", 0, "--room", 8192]))
    assert found["wrong"] == 0
    ended = {(each["command"], each["room_bytes"]): each["code"] for each in found["ended"]}
    changing = ("install", "update", "confirm", "rollback")
    assert [ended[name, 0] for name in changing] == [7] * len(changing)
    assert ended["start", 0] == 0  # reading goes on


@larger
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_power_cuts_lose_nothing_that_was_acknowledged(kind: str, bundle: Path, tmp_path: Path) -> None:
    if why := missing(kind, tmp_path):
        pytest.skip(why)
    size = ["--cuts", 200] if FULL else ["--cuts", 15, "--sync", 0.4]  # few syncs would be by chance none
    found = run("power_cuts.py", bundle, tmp_path, "--fs", kind, *size)[kind]
    assert (found["lost"], found["unreadable"], found["wrong"]) == ({}, {}, {})
    assert found["cuts"] == (200 if FULL else 15)
    assert sum(found["acknowledged"].values()) > found["cuts"] / 2
    assert found["acknowledged"]["sync"] >= 1


@larger
def test_a_store_that_does_not_flush_is_found_out_by_power_cuts(bundle: Path, tmp_path: Path) -> None:
    if why := missing("ext4", tmp_path):
        pytest.skip(why)
    found = run("power_cuts.py", bundle, tmp_path, "--fs", "ext4", "--cuts", 10, "--no-flush", code=1)["ext4"]
    assert found["lost"] or found["unreadable"]


@larger
def test_two_writers_and_eight_readers_lose_and_tear_nothing(bundle: Path, tmp_path: Path) -> None:
    found = run("contention.py", bundle, tmp_path, "--seconds", 60 if FULL else 10)
    assert found["wrong"] == []
    assert found["written"]["quick"] >= 1
    assert found["reads"] >= 8


@pytest.mark.parametrize("kind", ["kill", "ext4", "xfs"])
def test_of_a_recording_no_more_is_lost_than_came_within_the_fsync_interval(
    kind: str, bundle: Path, tmp_path: Path
) -> None:
    if not LARGER and kind != "kill":
        pytest.skip("takes longer: EDGE_CMCL_CRASH=reduced or `make proof` runs it")
    if kind != "kill" and (why := missing(kind, tmp_path)):
        pytest.skip(why)
    moments = 100 if FULL else 5 if LARGER else 1
    found = run("recordings.py", bundle, tmp_path, "--kind", kind, "--moments", moments)[kind]
    assert (found["failed"], found["moments"]) == ({}, moments)
    assert found["missing_s"] <= 0.5
