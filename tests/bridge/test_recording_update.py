"""Commands that take a recording where they take a pairs file, and what becomes of it (design.md, promise 2)."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boards import machine
from environments import EDGE_CMCL
from machine_bundle import Machine

from edge_cmcl.bundle.store_files import WORK

Edge = Callable[..., tuple[dict[str, Any], str]]
UPDATE = ("update", "--modality", "acoustic", "--data")


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "monday"
    machine(folder / "000000.mcap")
    return folder


@pytest.fixture
def monday(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "monday"))


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def leftovers(tmp_path: Path) -> list[str]:
    return [
        *(path.name for path in (tmp_path / "tmp").iterdir()),
        *(p.name for p in (tmp_path / "store").glob(f"{WORK}*")),
    ]


@pytest.mark.usefixtures("store")
def test_an_update_learns_from_a_recording_and_then_deletes_it(
    edge: Edge, monday: Path, machine_bundle: Machine, tmp_path: Path
) -> None:
    (before,), _ = [edge(*UPDATE, machine_bundle.new, "--with", "vibration", "--dry-run")[0]["judged"]], None
    done, stderr = edge(*UPDATE, "monday", "--with", "vibration")
    assert done["counter"] == 2
    assert done["recording"]["windows"] >= 235
    assert done["recording"]["shapes"] == {"acoustic": [256, 1], "vibration": [256, 3]}
    (judged,) = done["judged"]
    assert judged["after"] == pytest.approx(before[0]["after"], abs=0.1), "as from the pairs file it was recorded from"
    assert judged["after"] > 3 * judged["chance"]
    assert done["recording"]["deleted"] == ["monday/000000.mcap"]
    assert "deleted monday/000000.mcap" in stderr
    assert not monday.exists()
    assert leftovers(tmp_path) == []


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("option", ["--keep", "--dry-run"])
def test_kept_recordings_and_dry_runs_delete_nothing(edge: Edge, monday: Path, option: str, tmp_path: Path) -> None:
    before = tree(monday)
    done, _ = edge(*UPDATE, "monday", "--budget", "0", option)
    assert "deleted" not in done["recording"]
    assert tree(monday) == before
    assert leftovers(tmp_path) == []


@pytest.mark.usefixtures("store")
def test_a_refused_update_deletes_nothing(edge: Edge, monday: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    edge(*UPDATE, "monday", "--max-drift", "0", code=5)
    assert tree(tmp_path) == before
    assert leftovers(tmp_path) == []


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_update_that_is_ended_leaves_the_recording_and_no_copy_of_it(
    edge: Edge, monday: Path, cli_env: dict[str, str], tmp_path: Path, number: int, code: int
) -> None:
    before = tree(monday)
    arguments = [EDGE_CMCL, *UPDATE, "monday", "--store", "store"]
    process = subprocess.Popen(arguments, env=cli_env, cwd=tmp_path, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not any((tmp_path / "store").glob(f"{WORK}*/*.safetensors")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == code
    assert tree(monday) == before
    if number == signal.SIGKILL:
        edge("gc")  # as any command that writes
    assert leftovers(tmp_path) == []
    assert edge("status")[0]["counter"] == 1


@pytest.mark.usefixtures("store")
def test_what_is_not_ours_or_was_not_read_stays(edge: Edge, monday: Path) -> None:
    (monday / "notes.txt").write_text("mine")
    done, _ = edge(*UPDATE, "monday", "--budget", "0")
    assert done["recording"]["deleted"] == ["monday/000000.mcap"]
    assert tree(monday).keys() == {"notes.txt"}


@pytest.mark.usefixtures("store")
def test_another_unit_than_was_learned_is_refused(edge: Edge, monday: Path, tmp_path: Path) -> None:
    edge(*UPDATE, "monday", "--budget", "0", "--keep")
    again, _ = edge(*UPDATE, "monday", "--budget", "0", "--dry-run")
    assert again["learned_before"] == 2, "the same recording gives the same windows, byte for byte"
    machine(tmp_path / "loud.mcap", windows=40, unit="dB")
    error, _ = edge(*UPDATE, "loud.mcap", code=3)
    assert "another unit" in error["message"]
    assert (tmp_path / "loud.mcap").exists()


@pytest.mark.usefixtures("store")
def test_a_recording_without_the_sensor_is_refused(edge: Edge, monday: Path) -> None:
    error, _ = edge("update", "--modality", "accoustic", "--data", "monday", code=3)
    assert "has no sensor accoustic" in error["message"]
    assert "acoustic" in error["got"]
    assert monday.exists()


@pytest.mark.usefixtures("store")
def test_other_commands_take_a_recording_and_leave_it(edge: Edge, monday: Path, tmp_path: Path) -> None:
    before = tree(monday)
    assessed, _ = edge("assess", "--modality", "acoustic", "--data", "monday")
    assert assessed["recommendation"] in ("learn", "unclear", "do not learn")
    assert assessed["recording"]["windows"] >= 235
    watched, _ = edge("status", "--data", "monday")
    assert {each["modality"] for each in watched["drift"]} == {"current", "vibration"}
    assert watched["recording"]["windows"] >= 235
    embedded, _ = edge("embed", "monday", "--out", "e.safetensors", "--modality", "vibration")
    assert embedded["n"] >= 235, "one sensor is enough where nothing is learned"
    found, _ = edge(
        "retrieve", "monday/000000.mcap", "monday", "--from", "vibration", "--in", "vibration", "--top", "1"
    )
    assert found["hits"][0]["rows"] == [0]
    assert tree(monday) == before
    assert leftovers(tmp_path) == []


@pytest.mark.usefixtures("store")
def test_labels_of_a_recording_are_learned_and_classified(edge: Edge, monday: Path) -> None:
    done, _ = edge("update", "--modality", "vibration", "--with", "text", "--data", "monday", "--keep")
    assert "text" in done["learned"]
    found, _ = edge("classify", "monday", "--modality", "vibration")
    assert found["accuracy"] > 2 / len(found["labels"])
    assert monday.exists()
