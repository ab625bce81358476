"""Turning a user's own recordings into a pairs file: one clock, windows, labels, and a count of what was lost.

Each sensor of a run is brought onto the windows' clock by linear interpolation, after a moving mean of one output
period where it was recorded faster than asked (else it would alias). A sample is missing where the two recorded ones
around it are further apart than `max_gap_s`; missing samples are interpolated, windows with more than 20 % of them are
dropped. A window's label must cover 80 % of it. `import_spec` says how the columns are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.clock import Record, hold, on_windows, record_of
from edge_cmcl.data.cutting import (
    better_scale,
    check_seconds,
    constant_channels,
    counted,
    cover_instants,
    covering,
    numbered,
    window_samples,
)
from edge_cmcl.data.import_report import ImportReport, SensorReport
from edge_cmcl.data.import_spec import ColumnFile, Run, SensorFile, split_runs
from edge_cmcl.data.pairs import write_pairs
from edge_cmcl.data.recordings import Table, Wanted, read_table
from edge_cmcl.data.windows import MAX_MISSING, DropReport, repair
from edge_cmcl.errors import DataError
from edge_cmcl.progress import Progress, silent


@dataclass(frozen=True)
class _Plan:
    window_s: float
    step_s: float
    max_gap_s: float | None


@dataclass
class _Cut:
    """The windows kept from one run and when each starts; `labels` and `groups` are empty where none are given."""

    windows: dict[str, NDArray[np.float32]]
    begins_s: NDArray[np.float64]
    labels: list[str]
    groups: list[str]


def import_recordings(
    out: Path | str,
    sensors: Sequence[SensorFile],
    *,
    window_s: float,
    step_s: float | None = None,
    labels: Sequence[ColumnFile] = (),
    groups: Sequence[ColumnFile] = (),
    max_gap_s: float | None = None,
    source: str = "",
    progress: Progress = silent,
) -> ImportReport:
    """Import recordings of one or several runs into one pairs file.

    Args:
        out: the pairs file, replaced atomically.
        sensors: one per sensor and run; the i-th of each name belongs to run i.
        window_s: length of a window; a sensor of rate r gets round(window_s * r) samples, at least 16.
        step_s: distance of the windows' starts, `window_s` by default.
        labels: none, or one per run. A window covered by less than 80 % of one label is dropped.
        groups: none, or one per run; without, the runs are the groups where there are several.
        max_gap_s: longest distance of two samples that is no gap; 1.5 times the longer one of the sensor's recorded
            and nominal period by default. State it for sensors that sample irregularly.
        source: where the recording comes from, in words; the files' names by default.
        progress: called once a run.

    Raises:
        UsageError: a number out of range, or incomplete runs.
        DataError: a file cannot be used, or no window is left.
        MissingExtraError: a Parquet file, and pyarrow is not installed.
        StorageError: the file system refused.
    """
    plan = _plan(sensors, window_s, step_s, max_gap_s)
    runs = split_runs(sensors, labels, groups)
    report = ImportReport(path=str(out), runs=len(runs))
    cuts = []
    for i, run in enumerate(runs):
        cuts.append(_cut_run(run, plan, report))
        progress("import", i + 1, len(runs))
    report.windows = report.drops.kept
    if report.windows == 0:
        got = "; ".join(f"{count} {reason}" for reason, count in sorted(report.drops.dropped.items()))
        hint = "check rates, time units, gaps and labels; --max-gap allows irregular samples, a shorter --window helps"
        raise DataError("no window is left of these recordings", expected="at least one", got=got, hint=hint)
    windows = {name: np.concatenate([cut.windows[name] for cut in cuts]) for name in cuts[0].windows}
    report.shapes = {name: rows.shape[1:] for name, rows in windows.items()}
    for sensor in runs[0].sensors:
        _advise(report, sensor, windows[sensor.name])
    label_names, label_ids = numbered(label for cut in cuts for label in cut.labels)
    group_ids = _group_ids(cuts, report)
    report.labels = counted([label for cut in cuts for label in cut.labels])
    write_pairs(
        out,
        windows,
        labels=label_ids if label_names else None,
        label_names=label_names,
        groups=group_ids,
        time=np.concatenate([cut.begins_s for cut in cuts]),
        rate_hz={sensor.name: sensor.rate_hz for sensor in sensors},
        units={sensor.name: sensor.written_unit for sensor in sensors if sensor.written_unit},
        source=source or ", ".join(sorted({sensor.path.name for sensor in sensors})),
    )
    return report


def _plan(sensors: Sequence[SensorFile], window_s: float, step_s: float | None, max_gap_s: float | None) -> _Plan:
    for name, value in (("window", window_s), ("step", step_s), ("max-gap", max_gap_s)):
        check_seconds(name, value)
    for sensor in sensors:
        window_samples(sensor.name, window_s, sensor.rate_hz, len(sensor.columns))
    return _Plan(window_s, step_s or window_s, max_gap_s)


def _cut_run(run: Run, plan: _Plan, report: ImportReport) -> _Cut:
    tables = _read(run)
    records = [record_of(sensor, tables[sensor.path]) for sensor in run.sensors]
    report.sensors += [_describe(sensor, record) for sensor, record in zip(run.sensors, records, strict=True)]
    begins = _starts(run, records, plan)
    if len(begins) == 0:
        report.drops.drop("run shorter than a window")
    windows: dict[str, list[NDArray[np.float32] | None]] = {}
    filled = np.zeros(len(begins), dtype=np.int64)
    for sensor, record in zip(run.sensors, records, strict=True):
        samples = round(plan.window_s * sensor.rate_hz)
        raw = on_windows(record, begins, samples, sensor.rate_hz, plan.max_gap_s)
        mended = [repair(window) for window in raw]
        windows[sensor.name] = [window for window, _ in mended]
        filled += np.array([count for _, count in mended], dtype=np.int64)
    labels = _covering(run, run.label, tables, begins, plan)
    groups = _covering(run, run.group, tables, begins, plan)
    keep = []
    for i in range(len(begins)):
        reason = _reason(i, windows, labels, groups)
        if reason:
            report.drops.drop(reason)
        else:
            keep.append(i)
    report.drops.merge(DropReport(kept=len(keep), interpolated=int(filled[keep].sum())))
    return _Cut(
        windows={sensor.name: _stacked(sensor, windows[sensor.name], keep, plan) for sensor in run.sensors},
        begins_s=begins[keep],
        labels=[labels[i] or "" for i in keep] if run.label else [],
        groups=[groups[i] or "" for i in keep] if run.group else [],
    )


def _reason(
    i: int,
    windows: dict[str, list[NDArray[np.float32] | None]],
    labels: Sequence[str | None],
    groups: Sequence[str | None],
) -> str:
    """Return why window `i` is dropped, "" where it is kept."""
    for name, rows in windows.items():
        if rows[i] is None:
            return f"more than {MAX_MISSING:.0%} of {name} missing"
    if labels and labels[i] is None:
        return "mixed label"
    return "mixed group" if groups and groups[i] is None else ""


def _stacked(
    sensor: SensorFile, rows: list[NDArray[np.float32] | None], keep: list[int], plan: _Plan
) -> NDArray[np.float32]:
    chosen = [rows[i] for i in keep]
    shape = (round(plan.window_s * sensor.rate_hz), len(sensor.columns))
    return np.array(chosen, dtype=np.float32).reshape(len(keep), *shape)


def _read(run: Run) -> dict[Path, Table]:
    """Read every file of a run once."""
    wanted: dict[Path, Wanted] = {}
    for sensor in run.sensors:
        of = wanted.setdefault(sensor.path, Wanted())
        of.times.add((sensor.time_column, sensor.time_unit))
        of.numbers.update(sensor.columns)
    for column in (run.label, run.group):
        if column is not None:
            of = wanted.setdefault(column.path, Wanted())
            of.times.add(_clock_of(run, column))
            of.texts.add(column.column)
    return {path: read_table(path, of) for path, of in wanted.items()}


def _clock_of(run: Run, column: ColumnFile) -> tuple[str, str]:
    """Return the time column and unit of a label or group column: its own, or those of the sensor in that file."""
    if column.time_column is not None:
        return column.time_column, column.time_unit
    for sensor in run.sensors:
        if sensor.path == column.path:
            return sensor.time_column, sensor.time_unit
    hint = f"give its time column: {column.path}:TIME:{column.column}"
    raise DataError(f"{column.path} is not a sensor's file", expected="a file with a known time", hint=hint)


def _starts(run: Run, records: Sequence[Record], plan: _Plan) -> NDArray[np.float64]:
    """Return the start of each window (n,) in seconds, from where all sensors record to where one ends."""
    begin = max(record.time_s[0] for record in records)
    # A sample stands for the period that follows it, so a record of 500 samples at 50 Hz lasts 10 s, not 9.98.
    end = min(record.time_s[-1] + record.period_s for record in records)
    if end <= begin:
        spans = zip(run.sensors, records, strict=True)
        got = "; ".join(f"{s.name} ({s.path}): {r.time_s[0]:.3f} to {r.time_s[-1]:.3f} s" for s, r in spans)
        hint = "check the units of the times, and that all clocks start at the same moment"
        raise DataError("the sensors do not overlap in time", expected="a common time", got=got, hint=hint)
    count = int(np.floor((end - begin - plan.window_s) / plan.step_s + 1e-6)) + 1
    begins: NDArray[np.float64] = begin + plan.step_s * np.arange(max(count, 0), dtype=np.float64)
    return begins


def _covering(
    run: Run, column: ColumnFile | None, tables: dict[Path, Table], begins: NDArray[np.float64], plan: _Plan
) -> list[str | None]:
    """Return the text that covers at least 80 % of each window, None where none does; [] without a column."""
    if column is None:
        return []
    table = tables[column.path]
    times = table.times[_clock_of(run, column)]
    instants = cover_instants(begins, plan.window_s)
    return covering(hold(table.path, times, table.texts[column.column], instants))


def _describe(sensor: SensorFile, record: Record) -> SensorReport:
    return SensorReport(
        sensor=sensor.name,
        path=str(sensor.path),
        rows=record.rows,
        duplicates=record.duplicates,
        recorded_hz=round(1 / record.period_s, 6),
        seconds=round(float(record.time_s[-1] - record.time_s[0]), 6),
    )


def _group_ids(cuts: Sequence[_Cut], report: ImportReport) -> list[int] | None:
    if any(cut.groups for cut in cuts):
        names, ids = numbered(group for cut in cuts for group in cut.groups)
        report.groups = {name: i for i, name in enumerate(names)}
        return ids
    if len(cuts) == 1:
        return None
    report.groups = {f"run {i + 1}": i for i in range(len(cuts))}
    return [i for i, cut in enumerate(cuts) for _ in range(len(next(iter(cut.windows.values()))))]


def _advise(report: ImportReport, sensor: SensorFile, windows: NDArray[np.float32]) -> None:
    """Note channels that never change, and a scale where the values are far from order 1, which encoders expect."""
    stuck = [sensor.columns[c] for c in constant_channels(windows)]
    if stuck:
        report.constant[sensor.name] = len(stuck)
        report.notes.append(f"{sensor.name}: the recording never changes in {', '.join(stuck)}; is it connected?")
    better = better_scale(windows)
    if better is not None:
        size, scale = better
        report.notes.append(
            f"{sensor.name} has values of about {size:.2g}: give a scale, for instance [UNIT/{scale:g}]"
        )
