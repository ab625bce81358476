"""What `doctor` finds: on boards of several kinds, with stores that are whole and damaged, and who is to blame."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import pytest
from test_starting import damage

from edge_cmcl.bundle import Store
from edge_cmcl.device import doctor
from edge_cmcl.device.board import Board, clock_is_synchronised, read_board
from edge_cmcl.device.doctor import FINE, PROBLEM, WARNING, Finding, examine, provider_fails, worst
from edge_cmcl.device.generations import rollback
from edge_cmcl.device.providers import ProviderWarning
from edge_cmcl.device.settings import settings
from edge_cmcl.device.starting import confirm


@pytest.fixture
def store(store: Store) -> Path:
    """The folder of the store."""
    return store.root


def system(root: Path, **files: str) -> Path:
    """Return a folder with the files of a system, their names with __ for /."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def jetson(root: Path) -> Path:
    system(
        root,
        etc__nv_tegra_release="# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        proc__meminfo="MemTotal:        7802088 kB\nMemFree: 100 kB\nMemAvailable:    5000000 kB\n",
        var__lib__nvpmodel__status="pmode:0001",
    )
    (root / "etc/nvpmodel.conf").write_text("< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=15W >\n")
    (root / "proc/device-tree").mkdir()
    (root / "proc/device-tree/model").write_text("NVIDIA Jetson Orin Nano\0")
    return root


def of(findings: list[Finding], what: str) -> list[Finding]:
    return [finding for finding in findings if finding.what == what]


def test_a_jetson_is_known_by_its_files(tmp_path: Path) -> None:
    board = read_board(jetson(tmp_path))
    assert (board.model, board.l4t, board.power_mode) == ("NVIDIA Jetson Orin Nano", "R36.4.3", "1 (15W)")
    assert (board.memory_bytes, board.available_bytes) == (7802088 * 1024, 5000000 * 1024)
    findings = examine(tmp_path / "none", root=tmp_path)
    (name, *_), (mode,) = of(findings, "board"), of(findings, "power mode")
    assert "Jetson Linux R36.4.3" in name.found
    assert "nvpmodel" in mode.remedy
    assert any("onnxruntime-gpu" in finding.remedy for finding in of(findings, "provider"))


def test_a_container_has_the_memory_of_its_group(tmp_path: Path) -> None:
    root = system(tmp_path, proc__meminfo="MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n")
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("200000000\n")
    (group / "memory.current").write_text("50000000\n")
    board = read_board(root)
    assert (board.memory_bytes, board.available_bytes) == (200_000_000, 150_000_000)
    (memory,) = of(examine(root / "none", root=root), "memory")
    assert (memory.level, "--max-memory" in memory.remedy) == (WARNING, True)
    (group / "memory.max").write_text("max\n")
    assert read_board(root).memory_bytes == 8_192_000_000


def test_an_unknown_machine_is_told_as_such(tmp_path: Path) -> None:
    assert read_board(tmp_path) == Board("", read_board(tmp_path).architecture, "", "", read_board().cores, 0, 0)


@pytest.mark.parametrize(("made", "told"), [((), None), (("",), False), (("", "synchronized"), True)])
def test_who_sets_the_clock_is_told(made: tuple[str, ...], told: bool | None, tmp_path: Path) -> None:
    for name in made:
        place = tmp_path / "run/systemd/timesync" / name
        place.mkdir(parents=True) if not name else place.touch()
    assert clock_is_synchronised(tmp_path) is told
    (clock,) = of(examine(tmp_path / "none", root=tmp_path), "clock")
    assert clock.level == (WARNING if told is False else FINE)


def test_a_clock_before_the_release_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "RELEASED", doctor.datetime(2999, 1, 1, tzinfo=doctor.timezone.utc))
    (clock,) = of(examine(tmp_path / "none", root=tmp_path), "clock")
    assert clock.level == PROBLEM
    assert "timedatectl" in clock.remedy


def test_two_onnxruntimes_in_one_folder_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, number in (("onnxruntime", "1.23.2"), ("onnxruntime-gpu", "1.23.0"), ("onnx", "1.18"), ("numpy", "2")):
        folder = tmp_path / f"{name}-{number}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        found.append(PathDistribution(folder))
    monkeypatch.setattr(doctor, "distributions", lambda: found)
    assert doctor.onnxruntimes() == {"onnxruntime": "1.23.2", "onnxruntime-gpu": "1.23.0"}
    (clash,) = of(examine(tmp_path / "none"), "onnxruntime")
    assert (clash.level, "pip uninstall onnxruntime onnxruntime-gpu" in clash.remedy) == (PROBLEM, True)


def test_a_provider_is_judged_by_running_a_graph() -> None:
    assert provider_fails("CPUExecutionProvider") == ""
    assert provider_fails("NoSuchExecutionProvider")


def test_a_whole_store_is_fine_and_stays_as_it_is(store: Path) -> None:
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file() and path.name != "lock"}
    findings = examine(store)
    assert of(findings, "store")[0].level == of(findings, "self-test")[0].level == FINE
    assert worst(findings) == FINE
    after = {path: path.read_bytes() for path in store.rglob("*") if path.is_file() and path.name != "lock"}
    assert after == before


def test_a_damaged_store_is_a_problem_with_a_remedy(store: Path) -> None:
    largest = max((store / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(data)
    findings = examine(store)
    assert worst(findings) == PROBLEM
    assert "install that again" in of(findings, "store")[0].remedy


def test_the_way_back_from_a_damaged_generation_is_one_that_is_whole(taught_copy: Store) -> None:
    current = confirm(taught_copy)
    (base,) = current.generation.parents
    own = {layer.digest for layer in current.manifest.layers} - {
        layer.digest for layer in taught_copy.load_manifest(base).manifest.layers
    }
    damage(taught_copy, min(own))
    (finding,) = of(examine(taught_copy.root), "store")
    assert (finding.level, f"edge-cmcl rollback {base[7:19]};" in finding.remedy) == (PROBLEM, True)
    assert "to do" not in finding.found
    assert rollback(taught_copy, base[7:19]).digest == base
    assert worst(examine(taught_copy.root)) == FINE


def test_what_does_not_run_where_it_was_exported_for_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(model: object) -> None:
        warnings.warn("no CUDA: the CPU runs it; install onnxruntime-gpu", ProviderWarning, stacklevel=2)

    monkeypatch.setattr(doctor, "self_test", elsewhere)
    assert Finding("provider", WARNING, "no CUDA: the CPU runs it", "install onnxruntime-gpu") in examine(store)


def test_a_full_disk_is_a_problem(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(store)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    (disk,) = of(examine(store), "disk")
    assert (disk.level, "edge-cmcl gc" in disk.remedy) == (PROBLEM, True)


def test_settings_say_where_they_come_from_and_hide_secrets(tmp_path: Path) -> None:
    environment = {"EDGE_CMCL_STORE": str(tmp_path), "EDGE_CMCL_REGISTRY_PASSWORD": "hunter2", "HOME": "/x"}
    rows = settings(tmp_path, tmp_path, environment)
    assert ("store", str(tmp_path), "EDGE_CMCL_STORE") in rows
    assert ("EDGE_CMCL_REGISTRY_PASSWORD", "***", "environment") in rows
    assert "hunter2" not in str(rows)
    assert ("ORT_DISABLE_TELEMETRY", "1", "default") in settings(None, tmp_path, {"ORT_DISABLE_TELEMETRY": "1"})
    assert settings(None, tmp_path, {})[0] == ("store", str(tmp_path), "default")
    assert settings(tmp_path, tmp_path, {})[0][2] == "--store"


def test_the_worst_finding_gives_the_exit_code(
    store: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_cli("doctor", "--store", store, "--json")
    assert (done.code, done.json["worst"]) == (0, FINE)
    (store / "index.json").write_text("{")
    (store / "copy-of-index.json").write_text("{")
    done = run_cli("doctor", "--store", store, "--json")
    assert (done.code, json.loads(done.stdout)["worst"]) == (7, PROBLEM)
    text = run_cli("doctor", "--store", store)
    assert (text.code, "problem" in text.stdout, "Traceback" in text.stderr) == (7, True, False)
