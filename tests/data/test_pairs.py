from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cmcl import tensors
from edge_cmcl.data.pairs import FORMAT, VERSION, open_pairs, write_pairs
from edge_cmcl.errors import DataError

Change = Callable[[dict[str, Any], dict[str, str]], None]


def windows(n: int = 5, samples: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, samples, channels)).astype(np.float32)


def parts() -> tuple[dict[str, Any], dict[str, str]]:
    arrays = {
        "acc": windows(),
        "depth": np.zeros((5, 16, 2, 2), np.float32),
        "label": np.array([0, 1, -1, 0, 1]),
        "group": np.arange(5),
        "time": np.arange(5.0),
        "valid.acc": np.array([1, 0, 1, 1, 1], np.uint8),
    }
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "labels": '["walk", "run"]',
        "rate_hz": '{"acc": 50}',
        "units": '{"acc": "g"}',
        "source": '"a test"',
    }
    return arrays, metadata


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    acc, depth = windows(), np.ones((5, 20, 4, 6), np.float32)
    write_pairs(
        path,
        {"depth": depth, "acc": acc},
        labels=[0, 1, -1, 0, 1],
        label_names=["walk", "run"],
        groups=[7, 7, 8, 8, 9],
        time=[0, 0.5, 0, 0.5, 10],
        valid={"acc": [True, False, True, True, True]},
        rate_hz={"acc": 50},
        units={"acc": "g"},
        source="a test",
    )
    with open_pairs(path) as pairs:
        assert (pairs.n, pairs.modalities, pairs.shape("depth")) == (5, ("acc", "depth"), (20, 4, 6))
        assert pairs.labels is not None
        assert pairs.labels.tolist() == [0, 1, -1, 0, 1]
        assert pairs.label_names == ("walk", "run")
        assert pairs.groups is not None
        assert pairs.groups.tolist() == [7, 7, 8, 8, 9]
        assert pairs.time is not None
        assert pairs.time.tolist() == [0.0, 0.5, 0.0, 0.5, 10.0]
        assert (pairs.window_s("acc"), pairs.window_s("depth")) == (16 / 50, None)
        assert pairs.longest_window_s(["acc", "depth", "text"]) == 16 / 50
        assert pairs.longest_window_s(["depth"]) is None
        assert pairs.valid("acc").tolist() == [True, False, True, True, True]
        assert pairs.valid("depth").all()
        assert (pairs.rate_hz, pairs.units, pairs.source) == ({"acc": 50.0}, {"acc": "g"}, "a test")
        np.testing.assert_array_equal(pairs.read("acc")[2:], acc[2:])
        np.testing.assert_array_equal(pairs.read("depth"), depth)


def test_a_file_of_one_sensor_and_nothing_else_is_legal(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.safetensors", {"acc": windows()})
    with open_pairs(tmp_path / "a.safetensors") as pairs:
        assert pairs.labels is None
        assert pairs.groups is None
        assert pairs.time is None
        assert (pairs.label_names, pairs.rate_hz, pairs.units, pairs.source) == ((), {}, {}, "")


@given(start=st.integers(-3, 8), stop=st.none() | st.integers(-3, 8))
def test_rows_are_read_as_slices(tmp_path_factory: pytest.TempPathFactory, start: int, stop: int | None) -> None:
    path = tmp_path_factory.getbasetemp() / "slices.safetensors"
    acc = windows()
    if not path.exists():
        write_pairs(path, {"acc": acc})
    with open_pairs(path) as pairs:
        rows = pairs.read("acc", start, stop)
    np.testing.assert_array_equal(rows, acc[start:stop])
    assert rows.flags.c_contiguous
    assert rows.shape[1:] == (16, 3)


def test_windows_that_are_not_contiguous_are_written_right(tmp_path: Path) -> None:
    turned = np.ascontiguousarray(windows().transpose(0, 2, 1)).transpose(0, 2, 1)
    assert not turned.flags.c_contiguous
    write_pairs(tmp_path / "a.safetensors", {"acc": turned})
    with open_pairs(tmp_path / "a.safetensors") as pairs:
        np.testing.assert_array_equal(pairs.read("acc"), turned)


def test_rows_without_the_sensor_are_zeros_whatever_the_file_holds(tmp_path: Path) -> None:
    acc = windows()
    acc[1] = np.nan
    write_pairs(tmp_path / "a.safetensors", {"acc": acc}, valid={"acc": [1, 0, 1, 1, 1]})
    with open_pairs(tmp_path / "a.safetensors") as pairs:
        assert not pairs.read("acc")[1].any()


def test_nan_in_a_valid_row_names_file_modality_and_row(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    arrays, metadata = parts()
    arrays["acc"][3, 2, 0] = np.inf
    tensors.write(path, arrays, metadata)
    with open_pairs(path) as pairs, pytest.raises(DataError, match=r"a\.safetensors: row 3 of 'acc'"):
        pairs.read("acc", 2, 5)
    with pytest.raises(DataError, match="row 3 of 'acc'"):
        write_pairs(path, {"acc": arrays["acc"]})


def test_a_file_of_nan_only_is_refused_when_read(tmp_path: Path) -> None:
    arrays, metadata = parts()
    arrays["acc"][:] = np.nan
    tensors.write(tmp_path / "a.safetensors", arrays, metadata)
    with open_pairs(tmp_path / "a.safetensors") as pairs, pytest.raises(DataError, match="48 of 48 values"):
        pairs.read("acc")


def test_large_finite_values_are_not_taken_for_infinity(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.safetensors", {"acc": np.full((2, 16, 3), 3e38, np.float32)})
    with open_pairs(tmp_path / "a.safetensors") as pairs:
        assert (pairs.read("acc") == np.float32(3e38)).all()


BROKEN: dict[str, tuple[Change, str]] = {
    "wrong rank": (lambda a, m: a.update(acc=np.zeros((5, 16), np.float32)), "wrong rank"),
    "rank five": (lambda a, m: a.update(acc=np.zeros((5, 16, 2, 2, 2), np.float32)), "wrong rank"),
    "wrong dtype": (lambda a, m: a.update(acc=np.zeros((5, 16, 3))), "wrong dtype"),
    "unequal n": (lambda a, m: a.update(acc=windows(4)), "window counts differ"),
    "no rows": (lambda a, m: a.update(acc=windows(0)), "too small"),
    "no channels": (lambda a, m: a.update(acc=windows(5, 16, 0)), "too small"),
    "short windows": (lambda a, m: a.update(acc=windows(5, 15)), "too small"),
    "no modality": (lambda a, m: [a.pop(k) for k in ("acc", "depth", "valid.acc")], "holds no modality"),
    "reserved name": (lambda a, m: a.update(text=windows()), "cannot be called 'text'"),
    "odd name": (lambda a, m: a.update({"Acc-1": windows()}), "cannot name a modality"),
    "long name": (lambda a, m: a.update({"a" * 33: windows()}), "cannot name a modality"),
    "label dtype": (lambda a, m: a.update(label=np.zeros(5, np.int32)), "'label' has the wrong"),
    "label shape": (lambda a, m: a.update(label=np.zeros(4, np.int64)), "'label' has the wrong"),
    "label range": (lambda a, m: a.update(label=np.full(5, 2)), "a label has no name"),
    "label below": (lambda a, m: a.update(label=np.full(5, -2)), "a label has no name"),
    "labels without names": (lambda a, m: m.pop("labels"), "labels without names"),
    "group shape": (lambda a, m: a.update(group=np.zeros((5, 1), np.int64)), "'group' has the wrong"),
    "time dtype": (lambda a, m: a.update(time=np.zeros(5, np.float32)), "'time' has the wrong"),
    "time shape": (lambda a, m: a.update(time=np.zeros((5, 2))), "'time' has the wrong"),
    "time nan": (lambda a, m: a.update(time=np.array([0, 1, np.nan, 3, 4])), "row 2 of 'time'"),
    "reserved time": (lambda a, m: a.update(time=windows()), "'time' has the wrong"),
    "valid dtype": (lambda a, m: a.update({"valid.acc": np.ones(5, np.int64)}), "'valid.acc' has the wrong"),
    "valid value": (lambda a, m: a.update({"valid.acc": np.full(5, 2, np.uint8)}), "'valid.acc' is wrong"),
    "valid stranger": (lambda a, m: a.update({"valid.gyro": np.ones(5, np.uint8)}), "belongs to no modality"),
    "format": (lambda a, m: m.update(format="other"), "not a pairs file"),
    "no format": (lambda a, m: m.pop("format"), "not a pairs file"),
    "version": (lambda a, m: m.update(version="2"), "another format version"),
    "bad json": (lambda a, m: m.update(labels="[walk"), "'labels' is not JSON"),
    "deep json": (lambda a, m: m.update(labels="[" * 100_000), "'labels' is not JSON"),
    "labels type": (lambda a, m: m.update(labels='{"walk": 0}'), "'labels' is wrong"),
    "label names twice": (lambda a, m: m.update(labels='["walk", "walk"]'), "repeats a name"),
    "rate type": (lambda a, m: m.update(rate_hz='{"acc": true}'), "rate_hz of 'acc' is wrong"),
    "rate zero": (lambda a, m: m.update(rate_hz='{"acc": 0}'), "rate_hz of 'acc' is wrong"),
    "rate nan": (lambda a, m: m.update(rate_hz='{"acc": NaN}'), "rate_hz of 'acc' is wrong"),
    "rate huge": (lambda a, m: m.update(rate_hz='{"acc": 1' + "0" * 400 + "}"), "rate_hz of 'acc' is wrong"),
    "rate stranger": (lambda a, m: m.update(rate_hz='{"gyro": 50}'), "'rate_hz' is wrong"),
    "unit type": (lambda a, m: m.update(units='{"acc": 1}'), "unit of 'acc' is wrong"),
    "source type": (lambda a, m: m.update(source="[]"), "'source' is wrong"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_when_opened(tmp_path: Path, name: str) -> None:
    change, message = BROKEN[name]
    arrays, metadata = parts()
    tensors.write(tmp_path / "a.safetensors", arrays, metadata)
    open_pairs(tmp_path / "a.safetensors").close()
    change(arrays, metadata)
    tensors.write(tmp_path / "a.safetensors", arrays, metadata)
    with pytest.raises(DataError, match=message) as caught:
        open_pairs(tmp_path / "a.safetensors")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"windows": {"acc": windows().astype(np.float64)}}, "wrong dtype"),
        ({"windows": {"label": windows()}}, "cannot be called 'label'"),
        ({"windows": {}}, "holds no modality"),
        ({"labels": [0, 0, 0, 0, 1], "label_names": ["walk"]}, "a label has no name"),
        ({"labels": [0.0] * 5, "label_names": ["walk"]}, "expected: integers"),
        ({"windows": {"time": windows()}}, "cannot be called 'time'"),
        ({"time": [0, 1, 2, 3, np.inf]}, "row 4 of 'time'"),
        ({"time": [0, 1, 2, 3]}, "'time' has the wrong"),
        ({"time": ["now"] * 5}, "expected: seconds"),
        ({"valid": {"gyro": [1] * 5}}, "belongs to no modality"),
        ({"valid": {"acc": [2] * 5}}, "'valid.acc' is wrong"),
        ({"rate_hz": {"acc": -1}}, "rate_hz of 'acc' is wrong"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(DataError, match=message):
        write_pairs(path, **{"windows": {"acc": windows()}, **arguments})
    assert not path.exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors.write(path, *parts())
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="cannot read"):
        open_pairs(path)


@pytest.mark.parametrize("claim", ["header", "tensor"])
def test_a_file_that_claims_a_terabyte_is_refused(tmp_path: Path, claim: str) -> None:
    path = tmp_path / "a.safetensors"
    entry = {"dtype": "F32", "shape": [2**30, 16, 16], "data_offsets": [0, 2**40]}
    header = json.dumps({"acc": entry, "__metadata__": parts()[1]}).encode()
    path.write_bytes(struct.pack("<Q", 2**40 if claim == "header" else len(header)) + header)
    with pytest.raises(DataError, match="cannot read"):
        open_pairs(path)


def test_a_missing_file_and_a_missing_modality_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_pairs(tmp_path / "none.safetensors")
    tensors.write(tmp_path / "a.safetensors", *parts())
    with open_pairs(tmp_path / "a.safetensors") as pairs, pytest.raises(DataError, match="one of acc, depth"):
        pairs.read("gyro")


@pytest.mark.parametrize("content", [b"", b"t,x\n1,2\n" * 20, b"PK\x03\x04" + bytes(100)], ids=["empty", "CSV", "zip"])
def test_another_kind_of_file_is_called_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="cannot read") as refused:
        open_pairs(tmp_path / "a.safetensors")
    assert refused.value.got.startswith("not a safetensors file")
