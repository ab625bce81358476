from __future__ import annotations

import importlib
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_cmcl.data.import_report import rate_warnings
from edge_cmcl.data.import_spec import ColumnFile, SensorFile, parse_column, parse_sensor
from edge_cmcl.data.importing import import_recordings
from edge_cmcl.data.pairs import open_pairs
from edge_cmcl.errors import DataError, MissingExtraError, UsageError


def write_csv(path: Path, columns: dict[str, Any], delimiter: str = ",") -> Path:
    rows = zip(*(list(column) for column in columns.values()), strict=True)
    lines = [delimiter.join(columns), *(delimiter.join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def ramp(path: Path, seconds: float = 10.0, rate: float = 50.0, begin: float = 0.0, **columns: Any) -> Path:
    """Write a file whose channel `x` is the time itself, so that every value says when it was recorded."""
    time = begin + np.arange(round(seconds * rate)) / rate
    return write_csv(path, {"t": time.tolist(), "x": time.tolist(), **columns})


def sensor(path: Path, name: str = "acc", rate_hz: float = 50.0, **rest: Any) -> SensorFile:
    return SensorFile(**{"name": name, "path": path, "time_column": "t", "columns": ("x",), "rate_hz": rate_hz, **rest})


def read(path: Path, modality: str) -> np.ndarray:
    with open_pairs(path) as pairs:
        return pairs.read(modality)


def test_two_sensors_of_different_rates_meet_on_one_clock(tmp_path: Path) -> None:
    out = tmp_path / "pairs.safetensors"
    fast = ramp(tmp_path / "fast.csv", rate=100, begin=0.005)
    slow = ramp(tmp_path / "slow.csv", rate=20, begin=1.0)
    report = import_recordings(out, [sensor(fast, "acc", 100), sensor(slow, "current", 20)], window_s=2, step_s=1)
    acc, current = read(out, "acc"), read(out, "current")
    assert report.shapes == {"acc": (200, 1), "current": (40, 1)}
    assert report.windows == len(acc) == len(current) == 8
    begins = 1.0 + np.arange(8)
    np.testing.assert_allclose(acc[:, :, 0], begins[:, None] + np.arange(200) / 100, atol=1e-5)
    np.testing.assert_allclose(current[:, :, 0], begins[:, None] + np.arange(40) / 20, atol=1e-5)
    with open_pairs(out) as pairs:
        np.testing.assert_allclose(pairs.time, begins)
        assert pairs.longest_window_s(pairs.modalities) == 2.0
    assert report.drops.as_json() == {"kept": 8, "dropped": {}, "interpolated": 0}
    assert [made.recorded_hz for made in report.sensors] == [100.0, 20.0]


def test_csv_parquet_and_numpy_of_every_kind_give_the_same_windows(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    time = np.arange(500) / 50
    x, y = np.sin(time), np.cos(time)
    write_csv(tmp_path / "a.csv", {"t": time.tolist(), "x": x.tolist(), "y": y.tolist()})
    german = [[f"{value:.17g}".replace(".", ",") for value in column] for column in (time, x, y)]
    write_csv(tmp_path / "b.csv", dict(zip("txy", german, strict=True)), delimiter=";")
    pq.write_table(pa.table({"t": time, "x": x, "y": y}), tmp_path / "a.parquet")
    stamps = (np.datetime64("2025-03-01") + (time * 1e6).round().astype("timedelta64[us]")).astype("datetime64[us]")
    pq.write_table(pa.table({"t": stamps, "x": x, "y": y}), tmp_path / "b.parquet")
    np.save(tmp_path / "a.npy", np.stack([time, x, y], axis=1))
    np.save(tmp_path / "b.npy", np.rec.fromarrays([time, x, y], names="t,x,y"))
    np.savez(tmp_path / "a.npz", t=time * 1000, acc=np.stack([x, y], axis=1))
    iso = [(datetime(2025, 3, 1) + timedelta(seconds=t)).isoformat() + "Z" for t in time]
    write_csv(tmp_path / "c.csv", {"t": iso, "x": x.tolist(), "y": y.tolist()})
    texts = ["a.csv:t:x,y", "b.csv:t:x,y", "c.csv:t[iso]:x,y", "a.parquet:t:x,y", "b.parquet:t:x,y"]
    texts += ["a.npy:0:1,2", "b.npy:t:x,y", "a.npz:t[ms]:acc.0,acc.1"]
    made = []
    for text in texts:
        out = tmp_path / "out.safetensors"
        report = import_recordings(out, [parse_sensor(f"acc={tmp_path / text}@50")], window_s=2)
        assert report.windows == 5
        made.append(read(out, "acc"))
    np.testing.assert_allclose(made[0].reshape(-1, 2), np.stack([x, y], axis=1), atol=1e-6)
    for other in made[1:]:
        np.testing.assert_allclose(other, made[0], atol=1e-5)


def test_gaps_and_nan_are_interpolated_and_counted_or_the_window_is_dropped(tmp_path: Path) -> None:
    time = np.arange(500) / 50
    x: list[Any] = time.tolist()
    x[10] = ""
    x[11] = "NaN"
    keep = [i for i in range(500) if not 120 <= i < 150]  # 30 of the 100 samples of the second window
    path = write_csv(tmp_path / "a.csv", {"t": time[keep].tolist(), "x": [x[i] for i in keep]})
    out = tmp_path / "out.safetensors"
    report = import_recordings(out, [sensor(path)], window_s=2)
    assert report.drops.as_json() == {"kept": 4, "dropped": {"more than 20% of acc missing": 1}, "interpolated": 2}
    np.testing.assert_allclose(read(out, "acc")[0, :, 0], time[:100], atol=1e-6)
    irregular = import_recordings(out, [sensor(path)], window_s=2, max_gap_s=1.0)
    assert irregular.drops.as_json() == {"kept": 5, "dropped": {}, "interpolated": 0}


def test_a_window_needs_a_label_over_four_fifths_of_it(tmp_path: Path) -> None:
    state = ["idle"] * 190 + ["run"] * 160 + [""] * 150  # changes at 3.8 s and 7 s
    path = ramp(tmp_path / "a.csv", state=state, who=["bob"] * 500)
    out = tmp_path / "out.safetensors"
    report = import_recordings(
        out, [sensor(path)], window_s=2, labels=[ColumnFile(path, "state")], groups=[ColumnFile(path, "who")]
    )
    assert report.drops.dropped == {"mixed label": 1}
    assert report.labels == {"": 1, "idle": 2, "run": 1}
    assert report.groups == {"bob": 0}
    with open_pairs(out) as pairs:
        assert pairs.label_names == ("idle", "run")
        assert pairs.labels is not None
        assert pairs.labels.tolist() == [0, 0, 1, -1]
        assert pairs.groups is not None
        assert pairs.groups.tolist() == [0] * 4


def test_labels_may_be_a_list_of_events_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = ramp(tmp_path / "a.csv")
    events = write_csv(tmp_path / "events.csv", {"when": [2000, 6000], "state": ["on", "off"]})
    out = tmp_path / "out.safetensors"
    label = parse_column(f"{events}:when[ms]:state")
    import_recordings(out, [sensor(path)], window_s=2, labels=[label])
    with open_pairs(out) as pairs:
        assert pairs.labels is not None
        assert [pairs.label_names[i] if i >= 0 else "" for i in pairs.labels] == ["", "on", "on", "off", "off"]
    with pytest.raises(DataError, match="not a sensor's file"):
        import_recordings(out, [sensor(path)], window_s=2, labels=[ColumnFile(events, "state")])


def test_runs_become_groups_and_a_short_run_is_counted(tmp_path: Path) -> None:
    files = [ramp(tmp_path / f"run{i}.csv", seconds=s) for i, s in enumerate((4, 1, 6))]
    out = tmp_path / "out.safetensors"
    report = import_recordings(out, [sensor(path) for path in files], window_s=2)
    assert (report.runs, report.windows, report.drops.dropped) == (3, 5, {"run shorter than a window": 1})
    with open_pairs(out) as pairs:
        assert pairs.groups is not None
        assert pairs.groups.tolist() == [0, 0, 2, 2, 2]
        assert pairs.time is not None
        assert pairs.time.tolist() == [0, 2, 0, 2, 4]
    with pytest.raises(UsageError, match="runs are not complete"):
        import_recordings(out, [*(sensor(path) for path in files), sensor(files[0], "gyro")], window_s=2)
    with pytest.raises(UsageError, match="differs between runs"):
        import_recordings(out, [sensor(files[0]), sensor(files[2], rate_hz=25)], window_s=2)


def test_channels_that_never_change_are_counted_and_named(tmp_path: Path) -> None:
    file = ramp(tmp_path / "a.csv", stuck=[9.81] * 500, dead=[0] * 500)
    report = import_recordings(
        tmp_path / "out.safetensors", [sensor(file, columns=("x", "stuck", "dead")), sensor(file, "gyro")], window_s=2
    )
    assert report.constant == {"acc": 2}
    assert report.as_json()["constant"] == {"acc": 2}
    (note,) = (note for note in report.notes if "never changes" in note)
    assert note.startswith("acc: the recording never changes in stuck, dead")


def test_values_are_scaled_and_the_unit_says_so(tmp_path: Path) -> None:
    path = ramp(tmp_path / "a.csv", begin=1000)
    out = tmp_path / "out.safetensors"
    bare = import_recordings(out, [sensor(path)], window_s=2)
    assert bare.notes == ["acc has values of about 1e+03: give a scale, for instance [UNIT/1000]"]
    scaled = import_recordings(out, [sensor(path, unit="mg", scale=1000.0)], window_s=2)
    assert scaled.notes == []
    with open_pairs(out) as pairs:
        assert pairs.units == {"acc": "mg/1000"}
        assert pairs.rate_hz == {"acc": 50.0}
        np.testing.assert_allclose(pairs.read("acc")[0, 0, 0], 1.0)
    assert json.loads(json.dumps(scaled.as_json()))["shapes"] == {"acc": [100, 1]}


def test_a_fast_recording_is_averaged_so_that_it_does_not_alias(tmp_path: Path) -> None:
    time = np.arange(10_000) / 1000
    tone = np.sin(2 * np.pi * 50 * time)  # at 50 Hz a bare pick of samples would see a constant
    path = write_csv(tmp_path / "a.csv", {"t": time.tolist(), "x": (tone + 1).tolist()})
    out = tmp_path / "out.safetensors"
    import_recordings(out, [sensor(path)], window_s=2)
    inner = read(out, "acc")[1:-1]
    np.testing.assert_allclose(inner, 1.0, atol=0.06)


def test_a_few_equal_times_are_averaged_and_counted(tmp_path: Path) -> None:
    time = (np.arange(500) / 50).tolist()
    time[101] = time[100]
    values = [0.0] * 500
    values[100], values[101] = 1.0, 3.0
    path = write_csv(tmp_path / "a.csv", {"t": time, "x": values})
    out = tmp_path / "out.safetensors"
    report = import_recordings(out, [sensor(path)], window_s=2)
    assert (report.sensors[0].duplicates, report.drops.interpolated) == (1, 1)
    assert read(out, "acc")[1, 0, 0] == 2.0


def test_unsorted_time_names_file_row_and_both_times(tmp_path: Path) -> None:
    time = (np.arange(500) / 50).tolist()
    time[7] = 0.01
    path = write_csv(tmp_path / "a.csv", {"t": time, "x": time})
    out = tmp_path / "out.safetensors"
    with pytest.raises(DataError, match=r"a\.csv: the time goes back") as caught:
        import_recordings(out, [sensor(path)], window_s=2)
    assert "0.010000 s in data row 8, after 0.120000 s" in caught.value.got
    assert "split" in caught.value.hint
    assert caught.value.exit_code == 3
    assert not out.exists()


TIME = (np.arange(500) / 50).tolist()
UNUSABLE: dict[str, tuple[str, str]] = {
    "empty file": ("", "is empty"),
    "names only": ("t,x\n", "has no rows"),
    "no such column": ("t,xx\n0,1\n", "did you mean xx"),
    "column twice": ("t,x,x\n0,1,1\n", "several columns 'x'"),
    "not numeric": ("t,x\n0,1\n1,abc\n", "'abc' in data row 2"),
    "uneven": ("t,x\n0,1\n1\n", "1 in data row 2"),
    "no time": ("t,x\n0,1\n,2\n", "none in data row 2"),
    "constant time": ("t,x\n3,1\n3,2\n3,3\n", "the time does not advance"),
    "one row": ("t,x\n3,1\n", "the time does not advance"),
    "coarse time": ("t,x\n" + "".join(f"{i // 2},1\n" for i in range(100)), "times are too coarse"),
    "wrong unit": ("t,x\n" + "".join(f"{i * 20},1\n" for i in range(500)), r"t\[ms\]"),
    "all missing": ("t,x\n" + "".join(f"{t},\n" for t in TIME), "no window is left"),
    "binary": ("t,x\n0,\x00\n", "not"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_csv_is_a_clear_error_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    text, message = UNUSABLE[name]
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        import_recordings(tmp_path / "out.safetensors", [sensor(path)], window_s=2)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npy", "a.npz", "a.xlsx"])
@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00damaged"])
def test_a_missing_or_damaged_file_of_any_kind_is_a_data_error(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"a\."):
        import_recordings(tmp_path / "out.safetensors", [sensor(tmp_path / name)], window_s=2)


def test_a_numpy_header_that_claims_a_terabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**36, 2)})
    with pytest.raises(DataError, match="not a readable NumPy file"):
        import_recordings(tmp_path / "out.safetensors", [parse_sensor(f"acc={path}:0:1@50")], window_s=2)


def test_sensors_that_never_record_together_are_named_with_their_times(tmp_path: Path) -> None:
    first, second = ramp(tmp_path / "a.csv"), ramp(tmp_path / "b.csv", begin=100)
    with pytest.raises(DataError, match="do not overlap") as caught:
        import_recordings(tmp_path / "out.safetensors", [sensor(first), sensor(second, "gyro")], window_s=2)
    assert "0.000 to 9.980 s" in caught.value.got
    assert "100.000 to 109.980 s" in caught.value.got


def test_calendar_times_know_their_zone(tmp_path: Path) -> None:
    begin = datetime(2025, 3, 1, 12, 0, 0, tzinfo=timezone.utc)
    moments = [begin + timedelta(seconds=i / 50) for i in range(500)]
    east = timezone(timedelta(hours=5, minutes=30))
    for name, zone in (("utc", timezone.utc), ("east", east)):
        stamps = [moment.astimezone(zone).isoformat() for moment in moments]
        write_csv(tmp_path / f"{name}.csv", {"t": stamps, "x": list(range(500))})
    both = [sensor(tmp_path / f"{name}.csv", name, time_unit="iso") for name in ("utc", "east")]
    out = tmp_path / "out.safetensors"
    assert import_recordings(out, both, window_s=2).windows == 5
    np.testing.assert_allclose(read(out, "utc"), read(out, "east"), atol=1e-2)


def test_a_window_of_fewer_than_sixteen_samples_is_a_usage_error(tmp_path: Path) -> None:
    path = ramp(tmp_path / "a.csv")
    with pytest.raises(UsageError, match="too short") as caught:
        import_recordings(tmp_path / "out.safetensors", [sensor(path)], window_s=0.3)
    assert "0.32 s" in caught.value.hint
    for wrong in ({"window_s": 0.0}, {"window_s": 2.0, "step_s": -1.0}, {"window_s": float("nan")}):
        with pytest.raises(UsageError, match="out of range"):
            import_recordings(tmp_path / "out.safetensors", [sensor(path)], **wrong)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[host\]'"):
        import_recordings(tmp_path / "out.safetensors", [sensor(tmp_path / "a.parquet")], window_s=2)


def test_a_sensor_is_parsed() -> None:
    assert parse_sensor("acc=run1.csv:time_s:ax,ay,az@50") == SensorFile(
        "acc", Path("run1.csv"), "time_s", ("ax", "ay", "az"), 50.0
    )
    assert parse_sensor("current=a:b/run1.parquet:t[ms]:i@6.5[A/10]") == SensorFile(
        "current", Path("a:b/run1.parquet"), "t", ("i",), 6.5, "ms", "A", 10.0
    )
    assert parse_sensor("gyro=p.csv:Time [s]:x [deg/s], y\\, z@50[deg/s]") == SensorFile(
        "gyro", Path("p.csv"), "Time [s]", ("x [deg/s]", "y, z"), 50.0, "s", "deg/s"
    )


def test_a_label_is_parsed() -> None:
    assert parse_column("run1.csv:state") == ColumnFile(Path("run1.csv"), "state")
    assert parse_column("e.csv:when[iso]:a\\:b") == ColumnFile(Path("e.csv"), "a:b", "when", "iso")


@pytest.mark.parametrize(
    "text",
    ["", "acc", "acc=a.csv", "acc=a.csv:t:x", "acc=a.csv:t:x@", "acc=a.csv:t:x@fast", "acc=a.csv:t:x@0", "acc=:t:x@5",
     "acc=a.csv:t[h]:x@5", "acc=a.csv:t:x,x@5", "acc=a.csv:t:x@5[A/0]"],
)  # fmt: skip
def test_a_sensor_of_another_form_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sensor(text)


@pytest.mark.parametrize("text", ["", "state", "a.csv:", "a.csv:t[h]:x"])
def test_a_label_of_another_form_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_column(text)


def rows_below(header: str, first: str = "") -> str:
    return f"{header}\n{first}" + "".join(f"{i / 50},{i}\n" for i in range(500))


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (rows_below("t,x", "s,m/s^2\n"), "is not numeric", "a row of units below the column names"),
        (
            rows_below("# logger 7\n# started 12:00\n\nt,x"),
            "does not begin with its column names",
            "remove the 3 lines",
        ),
        ("t,x\n2025-03-01T12:00:00,1\n2025-03-01T12:00:01,2\n", "'t' is not numeric", r"t\[iso\]"),
        ("t;x\n01.03.2025 12:00:00;1,5\n01.03.2025 12:00:01;2,5\n", "is not numeric", r"2025-03-01T12.*t\[iso\]"),
    ],
    ids=["units", "preamble", "ISO times", "German dates"],
)
def test_what_loggers_often_write_is_refused_with_what_to_do(
    tmp_path: Path, content: str, message: str, hint: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message) as refused:
        import_recordings(tmp_path / "out.safetensors", [sensor(tmp_path / "a.csv")], window_s=2)
    assert re.search(hint, refused.value.hint)


def test_a_german_date_is_no_iso_time(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t;x\n01.03.2025 12:00:00;1,5\n01.03.2025 12:00:01;2,5\n")
    with pytest.raises(DataError, match="is no time") as refused:
        import_recordings(tmp_path / "out.safetensors", [sensor(tmp_path / "a.csv", time_unit="iso")], window_s=2)
    assert "the other way round" in refused.value.hint


def test_a_column_name_may_hold_the_marks_of_the_option(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(rows_below('time:s,"x@1,2"'))
    import_recordings(
        tmp_path / "out.safetensors", [parse_sensor(rf"acc={tmp_path}/a.csv:time\:s:x\@1\,2@50")], window_s=2
    )
    assert len(read(tmp_path / "out.safetensors", "acc")) == 5


@pytest.mark.parametrize(("stated", "told"), [(128.0, 0), (100.0, 0), (97.0, 1), (170.0, 1), (12.8, 1), (160.0, 0)])
def test_a_rate_far_from_the_recorded_one_is_told(tmp_path: Path, stated: float, told: int) -> None:
    path = ramp(tmp_path / "a.csv", rate=128)
    sensors = [sensor(path, rate_hz=stated)]
    report = import_recordings(tmp_path / "out.safetensors", sensors, window_s=2)
    warnings = rate_warnings(sensors, report)
    assert len(warnings) == told
    assert all("recorded at 128 Hz" in warning and f"{stated:g} Hz" in warning for warning in warnings)
