"""The README's complete example runs as it stands there, with recordings in the files that it names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import EDGE_CMCL

from edge_cmcl.data import open_pairs
from edge_cmcl.project import load_project
from edge_cmcl.tensors import TensorFile

README = Path(__file__).parents[2] / "README.md"
STATES = ("idle", "milling", "drilling")
SECONDS = 60


def record(path: Path, time_column: str, rate_hz: float, columns: dict[str, float], seconds: int = SECONDS) -> None:
    """Write a recording whose signals change with the state of a machine, which changes every 10 s."""
    random = np.random.default_rng(len(path.name))
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    state = (time // 10).astype(int) % len(STATES)
    level = np.sin(2 * np.pi * (1 + 3 * state) * time) * (0.3 + 0.4 * state) + np.sin(2 * np.pi * time / 7)
    shown = time * 1000 if time_column == "t_ms" else time
    rows = [f"{time_column},{','.join(columns)},state"]
    for i in range(len(time)):
        values = [size * (level[i] + 0.05 * random.standard_normal()) for size in columns.values()]
        rows.append(f"{shown[i]:.6f},{','.join(f'{value:.5f}' for value in values)},{STATES[state[i]]}")
    path.write_text("\n".join(rows) + "\n")


def commands() -> list[str]:
    """Return the commands of the README's complete example, one a line, without those that install it."""
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if "data import" in block)
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    assert [line.split("#")[0].strip() for line in lines if line.startswith("pip")] == [
        "pip install '.[host]'",
        "pip install .",
    ]
    return [line for line in lines if not line.startswith("pip")]


@dataclass(frozen=True)
class Example:
    """A folder in which the example ran, up to its last command, and what each command printed."""

    folder: Path
    environment: dict[str, str]
    printed: dict[str, str]

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def text(self, line: str) -> str:
        done = self.run(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, line: str) -> dict[str, Any]:
        return dict(json.loads(self.text(f"{line} --json")))

    def refused(self, line: str, code: int) -> dict[str, Any]:
        done = self.run(f"{line} --json")
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
        return dict(json.loads(done.stdout)["error"])


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = tmp_path_factory.mktemp("example")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_CMCL_", "XDG_"))}
    path = f"{EDGE_CMCL.parent}{os.pathsep}{os.environ['PATH']}"
    made = Example(folder, {**kept, "PATH": path, "XDG_DATA_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}, {})
    vibration = {"vx": 1.0, "vy": 0.5, "vz": 0.7}
    record(folder / "run1.csv", "t_s", 128, vibration)
    record(folder / "plc.csv", "t_ms", 100, {"amps": 9.0})
    record(folder / "run2.csv", "t_s", 128, vibration)
    record(folder / "mic.csv", "t_s", 128, {"level": 0.8})
    record(folder / "today.csv", "t_s", 128, {"level": 0.8}, seconds=24)
    for line in commands()[:-1]:
        signer = re.search(r"^signed by ([0-9a-f]{64})$", "".join(made.printed.values()), re.MULTILINE)
        done = made.run(line.replace("FINGERPRINT", signer[1]) if signer and "install" in line else line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        made.printed[line.split("#")[0].strip()] = done.stdout
    return made


def printed(example: Example, start: str) -> str:
    (text,) = (text for line, text in example.printed.items() if line.startswith(start))
    return text


def test_the_example_of_the_readme_runs_as_it_stands_there(example: Example) -> None:
    assert [line.split()[1] for line in example.printed][-3:] == ["status", "data", "classify"]
    project = load_project(example.folder)
    assert {name: (table.unit, table.rate_hz) for name, table in project.modality.items()} == {
        "current": ("A/10", 100.0),
        "vibration": ("g", 128.0),
    }
    assert [pair.modalities for pair in project.pair] == [("current", "vibration")]
    last = commands()[-1]
    assert last.startswith("edge-cmcl rollback")
    undone = Example(example.folder, {**example.environment, "EDGE_CMCL_STORE": str(example.folder / "undone")}, {})
    shutil.copytree(example.folder / "home" / "edge-cmcl" / "store", example.folder / "undone")
    assert "generation 1 is current: current, vibration" in undone.text(last)


def test_the_fingerprint_is_the_one_that_export_has_printed(example: Example) -> None:
    (export,) = (text for line, text in example.printed.items() if line.startswith("edge-cmcl export"))
    (listed,) = example.json("edge-cmcl keys list")["host"]
    assert f"edge-cmcl install base.tar --trust {listed['fingerprint']}" in export
    error = example.refused("edge-cmcl install base.tar --store new", 5)
    assert (error["type"], error["to_do"].endswith(f"--trust {listed['fingerprint']}")) == ("UntrustedKeyError", True)


def test_import_says_at_what_rate_each_sensor_was_recorded(example: Example) -> None:
    text = printed(example, "edge-cmcl data import --out base")
    assert "vibration: 128 Hz recorded in run1.csv" in text
    assert "current: 100 Hz recorded in plc.csv" in text


def test_training_says_what_its_figures_mean(example: Example) -> None:
    text = printed(example, "edge-cmcl train")
    assert re.search(r"validation MRR 0\.\d+ \(by chance 0\.\d+\); (best after|the closed-form fit was best)", text)
    assert "MRR: mean over held-out pairs of 1 / rank" in text


def test_update_and_status_say_what_is_new_how_good_it_is_and_what_moved(example: Example) -> None:
    text = printed(example, "edge-cmcl update")
    assert "acoustic (NEW) with vibration, text (NEW): " in text
    assert "0 epochs" not in text
    assert "MRR: mean over" in text
    text = printed(example, "edge-cmcl status")
    assert re.search(r"acoustic - vibration +\d+ +0\.\d+ +0\.\d+ to [01]\.\d+ +0\.\d+", text)
    assert "moved at most: bound on how far the embeddings of what was learned have moved" in text


def test_classify_shows_twenty_rows_their_times_and_a_summary(example: Example) -> None:
    text = printed(example, "edge-cmcl classify")
    assert re.search(r"^  0  0\.000 s   \w+", text, re.MULTILINE)
    assert "no accuracy: live.safetensors has no row" in text
    text = example.text("edge-cmcl classify new.safetensors --modality acoustic")
    with open_pairs(example.folder / "new.safetensors") as pairs:
        rows = pairs.n
    assert f"the first 20 of {rows} rows; --rows shows all of them, --json too" in text
    assert "of these named right" in text
    assert re.search(rf"accuracy \d+\.\d% over the {rows} of {rows} rows that have one of these labels", text)
    assert len(text.splitlines()) < 40
    every = example.text("edge-cmcl classify new.safetensors --modality acoustic --rows")
    assert len(every.splitlines()) > rows
    found = example.json("edge-cmcl classify new.safetensors --modality acoustic --label idle --label drilling")
    assert len(found["moments"]) == rows
    assert found["scored"] == sum(each["true"] for each in found["per_label"]) < rows
    assert found["moments"][1]["time"] == pytest.approx(1.0)


def test_a_label_that_was_never_learned_is_refused_with_the_nearest(example: Example) -> None:
    error = example.refused("edge-cmcl classify new.safetensors --label idel --label drilling", 2)
    assert (error["message"], error["to_do"]) == ("the label 'idel' was never learned", "did you mean idle?")


def test_retrieve_and_embed_give_the_times(example: Example) -> None:
    text = example.text("edge-cmcl retrieve live.safetensors new.safetensors --row 2 --top 3")
    assert re.search(r"^ +2  4\.000 s +1 +\d+ +\d+\.000 s +[01]", text, re.MULTILINE)
    example.text("edge-cmcl embed new.safetensors --out vectors.safetensors")
    written, source = example.folder / "vectors.safetensors", example.folder / "new.safetensors"
    with TensorFile(written) as file, open_pairs(source) as pairs:
        np.testing.assert_array_equal(file.read_whole("time"), pairs.time)


def test_evaluate_takes_the_device_store_where_no_target_is_given(example: Example) -> None:
    found = example.json("edge-cmcl evaluate --data new.safetensors")
    assert found["generation"]["counter"] == 2
    assert found["target"].endswith("home/edge-cmcl/store")
    last = example.text("edge-cmcl evaluate --data new.safetensors").splitlines()[-1]
    assert re.fullmatch(
        r"mean over the rows above  R@1 \d+\.\d%  R@5 \d+\.\d%  R@10 \d+\.\d%  MRR 0?\.?\d+\.?\d*  "
        r"accuracy \d+\.\d%  mAP \d+\.\d%",
        last,
    )


IMPORT_AGAIN = 'edge-cmcl data import --window 2 --step 1 --sensor "vibration=run2.csv:t_s:vx,vy,vz@{}"'


def test_another_unit_is_refused_by_training_update_and_use(example: Example) -> None:
    other_unit = IMPORT_AGAIN.format("128[m/s^2]") + " --out other_unit.safetensors"
    example.text(f"{other_unit} --sensor acoustic=mic.csv:t_s:level@128")
    for line in (
        "edge-cmcl update --modality acoustic --data other_unit.safetensors",
        "edge-cmcl classify other_unit.safetensors",
        "edge-cmcl embed other_unit.safetensors --out vectors2.safetensors",
        "edge-cmcl retrieve other_unit.safetensors other_unit.safetensors",
        "edge-cmcl evaluate --data other_unit.safetensors",
    ):
        error = example.refused(line, 3)
        assert (error["type"], error["expected"], error["got"]) == ("DataError", "g", "m/s^2")
        assert "@RATE[g]" in error["to_do"]
    project = (example.folder / "edge-cmcl.toml").read_text()
    (example.folder / "other.toml").write_text(project.replace('unit = "g"', 'unit = "m/s^2"'))
    error = example.refused("edge-cmcl train other.toml --run runs/other", 3)
    assert (error["expected"], error["got"]) == ("m/s^2", "g")
    assert not (example.folder / "vectors2.safetensors").exists()


def test_another_rate_is_warned_of_on_stderr_and_in_the_json(example: Example) -> None:
    done = example.run(IMPORT_AGAIN.format("64[g]") + " --out slow.safetensors --json")
    (warning,) = json.loads(done.stdout)["warnings"]
    assert "recorded at 128 Hz, asked for at 64 Hz" in warning
    assert f"warning: {warning}" in done.stderr
    done = example.run("edge-cmcl embed slow.safetensors --out slow_vectors.safetensors --json")
    (warning,) = json.loads(done.stdout)["warnings"]
    assert "slow.safetensors: vibration has a rate of 64 Hz, vibration of 128 Hz" in warning
    assert f"warning: {warning}" in done.stderr
    assert example.json("edge-cmcl embed new.safetensors --out vectors.safetensors")["warnings"] == []


def test_a_misspelt_sensor_is_told_apart_from_a_new_one(example: Example) -> None:
    error = example.refused("edge-cmcl update --modality acustic --data new.safetensors", 3)
    assert error["to_do"] == "did you mean acoustic?"
    error = example.refused("edge-cmcl update --modality text --data new.safetensors", 2)
    assert "text" not in error["expected"]
    example.text(
        "edge-cmcl data import --out typo.safetensors --window 2 --step 1 --sensor vibratoin=run2.csv:t_s:vx@128 "
        "--sensor acoustic=mic.csv:t_s:level@128"
    )
    done = example.run("edge-cmcl update --modality vibratoin --data typo.safetensors --dry-run --json")
    (warning,) = json.loads(done.stdout)["warnings"]
    assert "vibratoin is NEW to this device: did you mean vibration?" in warning
    assert warning in done.stderr


def test_what_training_cannot_use_is_told_with_what_to_do(example: Example) -> None:
    error = example.refused("edge-cmcl train --device gpu --run runs/other", 2)
    assert (error["expected"], error["got"]) == ("auto, cpu or cuda", "gpu")
    project = (example.folder / "edge-cmcl.toml").read_text()
    (example.folder / "other.toml").write_text(project.replace("vibration", "vibrations"))
    error = example.refused("edge-cmcl train other.toml --run runs/other", 3)
    assert ("no windows of vibrations" in error["message"], error["to_do"]) == (True, "did you mean vibration?")
    text_pair = '[[pair]]\nmodalities = ["vibration", "text"]\ntrain = ["base.safetensors"]\n[train]'
    (example.folder / "text.toml").write_text(project.replace("\n[train]", f"\n{text_pair}"))
    error = example.refused("edge-cmcl train text.toml --run runs/other", 3)
    assert "--label FILE:COLUMN" in error["to_do"]
    assert not (example.folder / "runs" / "other").exists()
