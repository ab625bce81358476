from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from compare_samples import write_stream

from edge_cmcl.data.corruption import Corruption
from edge_cmcl.host.compare import Request, compare, search
from edge_cmcl.host.compare.best import load as load_best
from edge_cmcl.host.strategies import Settings
from edge_cmcl.report.results import load

EDGE_CMCL = Path(sys.executable).with_name("edge-cmcl")


@pytest.mark.slow
def test_one_command_compares_and_goes_on_where_it_stopped(folder: Path) -> None:
    stream = write_stream(folder, [("vibration", "current"), ("vibration", "pressure"), ("current", "text")])
    arguments = [EDGE_CMCL, "compare", stream, "--out", folder / "out", "--strategies", "vanilla,joint,ours"]
    done = subprocess.run([*arguments, "--seeds", "1", "--epochs", "2", "--json"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    result = load(folder / "out")
    assert json.loads(done.stdout)["stream"]["name"] == "small"
    assert [cell.strategy for cell in result.cells] == ["joint", "vanilla", "ours"]
    joint, vanilla, ours = result.cells
    assert [row.count(None) for row in vanilla.matrices["recall_at_10"]] == [2, 1, 1]  # the last pair is one of labels
    assert vanilla.matrices["accuracy"][-1][2] is not None
    assert joint.stored.raw_samples == 3 * 60
    assert ours.stored.raw_samples == 0
    assert ours.stored.details["sketches"] > 0
    assert len(ours.seconds.steps) == 3
    assert vanilla.certificate is None
    assert ours.certificate is not None
    assert {bound.modality for bound in ours.certificate} == {"vibration", "current", "pressure", "text"}
    cells = {path: path.stat().st_mtime_ns for path in (folder / "out" / "cells").iterdir()}
    gone = next(path for path in cells if path.name.startswith("vanilla"))
    gone.unlink()
    again = subprocess.run([*arguments, "--seeds", "1", "--epochs", "2"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    after = {path: path.stat().st_mtime_ns for path in (folder / "out" / "cells").iterdir()}
    assert after.keys() == cells.keys()
    assert [path for path in cells if after[path] != cells[path]] == [gone]
    assert "edge-cmcl report" in again.stdout
    assert len(list((folder / "out" / "matrices").glob("*.csv"))) == 3 * 6


@pytest.mark.slow
def test_a_stream_of_one_step_and_one_of_the_same_pair_twice_work(folder: Path) -> None:
    twice = [("vibration", "current"), ("vibration", "current")]
    for steps, strategies in (([("current", "pressure")], ("individual", "gem")), (twice, ("der", "ours"))):
        stream = write_stream(folder, steps)
        result = compare(Request(stream, folder / f"out-{len(steps)}", strategies, seeds=1, epochs=2))
        assert all(score is not None for cell in result.cells for score in cell.matrices["mrr"][-1])


def test_a_broken_file_ends_the_command_before_any_training(folder: Path) -> None:
    stream = write_stream(folder, [("vibration", "current")])
    (folder / "train.safetensors").write_bytes(b"not a pairs file")
    arguments = [EDGE_CMCL, "compare", stream, "--out", folder / "out"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "train.safetensors" in done.stderr
    assert not (folder / "out" / "cells").exists()


def test_an_unknown_strategy_is_a_usage_error(folder: Path) -> None:
    stream = write_stream(folder, [("vibration", "current")])
    arguments = [EDGE_CMCL, "compare", stream, "--out", folder / "out", "--strategies", "vanila"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "vanilla" in done.stderr


@pytest.mark.slow
def test_the_search_writes_a_file_that_compare_reads(folder: Path) -> None:
    stream = write_stream(folder, [("vibration", "current"), ("vibration", "pressure")])
    request = Request(stream, folder / "out", ("ewc", "ours"), seeds=1, epochs=1)
    chosen = search(request, folder / "best.json")
    assert set(chosen) == {"ewc"}  # ours chooses for itself
    assert load_best(folder / "best.json") == chosen
    tried = json.loads((folder / "best.json").read_bytes())["tried"]
    assert max(t["score"] for t in tried if t["strategy"] == "ewc") == pytest.approx(
        next(t["score"] for t in tried if t["strategy"] == "ewc" and t["settings"] == chosen["ewc"])
    )
    result = compare(Request(stream, folder / "out", ("ewc",), seeds=1, epochs=1, best=folder / "best.json"))
    assert result.cells[0].settings["learning_rate"] == chosen["ewc"]["learning_rate"]
    base = Settings().with_(**chosen["ewc"])
    assert result.cells[0].settings["start"] == base.start


def test_corruption_is_stated_and_changes_the_result(folder: Path) -> None:
    stream = write_stream(folder, [("vibration", "current")])
    plain = compare(Request(stream, folder / "plain", ("vanilla",), seeds=1, epochs=1))
    noisy = Request(stream, folder / "noisy", ("vanilla",), seeds=1, epochs=1, corruption=Corruption(noise=-20.0))
    result = compare(noisy)
    assert result.corruption is not None
    assert result.corruption.noise_snr_db == -20.0
    assert result.cells[0].matrices["mrr"] != plain.cells[0].matrices["mrr"]
