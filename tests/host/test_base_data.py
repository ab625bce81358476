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


def moments(pair: PairData, rows: np.ndarray) -> set[tuple[Path, int]]:
    """The moments (file, row of the file) that are behind `rows` of a pair."""
    every = [(part.pairs.path, int(row)) for part in pair.parts for row in part.rows]
    return {every[row] for row in rows}


def with_text(path: Path, **columns: Any) -> None:
    recording(path, labels=np.arange(N) % 2, label_names=["idle", "busy"], **columns)


PAIRS = [("current", "pressure"), ("current", "text"), ("pressure", "text")]


@pytest.mark.parametrize("groups", [None, np.repeat([3, 1, 4, 1, 5, 9, 2, 6], 5), np.zeros(N, np.int64)])
@pytest.mark.parametrize("seed", range(5))
def test_no_moment_that_one_pair_holds_out_trains_another(tmp_path: Path, groups: Any, seed: int) -> None:
    there = np.arange(N) % 3 != 0
    with_text(tmp_path / "train.safetensors", groups=groups, valid={"pressure": there})
    found = load(tmp_path, PAIRS, seed=seed)
    training = set().union(*(moments(pair, pair.training) for pair in found))
    validation = set().union(*(moments(pair, pair.validation) for pair in found))
    assert not training & validation
    for pair in found:
        assert 3 <= len(pair.validation) <= 20
        assert len(pair.training) >= 8


def test_a_group_is_held_out_of_every_file(tmp_path: Path) -> None:
    with_text(tmp_path / "train.safetensors", groups=np.repeat(np.arange(8), 5))
    with_text(tmp_path / "more.safetensors", groups=np.repeat(np.arange(8)[::-1], 5))
    text = project_text({"current": "universal", "pressure": "universal"}, PAIRS)
    text = text.replace('["train.safetensors"]', '["train.safetensors", "more.safetensors"]', 1)
    sides: list[set[int]] = [set(), set()]
    for pair in load_pairs(load_project(write_project(tmp_path, text)), 0):
        assert pair.groups is not None
        sides[0] |= set(pair.groups[pair.training].tolist())
        sides[1] |= set(pair.groups[pair.validation].tolist())
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 2


def test_a_pair_with_validation_files_does_not_train_on_what_another_holds_out(tmp_path: Path) -> None:
    with_text(tmp_path / "train.safetensors")
    recording(tmp_path / "held_out.safetensors", 20)
    text = project_text({"current": "universal", "pressure": "universal"}, PAIRS[:2])
    text = text.replace("train = [", 'validation = ["held_out.safetensors"]\ntrain = [', 1)
    first, second = load_pairs(load_project(write_project(tmp_path, text)), 0)
    assert (first.carved, second.carved) == (False, True)
    assert not moments(first, first.training) & moments(second, second.validation)
    assert len(first.validation) == 20


def test_pairs_that_occur_in_another_part_of_the_file_each_are_all_validated(tmp_path: Path) -> None:
    first = np.arange(N) < N // 2
    valid = {"current": first, "pressure": ~first}
    with_text(tmp_path / "train.safetensors", valid=valid, groups=np.where(first, 1, 2))
    for pair in load(tmp_path, PAIRS[1:]):
        assert len(pair.validation) >= 3
        assert len(pair.training) >= 10


@pytest.mark.filterwarnings("ignore::edge_cmcl.device.fits.FitWarning")
def test_windows_that_overlap_validation_do_not_train(tmp_path: Path) -> None:
    time = 0.25 * np.arange(N)
    recording(tmp_path / "train.safetensors", time=time, rate_hz={"current": 16, "pressure": 32})
    (pair,) = load(tmp_path, seed=2)
    assert pair.validation.tolist() == list(range(16, 24))
    assert pair.training.tolist() == [*range(13), *range(27, N)]


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
    with pytest.raises(DataError, match="no windows of acoustic"):
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
