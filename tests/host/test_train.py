from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import EDGE_CMCL
from host_samples import Recordings, project_text, write_encoder, write_project

from edge_cmcl import tensors
from edge_cmcl.errors import ModelError, StorageError, UsageError
from edge_cmcl.host.export import export
from edge_cmcl.host.run import CHECKPOINT, METRICS, Run, load_run
from edge_cmcl.host.train import ADAPTERS_RESUME, ENCODERS_RESUME, pick_device, train

SMALL = {"width": 120, "embedding_dim": 32}
TWO_SENSORS = {"vibration": "universal", "current": "universal"}
PAIR = [("vibration", "current")]


def project(folder: Path, recordings: Recordings, encoders: dict[str, str], **options: Any) -> Path:
    pairs = options.pop("pairs", [tuple(encoders)])
    text = project_text(encoders, pairs, **{"train": "epochs = 2", **SMALL, **options})
    return write_project(folder, text, recordings.train, recordings.test)


def best_score(run: Run, stage: str = "adapters") -> float:
    history = run.metrics[stage]
    return float(history["epochs"][history["best_epoch"]]["validation_mrr"])


def checkpoint(run: Run) -> bytes:
    return (run.folder / CHECKPOINT).read_bytes()


def test_two_sensors_are_aligned_far_above_chance(recordings: Recordings, tmp_path: Path) -> None:
    run = train(project(tmp_path, recordings, TWO_SENSORS, **{"width": 600}), tmp_path / "run")
    (pair,) = run.metrics["pairs"]
    rows = pair["validation_rows"]
    chance = float((1 / np.arange(1, rows + 1)).mean())
    assert (pair["validation_from"], rows, pair["training_rows"], pair["fitted_rows"]) == (
        "training files", 50, 190, 240,
    )  # fmt: skip
    assert best_score(run) > 3 * chance
    assert {name: adapter.weight.shape for name, adapter in run.adapters.items()} == {
        "vibration": (32, 600),
        "current": (32, 600),
    }
    assert run.metrics["encoders"] is None
    assert load_run(tmp_path / "run").run_id == run.run_id
    assert not list((tmp_path / "run").glob("resume-*"))


def test_validation_files_are_judged_on_and_not_fitted(recordings: Recordings, tmp_path: Path) -> None:
    folder = project(tmp_path, recordings, TWO_SENSORS, pair='validation = ["test.safetensors"]')
    run = train(folder, tmp_path / "run")
    (pair,) = run.metrics["pairs"]
    assert (pair["validation_from"], pair["validation_rows"]) == ("validation files", 120)
    assert (pair["training_rows"], pair["fitted_rows"]) == (240, 240)
    assert {sketch.n for sketch in run.sketches.values()} == {240}


def test_labels_are_learned_as_text(small_run: Run) -> None:
    assert small_run.labels[:2] == ("healthy", "imbalance")
    assert small_run.adapters["text"].weight.shape == (32, 1024)
    assert small_run.adapters["text"].mean is None
    assert small_run.sketches["text"].n == 240
    assert small_run.sketches["vibration"].n == 480  # in both pairs


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(recordings: Recordings, tmp_path: Path) -> None:
    encoders = {"vibration": "universal", "shaft_speed": "conv"}
    folder = project(tmp_path, recordings, encoders)
    first, second = (train(folder, tmp_path / name, seed=1) for name in ("first", "second"))
    other = train(folder, tmp_path / "other", seed=2)
    assert checkpoint(first) == checkpoint(second)
    assert first.run_id == second.run_id != other.run_id
    assert checkpoint(first) != checkpoint(other)
    assert not np.array_equal(first.adapters["vibration"].weight, other.adapters["vibration"].weight)
    assert load_run(tmp_path / "other").project.train.seed == 2


def test_a_users_encoder_trains_and_is_kept_with_the_run(small_run: Run) -> None:
    assert best_score(small_run) > 0.15
    kept = small_run.encoder_file("pressure")
    assert kept.read_bytes() == (small_run.folder.parent / "mine.onnx").read_bytes()


def test_a_wrong_encoder_of_the_user_stops_training_before_it_starts(recordings: Recordings, tmp_path: Path) -> None:
    folder = project(tmp_path, recordings, {"current": "onnx:mine.onnx", "shaft_speed": "onnx:mine.onnx"})
    write_encoder(folder / "mine.onnx", channels=2)
    with pytest.raises(ModelError, match="takes another input"):
        train(folder, tmp_path / "run")
    assert not (tmp_path / "run" / METRICS).exists()


def test_a_finished_run_is_replaced_only_by_force(small_run: Run, recordings: Recordings, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run.folder, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="holds a finished run"):
        train(small_run.folder.parent, run, seed=5)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    train(small_run.folder.parent, run, seed=5, force=True)
    assert load_run(run).metrics["seed"] == 5
    assert (run / CHECKPOINT).read_bytes() != before[run / CHECKPOINT]


class CutOffError(Exception):
    """Stands for whatever ends a training: it is raised from the progress that training tells."""


def cut_off_at(epoch: int) -> Callable[[str, int, int], None]:
    def note(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("train adapters", epoch):
            raise CutOffError

    return note


def test_a_finished_run_stays_whole_until_the_one_that_replaces_it_is(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, run = small_run.folder.parent, Path(shutil.copytree(small_run.folder, tmp_path / "run"))
    (run / "notes.txt").write_text("the user's own")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def kept() -> bool:
        export(load_run(run), tmp_path / "bundle")
        return {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and "resume-" not in p.name} == before

    with pytest.raises(CutOffError):
        train(source, run, seed=5, force=True, progress=cut_off_at(2))
    assert kept()
    flush = os.fsync

    def full(descriptor: int) -> None:
        if f".{CHECKPOINT}." in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="cannot write"):
            train(source, run, seed=5)
    assert kept()
    epochs: list[int] = []
    train(source, run, seed=5, progress=lambda s, done, _: epochs.append(done) if s == "train adapters" else None)
    assert 1 not in epochs  # it went on where it was
    whole = train(source, tmp_path / "whole", seed=5)
    assert load_run(run).metrics["seed"] == 5
    assert (run / CHECKPOINT).read_bytes() == checkpoint(whole)
    assert (run / "notes.txt").is_file()
    assert not list(run.glob("resume-*"))
    with pytest.raises(UsageError, match="holds a finished run"):
        train(source, run, seed=5)


def test_force_forgets_the_progress_of_a_cut_off_run(recordings: Recordings, tmp_path: Path) -> None:
    folder = project(tmp_path, recordings, {"current": "onnx:mine.onnx", "shaft_speed": "onnx:mine.onnx"})
    write_encoder(folder / "mine.onnx")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ADAPTERS_RESUME).write_bytes(b"damaged")
    with pytest.raises(Exception, match="resume-adapters"):
        train(folder, tmp_path / "run")
    run = train(folder, tmp_path / "run", force=True)
    assert not list(run.folder.glob("resume-*"))


@pytest.mark.parametrize("wanted", ["cuda:99", "gpu", "nonsense"])
def test_a_device_that_is_not_there_is_a_usage_error(wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        pick_device(wanted)
    assert pick_device("cpu") == "cpu"


EPOCHS = 6


@pytest.fixture
def conv_project(recordings: Recordings, tmp_path: Path) -> Path:
    """Both encoders are trained, slowly enough that a kill can meet an epoch."""
    encoders = {"shaft_speed": "conv", "pressure": "conv"}
    train = f"epochs = {EPOCHS}\npatience = {EPOCHS}\nbatch_size = 8"
    return project(tmp_path, recordings, encoders, train=train)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "training ended before it had saved an epoch"
        assert time.monotonic() < deadline, "training saved no epoch in two minutes"
        time.sleep(0.01)


def epochs_saved(resume: Path) -> int:
    with tensors.TensorFile(resume) as file:
        return len(json.loads(file.metadata["history"])["epochs"]) - 1


@pytest.mark.slow
def test_a_killed_training_goes_on_where_it_was_and_ends_the_same(
    conv_project: Path, tmp_path: Path, cli_env: dict[str, str]
) -> None:
    """How it shows: the progress of the second run starts with the epoch that the kill met, not with the first."""
    run, resume = tmp_path / "run", tmp_path / "run" / ENCODERS_RESUME
    command = [EDGE_CMCL, "train", conv_project, "--run", run, "--device", "cpu"]
    with subprocess.Popen(command, env=cli_env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(resume, process)
        time.sleep(0.1)  # into the next epoch
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(ModelError, match="not a finished run"):
        load_run(run)
    saved = epochs_saved(resume)
    assert 1 <= saved < EPOCHS

    def train_and_watch(folder: Path) -> tuple[Run, list[int]]:
        epochs: list[int] = []

        def note(stage: str, done: int, total: int) -> None:
            if stage == "train encoders":
                epochs.append(done)

        return train(conv_project, folder, device="cpu", progress=note), epochs

    resumed, epochs = train_and_watch(run)
    whole, all_epochs = train_and_watch(tmp_path / "whole")
    assert all_epochs == list(range(1, EPOCHS + 1))
    assert epochs == list(range(saved + 1, EPOCHS + 1))
    assert checkpoint(resumed) == checkpoint(whole)
    assert resumed.metrics["encoders"] == whole.metrics["encoders"]
    assert not list(run.glob("resume-*"))


def test_progress_of_other_data_or_settings_is_not_continued(conv_project: Path, tmp_path: Path) -> None:
    def stop_after(epoch: int) -> Callable[[str, int, int], None]:
        def note(stage: str, done: int, total: int) -> None:
            if (stage, done) == ("train encoders", epoch):
                raise KeyboardInterrupt

        return note

    for seed in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            train(conv_project, tmp_path / "run", seed=seed, progress=stop_after(1))
        assert epochs_saved(tmp_path / "run" / ENCODERS_RESUME) == 1


def test_without_the_host_extra_train_and_export_say_what_to_install(
    run_cli: Any, base_bin: Callable[[str], Path], recordings: Recordings, tmp_path: Path
) -> None:
    folder = project(tmp_path / "project", recordings, TWO_SENSORS)
    program = base_bin("3.11") / "edge-cmcl"
    for arguments in (("train", folder), ("export", "run", "--out", "bundle.tar")):
        failed = run_cli(*arguments, "--json", program=program)
        error = failed.json["error"]
        assert (failed.code, error["type"], error["exit_code"]) == (7, "MissingExtraError", 7)
        assert error["got"] == "no torch, onnx, onnxscript"
        assert "pip install '.[host]'" in error["to_do"]
    assert not (folder / "runs").exists()


def test_an_encoder_that_depends_on_its_batch_is_not_exported_and_exits_with_4(
    run_cli: Any, recordings: Recordings, tmp_path: Path
) -> None:
    folder = project(tmp_path / "project", recordings, {"current": "onnx:mine.onnx", "pressure": "onnx:mine.onnx"})
    write_encoder(folder / "mine.onnx", batch_dependent=True)
    train(folder, tmp_path / "run")
    failed = run_cli("export", tmp_path / "run", "--out", "bundle.tar", "--json")
    error = failed.json["error"]
    assert (failed.code, error["type"], error["exit_code"]) == (4, "ParityError", 4)
    assert "answers differently from its source at batch 7" in error["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data-home", "project", "run", "tmp"]  # keys, no bundle
    assert list((tmp_path / "tmp").iterdir()) == []
