from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_cmcl import tensors
from edge_cmcl.errors import ModelError, ProjectError
from edge_cmcl.host.run import CHECKPOINT, FORMAT, METRICS, PROJECT, Run, load_run, save_run


@pytest.fixture
def folder(small_run: Run, tmp_path: Path) -> Path:
    """A copy of a finished run, this test's own."""
    return Path(shutil.copytree(small_run.folder, tmp_path / "run"))


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray], dict[str, str]], object]) -> None:
    with tensors.TensorFile(folder / CHECKPOINT) as file:
        stored = {name: file.read_whole(name) for name in file.names}
        metadata = dict(file.metadata)
    change(stored, metadata)
    tensors.write(folder / CHECKPOINT, stored, metadata)


def test_a_run_comes_back_as_it_was_saved(small_run: Run, folder: Path) -> None:
    loaded = load_run(folder)
    assert loaded.project.model_dump() == small_run.project.model_dump()
    assert (loaded.run_id, loaded.created, loaded.labels) == (small_run.run_id, small_run.created, small_run.labels)
    assert loaded.metrics == json.loads(json.dumps(small_run.metrics))
    assert loaded.adapters.keys() == loaded.sketches.keys() == {"vibration", "pressure", "text"}
    for name, adapter in small_run.adapters.items():
        assert np.array_equal(loaded.adapters[name].weight, adapter.weight)
        assert np.array_equal(loaded.sketches[name].rows, small_run.sketches[name].rows)
        assert (loaded.adapters[name].mean is None) == (name == "text")
    assert loaded.sketches["text"].n == small_run.sketches["text"].n
    assert loaded.encoder_file("pressure").is_file()


def test_the_checkpoint_holds_nothing_of_the_clock(small_run: Run, folder: Path) -> None:
    before = (folder / CHECKPOINT).read_bytes()
    save_run(load_run(folder))
    assert (folder / CHECKPOINT).read_bytes() == before
    assert small_run.created.encode() not in before


def test_a_run_trained_with_another_seed_says_so(folder: Path) -> None:
    metrics = json.loads((folder / METRICS).read_bytes())
    (folder / METRICS).write_text(json.dumps(metrics | {"seed": 7}))
    assert load_run(folder).project.train.seed == 7


@pytest.mark.parametrize("left", ["nothing", "project", "checkpoint"])
def test_an_unfinished_run_is_not_a_run(folder: Path, left: str) -> None:
    (folder / METRICS).unlink()
    if left != "checkpoint":
        (folder / CHECKPOINT).unlink()
    if left == "nothing":
        (folder / PROJECT).unlink()
    with pytest.raises(ModelError, match="is not a finished run") as raised:
        load_run(folder)
    assert raised.value.got == ("another folder, or none" if left == "nothing" else "an unfinished run")


def truncate(folder: Path) -> None:
    path = folder / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES = {
    "no checkpoint": lambda folder: (folder / CHECKPOINT).unlink(),
    "truncated": truncate,
    "a terabyte": lambda folder: (folder / CHECKPOINT).write_bytes((1 << 40).to_bytes(8, "little") + b"{}"),
    "no metrics": lambda folder: (folder / METRICS).write_text("{"),
    "empty metrics": lambda folder: (folder / METRICS).write_text("{}"),
    "adapter gone": lambda folder: rewrite(folder, lambda stored, _: stored.pop("adapter.vibration.weight")),
    "statistics gone": lambda folder: rewrite(folder, lambda stored, _: stored.pop("adapter.pressure.mean")),
    "sketch gone": lambda folder: rewrite(folder, lambda stored, _: stored.pop("sketch.text.figures")),
    "labels gone": lambda folder: rewrite(folder, lambda _, metadata: metadata.pop("labels")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused(folder: Path, damage: str) -> None:
    DAMAGES[damage](folder)
    with pytest.raises(ModelError) as raised:
        load_run(folder)
    assert "train it again" in raised.value.hint


@pytest.mark.parametrize(("key", "value"), [("version", "2"), ("format", "edge-cmcl/pairs")])
def test_a_run_of_another_format_or_version_is_refused(folder: Path, key: str, value: str) -> None:
    rewrite(folder, lambda _, metadata: metadata.update({key: value}))
    with pytest.raises(ModelError, match="not a checkpoint that this edge-cmcl reads") as raised:
        load_run(folder)
    assert raised.value.expected == f"{FORMAT} 1"
    assert value in raised.value.got


def test_a_damaged_copy_of_the_project_is_named(folder: Path) -> None:
    (folder / PROJECT).write_text("name = ")
    with pytest.raises(ProjectError, match=PROJECT):
        load_run(folder)


@pytest.mark.parametrize(
    ("before", "after"), [("vibration", "acoustic"), ("width = 120", "width = 240"), ("dim = 32", "dim = 64")]
)
def test_a_checkpoint_that_does_not_fit_its_project_is_refused(folder: Path, before: str, after: str) -> None:
    text = (folder / PROJECT).read_text()
    assert before in text
    (folder / PROJECT).write_text(text.replace(before, after))
    with pytest.raises(ModelError, match="does not hold one whole run") as raised:
        load_run(folder)
    assert raised.value.got
