"""`edge-cmcl init --from`: a project file filled in from pairs files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_cmcl.data import write_pairs
from edge_cmcl.host.base_data import load_pairs
from edge_cmcl.project import load_project

N = 40
RNG = np.random.default_rng(0)


def write(path: Path, *sensors: str, labelled: bool = False, **changes: Any) -> None:
    shapes = {"acc": (64, 3), "camera": (20, 6, 8), "current": (32, 1)}
    sizes = {"acc": 400.0, "camera": 1.0, "current": 1.0}
    windows = {s: (sizes[s] * RNG.standard_normal((N, *shapes[s]))).astype(np.float32) for s in sensors}
    given: dict[str, Any] = {
        "rate_hz": {"acc": 32.0, "camera": 10.0, "current": 16.0},
        "units": {"acc": 'counts "raw"', "current": "A/10"},
    }
    given = {key: {s: v for s, v in values.items() if s in sensors} for key, values in (given | changes).items()}
    if labelled:
        given |= {"labels": np.arange(N) % 3 - 1, "label_names": ["on", "off"]}
    write_pairs(path, windows, **given)


def test_sensors_and_pairs_are_filled_in_so_that_the_project_can_be_trained(run_cli: Any, tmp_path: Path) -> None:
    for folder in ("data", "press"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "data" / "a.safetensors", "acc", "camera", "current", labelled=True)
    done = run_cli("init", "press", "--from", "data/a.safetensors", "--name", "press-4", "--json")
    assert (done.code, done.json) == (0, {"project": "press/edge-cmcl.toml", "warnings": []})
    project = load_project(tmp_path / "press")
    assert project.name == "press-4"
    acc, camera, current = (project.modality[name] for name in ("acc", "camera", "current"))
    assert (acc.channels, acc.rate_hz, acc.window_s, acc.unit, acc.scale) == (3, 32.0, 2.0, 'counts "raw"', 400.0)
    assert (camera.frame, camera.window_shape, camera.unit, camera.scale) == ((6, 8), (20, 6, 8), "", 1.0)
    assert (current.channels, current.unit) == (1, "A/10")
    assert [pair.name for pair in project.pair] == ["acc-camera", "acc-current", "camera-current", "acc-text"]
    assert {pair.train for pair in project.pair} == {("../data/a.safetensors",)}
    assert [len(pair.training) + len(pair.validation) > 20 for pair in load_pairs(project, 0)] == [True] * 4


def test_several_files_are_joined_where_they_hold_both_sides(run_cli: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", "acc", "camera")
    write(tmp_path / "b.safetensors", "acc", "current")
    done = run_cli("init", "--from", "a.safetensors", "--from", "b.safetensors")
    assert done.code == 0, done.stderr
    assert "with the sensors of a.safetensors, b.safetensors" in done.stdout
    assert {pair.name: pair.train for pair in load_project(tmp_path).pair} == {
        "acc-camera": ("a.safetensors",),
        "acc-current": ("b.safetensors",),
    }


def test_a_rate_that_is_not_known_is_left_to_the_user(run_cli: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", "acc", "current", rate_hz={"acc": 32.0})
    assert run_cli("init", "--from", "a.safetensors").code == 0
    assert load_project(tmp_path).modality["current"].window_shape == (32, 1)
    assert "does not say its rate: correct both" in (tmp_path / "edge-cmcl.toml").read_text()


@pytest.mark.parametrize(
    ("sensors", "name", "changes", "code", "message"),
    [
        (("acc",), "ok", {}, 3, "acc: nothing to train with"),
        (("acc", "current"), "ok", {"units": {"acc": "g"}}, 3, "another unit"),
        (("acc", "current"), "a b", {}, 2, "'a b' cannot name a project"),
    ],
    ids=["one sensor", "two units", "name"],
)
def test_what_cannot_be_a_project_is_refused_and_nothing_written(
    run_cli: Any, tmp_path: Path, sensors: tuple[str, ...], name: str, changes: dict[str, Any], code: int, message: str
) -> None:
    write(tmp_path / "a.safetensors", *sensors)
    write(tmp_path / "b.safetensors", *sensors, **changes)
    failed = run_cli("init", "--name", name, "--from", "a.safetensors", "--from", "b.safetensors", "--json")
    assert failed.code == code, failed.stdout
    assert message in failed.json["error"]["message"]
    assert not (tmp_path / "edge-cmcl.toml").exists()
