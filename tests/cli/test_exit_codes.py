from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import EDGE_CMCL

from edge_cmcl.data import open_pairs, write_pairs
from edge_cmcl.project import load_project

ERROR_KEYS = {"type", "message", "expected", "got", "to_do", "exit_code"}


def test_the_version_is_printed(run_cli: Any) -> None:
    shown = run_cli("--version")
    assert (shown.code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("edge-cmcl 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a command is missing"),
        (("data",), "a command is missing"),
        (("statsu",), "No such command 'statsu'"),
        (("init", "--forec"), "No such option: --forec"),
        (("init", "a", "b"), "unexpected extra argument"),
        (("data", "prepare", "utd_mhad"), "Missing option '--source'"),
        (("data", "prepare", "nope", "--source", "x", "--out", "y"), "no data set is called 'nope'"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_why(
    run_cli: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    failed = run_cli(*arguments)
    assert (failed.code, failed.stdout) == (2, "")
    assert message in failed.stderr
    failed = run_cli(*arguments, "--json")
    error = failed.json["error"]
    assert failed.code == 2
    if arguments not in ((), ("data",)):  # those two take no --json themselves
        assert message in error["message"]
    assert (error["type"], error["exit_code"], error.keys()) == ("UsageError", 2, ERROR_KEYS)
    assert not (tmp_path / "y").exists()


def test_what_the_user_gave_wrong_exits_with_3_and_changes_nothing(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("mine")
    failed = run_cli("init", "mine.toml")
    assert (failed.code, failed.stdout) == (3, "")
    assert (
        failed.stderr == "edge-cmcl: mine.toml exists already\n  expected: a new file\n  to do: --force replaces it\n"
    )
    failed = run_cli("data", "prepare", "sisfall", "--source", "none", "--out", "out", "--json")
    assert (failed.code, failed.json["error"]["type"]) == (3, "DataError")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml", "tmp"]
    assert (tmp_path / "mine.toml").read_text() == "mine"


def test_what_the_file_system_refuses_exits_with_7(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failed = run_cli("init", "file/edge-cmcl.toml", "--json")
    assert (failed.code, failed.json["error"]["type"]) == (7, "StorageError")
    assert failed.json["error"]["to_do"]


def test_init_writes_a_project_that_loads(run_cli: Any, tmp_path: Path) -> None:
    wrote = run_cli("init")
    assert (wrote.code, wrote.stderr) == (0, "")
    assert "edge-cmcl.toml" in wrote.stdout
    assert load_project(tmp_path).name == "my-machine"
    wrote = run_cli("init", ".", "--force", "--json")
    assert (wrote.code, wrote.json) == (0, {"project": "edge-cmcl.toml"})


def test_data_list_says_where_each_data_set_is_and_its_licence(run_cli: Any) -> None:
    listed = run_cli("data", "list", "--json")
    assert (listed.code, listed.stderr) == (0, "")
    datasets = {entry["name"]: entry for entry in listed.json["datasets"]}
    assert set(datasets) == {"utd_mhad", "sisfall", "isl_myo", "sp_sw_har", "borealtc", "hydraulic"}
    shown = run_cli("data", "list")
    for entry in datasets.values():
        assert entry["licence"] in shown.stdout
        assert entry["url"] in shown.stdout


def test_data_prepare_reports_files_and_drops_and_keeps_progress_off_stdout(
    run_cli: Any, archive: Callable[[str], Path], tmp_path: Path
) -> None:
    source = archive("hydraulic")
    done = run_cli("data", "prepare", "hydraulic", "--source", source, "--out", "out", "--json")
    assert done.code == 0, done.stderr
    assert done.json["kept"] == sum(entry["windows"] for entry in done.json["files"])
    assert all((tmp_path / entry["path"]).is_file() for entry in done.json["files"])
    assert " s\n" in done.stderr


RECORDING = "time_s,ax,ay,state\n" + "".join(
    f"{i / 50},{i % 7},{i % 5},{'on' if i < 250 else 'off'}\n" for i in range(500)
)


def test_data_import_writes_a_pairs_file_and_says_what_it_dropped(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text(RECORDING)
    arguments = ["--sensor", "acc=run.csv:time_s:ax,ay@50[m/s^2/9.8]", "--label", "run.csv:state", "--window", "2"]
    done = run_cli("data", "import", "--out", "pairs.safetensors", *arguments, "--json")
    assert done.code == 0, done.stdout
    assert (done.json["windows"], done.json["shapes"]) == (4, {"acc": [100, 2]})
    assert done.json["labels"] == {"off": 2, "on": 2}
    assert done.json["drops"]["dropped"] == {"mixed label": 1}
    with open_pairs(tmp_path / "pairs.safetensors") as pairs:
        assert (pairs.n, pairs.label_names, pairs.units) == (4, ("off", "on"), {"acc": "m/s^2/9.8"})
    shown = run_cli("data", "import", "--out", "again.safetensors", *arguments)
    assert "wrote 4 windows to again.safetensors: acc 100x2" in shown.stdout
    assert "dropped 1 (mixed label)" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "recording", "code", "kind"),
    [
        (("--sensor", "acc", "--window", "2"), RECORDING, 2, "UsageError"),
        (("--sensor", "acc=run.csv:time_s:ax@50", "--window", "0.1"), RECORDING, 2, "UsageError"),
        (("--sensor", "acc=run.csv:time_s:ax@50", "--window", "two"), RECORDING, 2, "UsageError"),
        (("--sensor", "acc=run.csv:time_s:nothing@50", "--window", "2"), RECORDING, 3, "DataError"),
        (("--sensor", "acc=run.csv:time_s:ax@50", "--window", "2"), RECORDING + "1.0,1,1,on\n", 3, "DataError"),
    ],
    ids=["form of --sensor", "short window", "window in words", "unknown column", "unsorted time"],
)
def test_data_import_of_what_cannot_be_used_leaves_an_older_file_alone(
    run_cli: Any, tmp_path: Path, arguments: tuple[str, ...], recording: str, code: int, kind: str
) -> None:
    (tmp_path / "run.csv").write_text(recording)
    write_pairs(tmp_path / "pairs.safetensors", {"acc": np.ones((1, 16, 1), np.float32)})
    older = (tmp_path / "pairs.safetensors").read_bytes()
    failed = run_cli("data", "import", "--out", "pairs.safetensors", *arguments, "--json")
    assert (failed.code, failed.json["error"]["type"], failed.json["error"]["exit_code"]) == (code, kind, code)
    assert (tmp_path / "pairs.safetensors").read_bytes() == older
    assert len(list(tmp_path.iterdir())) == 3


def start(env: dict[str, str], folder: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([EDGE_CMCL, *arguments], env=env, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code", "kind"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated"), (signal.SIGHUP, 129, "Terminated")],
)
def test_an_interrupted_command_leaves_nothing_behind(
    cli_env: dict[str, str], archive: Callable[[str], Path], tmp_path: Path, number: int, code: int, kind: str
) -> None:
    source = archive("utd_mhad")
    before = sorted(tmp_path.rglob("*"))
    with start(
        cli_env, tmp_path, "data", "prepare", "utd_mhad", "--source", source, "--out", "out", "--json"
    ) as process:
        wait_for(lambda: any(tmp_path.glob("out/.prepare-*/members/*")), process)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert json.loads(stdout)["error"]["type"] == kind
    assert json.loads(stdout)["error"]["exit_code"] == code
    assert "Traceback" not in stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")])
def test_an_interruption_that_a_library_swallows_ends_the_command_all_the_same(number: int, raised: str) -> None:
    code = f"""
import os
from edge_cmcl.cli import console, interruption
interruption.watch()
with console.progress() as tell:
    try:
        os.kill(os.getpid(), {number})
    except BaseException:
        print("swallowed")
    tell("train", 1, 2)
    print("went on")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "swallowed\n"
    assert done.stderr.splitlines()[-1].rpartition(".")[2].startswith(raised)


@pytest.mark.parametrize("arguments", [("data", "list"), ("data", "list", "--json")])
def test_a_reader_that_has_seen_enough_is_no_error(
    cli_env: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [EDGE_CMCL, *arguments], env=cli_env, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("module", ["typer", "edge_cmcl.data.prepare"])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_ctrl_c_while_modules_are_loaded_is_an_interruption_like_any_other(
    run_cli: Any, tmp_path: Path, module: str, options: tuple[str, ...]
) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    failed = run_cli("data", "list", *options, env={"PYTHONPATH": str(tmp_path / "early")})
    assert failed.code == 130, failed.stderr
    assert "Traceback" not in failed.stderr
    if options:
        error = failed.json["error"]
        assert (error["type"], error["exit_code"], error.keys()) == ("Interrupted", 130, ERROR_KEYS)
    else:
        assert failed.stderr == "edge-cmcl: interrupted before the end; what was there before is intact\n"
