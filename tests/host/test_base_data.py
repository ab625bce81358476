from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_samples import project_text, write_project

from edge_cmcl.data import write_pairs
from edge_cmcl.errors import DataError, ProjectError
from edge_cmcl.host.base_data import PairData, load_pairs
from edge_cmcl.project import load_project

N = 40


def recording(path: Path, n: int = N, **columns: Any) -> Path:
    """Windows whose values are their row's number, of current and pressure."""
    rows = np.arange(n, dtype=np.float32)[:, None, None]
    shape = (n, 16, 1)
    windows = {"current": np.broadcast_to(rows, shape), "pressure": np.broadcast_to(rows + 100, shape)}
    write_pairs(path, {name: np.ascontiguousarray(values) for name, values in windows.items()}, **columns)
    return path


def load(folder: Path, pairs: list[tuple[str, str]] | None = None, *, pair: str = "", seed: int = 0) -> list[PairData]:
    wanted = pairs or [("current", "pressure")]
    encoders = {name: "universal" for names in wanted for name in names if name != "text"}
    return load_pairs(load_project(write_project(folder, project_text(encoders, wanted, pair=pair))), seed)


def test_without_validation_files_one_of_five_folds_of_whole_groups_is_cut_out(tmp_path: Path) -> None:
    recording(tmp_path / "train.safetensors", groups=np.repeat(np.arange(8), 5))
    held_out = set()
    for seed in range(5):
        (pair,) = load(tmp_path, seed=seed)
        assert pair.groups is not None
        assert pair.carved
        assert sorted([*pair.training, *pair.validation]) == list(range(N))
        assert not set(pair.groups[pair.training]) & set(pair.groups[pair.validation])
        held_out |= set(pair.validation.tolist())
    assert held_out == set(range(N))


def test_without_groups_a_block_of_time_is_cut_out_with_a_gap_beside_it(tmp_path: Path) -> None:
    recording(tmp_path / "train.safetensors")
    (pair,) = load(tmp_path, seed=1)
    assert pair.validation.tolist() == list(range(8, 16))
    assert pair.training.tolist() == [*range(7), *range(17, N)]


def test_validation_files_are_taken_whole_and_the_training_files_too(tmp_path: Path) -> None:
    recording(tmp_path / "train.safetensors")
    recording(tmp_path / "held_out.safetensors", 20)
    (pair,) = load(tmp_path, pair='validation = ["held_out.safetensors"]')
    assert not pair.carved
    assert pair.training.tolist() == list(range(N))
    assert pair.validation.tolist() == list(range(N, N + 20))
    assert [part.pairs.path.name for part in pair.parts] == ["train.safetensors", "held_out.safetensors"]


def test_rows_that_lack_one_of_the_two_are_left_out(tmp_path: Path) -> None:
    there = np.arange(N) % 4 != 0
    recording(tmp_path / "train.safetensors", valid={"pressure": there})
    (pair,) = load(tmp_path)
    assert pair.parts[0].rows.tolist() == np.flatnonzero(there).tolist()
    assert len(pair.ids) == there.sum()
    assert len(set(pair.ids.tolist())) == len(pair.ids)


def test_labels_of_several_files_are_matched_by_name_and_unlabelled_rows_are_left_out(tmp_path: Path) -> None:
    first, second = np.arange(N) % 2, np.arange(20) % 2
    first[0] = -1
    recording(tmp_path / "train.safetensors", labels=first, label_names=["idle", "busy"])
    recording(tmp_path / "held_out.safetensors", 20, labels=second, label_names=["busy", "off"])
    pairs = [("current", "text"), ("current", "pressure")]
    text, sensors = load(tmp_path, pairs, pair='validation = ["held_out.safetensors"]')
    assert text.labels == ("idle", "busy", "off")
    assert text.ids.tolist() == [*first[1:], *np.where(second == 0, 1, 2)]
    assert len(sensors.ids) == N + 20


def test_tensors_may_have_other_names_than_modalities(tmp_path: Path) -> None:
    recording(tmp_path / "train.safetensors")
    (pair,) = load(tmp_path, [("acoustic", "shaft_speed")], pair='tensors = ["pressure", "current"]')
    assert pair.modalities == ("acoustic", "shaft_speed")
    assert pair.parts[0].tensors == ("pressure", "current")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"train\.safetensors"):
        load(tmp_path)


def test_channels_other_than_declared_are_refused(tmp_path: Path) -> None:
    recording(tmp_path / "train.safetensors")
    with pytest.raises(DataError, match="another shape than") as raised:
        load(tmp_path, [("vibration", "current")], pair='tensors = ["pressure", "current"]')
    assert (raised.value.expected, raised.value.got) == ("(3,)", "(1,)")


def test_a_file_without_the_modality_is_refused(tmp_path: Path) -> None:
    recording(tmp_path / "train.safetensors")
    with pytest.raises(DataError, match="no modality 'acoustic'"):
        load(tmp_path, [("current", "acoustic")])


def test_a_file_without_labels_cannot_train_text(tmp_path: Path) -> None:
    recording(tmp_path / "train.safetensors")
    with pytest.raises(DataError, match="no labels"):
        load(tmp_path, [("current", "text")])


@pytest.mark.parametrize("part", ["training", "validation"])
def test_too_few_rows_with_both_sides_are_refused(tmp_path: Path, part: str) -> None:
    few = {"pressure": np.arange(N) < 15}
    recording(tmp_path / "train.safetensors", valid=few if part == "training" else None)
    recording(tmp_path / "held_out.safetensors", valid=few if part == "validation" else None)
    with pytest.raises(DataError, match=f"the {part} files of pair current-pressure") as raised:
        load(tmp_path, pair='validation = ["held_out.safetensors"]')
    assert (raised.value.expected, raised.value.got) == ("at least 16", "15")
