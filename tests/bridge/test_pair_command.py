from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import Board, chirp, in_order, label, machine, write
from mcap.writer import Writer

from edge_cmcl.cli.options import need_bridge
from edge_cmcl.data import open_pairs
from edge_cmcl.data.simulator import simulate
from edge_cmcl.errors import DataError, EdgeCmclError, MissingExtraError, UsageError
from firmware_bridge.pairing import pair_recordings
from firmware_bridge.windows import Cutting

Edge = Callable[..., tuple[dict[str, Any], str]]


def simple(path: Path, *, begin_s: float = 0.0, end_s: float = 20.0, names: tuple[str, ...] = ("acc", "gyro")) -> Path:
    """A recording of sensors on one board."""
    board = Board()
    samples = [
        board.samples(board.stream(name, stream=i), chirp, begin_s, end_s) for i, name in enumerate(names, start=1)
    ]
    return write(path, *samples, board.exchanges(begin_s, end_s))


def test_a_recording_becomes_a_pairs_file(edge: Edge, tmp_path: Path) -> None:
    board, other = Board(ppm=120), Board("serial:b", 9, ppm=-40)
    write(
        tmp_path / "rec" / "000000.mcap",
        board.samples(board.stream("acc"), chirp, 0, 30),
        other.samples(other.stream("gyro", unit="rad/s", channels=1, rate_hz=50), chirp, 0, 30),
        board.exchanges(0, 30),
        other.exchanges(0, 30),
        [label(0, "idle"), label(16, "walk")],
    )
    done, stderr = edge("pair", "rec", "--out", "out.safetensors", "--window", "2", "--step", "1")
    assert (done["windows"], done["drops"]["dropped"]) == (27, {"mixed label": 1})
    assert done["shapes"] == {"acc": [200, 1], "gyro": [100, 1]}
    assert done["labels"] == {"idle": 15, "walk": 12}
    assert done["warnings"] == []
    assert "warning" not in stderr
    assert {clock["link"]: clock["source"] for clock in done["clocks"]} == {
        "tcp:a": "exchanges",
        "serial:b": "exchanges",
    }
    assert all(clock["residual_max_ms"] < 3 and clock["bound_ms"] < 3 for clock in done["clocks"])
    assert {each["sensor"]: each["recorded_hz"] for each in done["sensors"]} == pytest.approx(
        {"acc": 100, "gyro": 50}, rel=1e-3
    )
    with open_pairs(tmp_path / "out.safetensors") as pairs:
        assert (pairs.rate_hz, pairs.units) == ({"acc": 100.0, "gyro": 50.0}, {"acc": "g", "gyro": "rad/s"})
        assert (pairs.groups, pairs.source) == (None, "rec")
        assert np.corrcoef(pairs.read("acc")[:, ::2, 0].ravel(), pairs.read("gyro")[:, :, 0].ravel())[0, 1] > 0.999
    assert (tmp_path / "rec" / "000000.mcap").exists(), "only an update deletes"


def test_people_are_told_what_was_lost_and_how_well_the_clocks_fit(run_cli: Any, tmp_path: Path) -> None:
    simple(tmp_path / "r.mcap")
    shown = run_cli("pair", "r.mcap", "--out", "out.safetensors")
    assert shown.code == 0
    for told in ("recorded at Hz", "drift, ppm", "residual, ms", "kept 9 windows (acc 200x1, gyro 200x1)"):
        assert told in shown.stdout


def test_several_recordings_are_groups(edge: Edge, tmp_path: Path) -> None:
    for day in range(2):
        simple(tmp_path / f"day{day}" / "000000.mcap", begin_s=86400.0 * day, end_s=86400.0 * day + 20)
    done, _ = edge("pair", "day0", "day1", "--out", "out.safetensors")
    assert done["groups"] == {"day0": 0, "day1": 1}
    with open_pairs(tmp_path / "out.safetensors") as pairs:
        assert pairs.groups is not None
        assert pairs.groups.tolist() == [0] * 9 + [1] * 9


def test_the_files_of_a_recording_are_one(edge: Edge, tmp_path: Path) -> None:
    board = Board()
    events = in_order(
        board.samples(board.stream("acc"), chirp, 0, 20),
        board.samples(board.stream("gyro", stream=2), chirp, 0, 20),
        board.exchanges(0, 20),
    )
    write(tmp_path / "rec" / "000000.mcap", events[:137])
    write(tmp_path / "rec" / "000001.mcap", events[137:])
    write(tmp_path / "whole.mcap", events)
    two, _ = edge("pair", "rec", "--out", "two.safetensors")
    one, _ = edge("pair", "whole.mcap", "--out", "one.safetensors")
    assert two["drops"] == one["drops"]
    with open_pairs(tmp_path / "two.safetensors") as pairs, open_pairs(tmp_path / "one.safetensors") as whole:
        np.testing.assert_array_equal(pairs.read("acc"), whole.read("acc"))


def test_a_cut_file_gives_what_is_whole_of_it(edge: Edge, tmp_path: Path) -> None:
    path = simple(tmp_path / "r.mcap", end_s=200.0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    done, stderr = edge("pair", "r.mcap", "--out", "out.safetensors")
    assert 30 < done["windows"] < 99
    assert list(done["cut"]) == ["r.mcap"]
    assert "r.mcap ends before its end" in stderr


def test_a_board_that_answers_no_pings_is_told(edge: Edge, tmp_path: Path) -> None:
    board = Board()
    write(
        tmp_path / "r.mcap", *(board.samples(board.stream(n, stream=i), chirp, 0, 20) for i, n in ((1, "a"), (2, "b")))
    )
    done, stderr = edge("pair", "r.mcap", "--out", "out.safetensors")
    assert [(clock["source"], clock["bound_ms"]) for clock in done["clocks"]] == [("arrivals", None)]
    assert "tcp:a answered too few pings" in stderr


def test_windows_have_the_rate_that_is_asked_for(edge: Edge, tmp_path: Path) -> None:
    simple(tmp_path / "r.mcap")
    options = ["--rate", "acc=20", "--sensor", "acc", "--sensor", "gyro"]
    done, stderr = edge("pair", "r.mcap", "--out", "out.safetensors", *options)
    assert done["shapes"] == {"acc": [40, 1], "gyro": [200, 1]}
    assert "averaged down" in stderr


@pytest.mark.parametrize(
    ("names", "options", "code", "message"),
    [
        (("acc",), [], 3, "acc has no partner"),
        (("acc", "gyro"), ["--rate", "acc=-1"], 2, "--rate has another form"),
        (("acc", "gyro"), ["--rate", "mag=10"], 3, "has no sensor mag"),
        (("acc", "gyro"), ["--step", "-1"], 2, "--step is out of range"),
    ],
)
def test_what_cannot_be_paired_is_said(
    edge: Edge, tmp_path: Path, names: tuple[str, ...], options: list[str], code: int, message: str
) -> None:
    simple(tmp_path / "r.mcap", names=names)
    error, _ = edge("pair", "r.mcap", "--out", "out.safetensors", *options, code=code)
    assert message in error["message"]
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("cutting", "wanted", "error", "message"),
    [
        (Cutting(0.0), None, UsageError, "--window is out of range"),
        (Cutting(float("nan")), None, UsageError, "--window is out of range"),
        (Cutting(0.1), None, UsageError, "too short"),
        (Cutting(60.0), None, DataError, "no window is left"),
        (Cutting(2.0), ["mag"], DataError, "no samples"),
        (Cutting(2.0), ["acc"], DataError, "has no partner"),
    ],
)
def test_what_no_window_can_be_cut_from_is_refused(
    tmp_path: Path, cutting: Cutting, wanted: list[str] | None, error: type[EdgeCmclError], message: str
) -> None:
    recording = simple(tmp_path / "r.mcap")
    with pytest.raises(error, match=message):
        pair_recordings(tmp_path / "out.safetensors", [recording], cutting, wanted=wanted)


def test_recordings_with_different_sensors_of_one_name_are_refused(tmp_path: Path) -> None:
    board = Board()
    paths = [
        write(tmp_path / f"{unit}.mcap",
              *(board.samples(board.stream(n, stream=i, unit=unit), chirp, 0, 20) for i, n in ((1, "a"), (2, "b"))))
        for unit in ("g", "N")
    ]  # fmt: skip
    with pytest.raises(DataError, match="a differs between the recordings"):
        pair_recordings(tmp_path / "out.safetensors", paths, Cutting(2.0))


def test_sensors_that_never_met_are_told_apart(edge: Edge, tmp_path: Path) -> None:
    board = Board()
    write(
        tmp_path / "r.mcap",
        board.samples(board.stream("acc"), chirp, 0, 20),
        board.samples(board.stream("gyro", stream=2), chirp, 500, 520),
        board.exchanges(0, 520),
    )
    error, _ = edge("pair", "r.mcap", "--out", "out.safetensors", code=3)
    assert "do not overlap in time" in error["message"]


def test_what_is_no_recording_is_refused(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "empty.mcap").touch()
    (tmp_path / "noise.mcap").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "folder").mkdir()
    with (tmp_path / "foreign.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2", library="other")
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        channel = writer.register_channel("/chatter", "cdr", schema)
        writer.add_message(channel, log_time=1, publish_time=1, data=b"\x00\x01\x00\x00\x03\x00\x00\x00hi\x00")
        writer.finish()
    for name in ("empty.mcap", "noise.mcap", "folder", "foreign.mcap", "missing.mcap"):
        error, _ = edge("pair", name, "--out", "out.safetensors", code=3)
        assert name in error["message"]


def test_a_file_of_another_kind_is_not_written_over(edge: Edge, tmp_path: Path) -> None:
    path = simple(tmp_path / "r.mcap")
    before = path.read_bytes()
    edge("pair", "r.mcap", "--out", "r.mcap", code=2)
    assert path.read_bytes() == before


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mcap" else found(name))
    with pytest.raises(MissingExtraError) as error:
        need_bridge()
    assert (error.value.exit_code, error.value.got) == (7, "no mcap")
    assert "[bridge]" in error.value.hint


def test_what_comes_out_is_what_went_in(edge: Edge, tmp_path: Path) -> None:
    """Windows of the simulated machine, laid end to end, sent by two boards, recorded and cut again."""
    machine(tmp_path / "r.mcap", windows=30)
    done, _ = edge("pair", "r.mcap", "--out", "out.safetensors")
    assert done["shapes"] == {"acoustic": [256, 1], "current": [200, 1], "vibration": [256, 3]}
    original = simulate(30, ("acoustic", "vibration", "current"), seed=2)
    with open_pairs(tmp_path / "out.safetensors") as pairs:
        assert pairs.n >= 29
        names = [pairs.label_names[i] for i in pairs.labels] if pairs.labels is not None else []
        assert names == [original.label_names[i] for i in original.labels[: pairs.n]]
        for name, rows in original.windows.items():
            same = np.corrcoef(pairs.read(name).ravel(), rows[: pairs.n].ravel())[0, 1]
            assert same > 0.98, f"{name}: noise between two samples is all that interpolation may lose"
