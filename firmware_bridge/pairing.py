"""From recordings to one pairs file: `edge-cmcl pair`, and what `update` and `assess` do with a recording."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.cutting import better_scale, check_seconds, constant_channels, counted, numbered
from edge_cmcl.data.import_report import MAX_RATE_RATIO
from edge_cmcl.data.pairs import write_pairs
from edge_cmcl.data.windows import DropReport
from edge_cmcl.errors import DataError
from edge_cmcl.progress import Progress, silent
from firmware_bridge.alignment import NO_PARTNER, Aligned, SensorReport, align
from firmware_bridge.clock import Clock
from firmware_bridge.collecting import Collected, collect
from firmware_bridge.recording import Event, RecordingFile, files_of
from firmware_bridge.retention import FileRead
from firmware_bridge.windows import Cutting

MAX_REPEATED = 0.1
"""Share of frames with the device time of another one beyond which the user is told."""


@dataclass
class PairReport:
    """What was paired, and what was lost.

    Attributes:
        path: the pairs file.
        recordings: what was read.
        windows: rows written.
        shapes: per modality (T, C).
        labels: windows per label; "" counts the unlabelled.
        groups: the group number of each recording, where there are several.
        drops: windows dropped and why, samples interpolated.
        sensors: what was recorded of each sensor, in each recording.
        clocks: how the clock of each start of a firmware was fitted.
        cut: files that end before their end, and why.
        constant: per sensor, how many of its channels have one value throughout; sensors without any are left out.
        notes: advice, for instance on the scale of a sensor.
        warnings: what may make the windows worth less than they look.
        files: what was read, for `retention`.
    """

    path: str
    recordings: list[str]
    windows: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    drops: DropReport = field(default_factory=DropReport)
    sensors: list[SensorReport] = field(default_factory=list)
    clocks: list[Clock] = field(default_factory=list)
    cut: dict[str, str] = field(default_factory=dict)
    constant: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: list[FileRead] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            **vars(self),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "drops": self.drops.as_json(),
            "sensors": [sensor.as_json() for sensor in self.sensors],
            "clocks": [clock.as_json() for clock in self.clocks],
            "files": [str(file.path) for file in self.files],
        }


def pair_recordings(
    out: Path | str,
    recordings: Sequence[Path],
    cutting: Cutting,
    *,
    wanted: Collection[str] | None = None,
    required: Collection[str] = (),
    progress: Progress = silent,
) -> PairReport:
    """Align recordings and write their windows to one pairs file.

    Args:
        out: the pairs file, replaced atomically.
        recordings: folders, or single files; each is a group where there are several.
        cutting: how windows are cut.
        wanted: the sensors to use, None for all.
        required: sensors that must be there.
        progress: called once a recording.

    Raises:
        UsageError: a number out of range.
        DataError: a recording cannot be used, or no window is left.
        StorageError: the file system refused.
    """
    for name, value in (("window", cutting.window_s), ("step", cutting.step_s), ("max-gap", cutting.max_gap_s)):
        check_seconds(name, value)
    report = PairReport(str(out), [str(path) for path in recordings])
    seen: set[str] = set()
    found = []
    for i, path in enumerate(recordings):
        collected = collect(str(path), _events(path, report), wanted)
        seen |= collected.seen
        _check_required(collected, required)
        found.append(align(collected, cutting))
        progress("pair", i + 1, len(recordings))
    for each in found:
        report.drops.merge(each.drops)
        report.sensors += each.sensors
        report.clocks += each.clocks
    _warn(report, found)
    _check_left(report)
    _write(out, found, report)
    return report


def _events(recording: Path, report: PairReport) -> Iterator[Event]:
    for path in files_of(recording):
        report.files.append(FileRead.of(path))  # before it is read: what is written later is not read
        file = RecordingFile(path)
        yield from file.events()
        if file.cut:
            report.cut[str(path)] = file.cut


def _check_required(found: Collected, required: Collection[str]) -> None:
    missing = sorted(set(required) - found.parts.keys())
    if missing:
        raise DataError(
            f"{found.where} has no sensor {', '.join(missing)}",
            expected=", ".join(sorted(required)),
            got=", ".join(sorted(found.seen)) or "an empty recording",
        )


def _check_left(report: PairReport) -> None:
    """Check that a window is left, and say why none is."""
    if report.drops.kept:
        return
    where = ", ".join(report.recordings)
    names = sorted({sensor.sensor for sensor in report.sensors})
    if len(names) == 1 and set(report.drops.dropped) == {NO_PARTNER}:
        raise DataError(
            f"{where}: {names[0]} has no partner",
            expected="two sensors that were recorded at the same time, or labels",
            got="one sensor",
            hint="record another sensor beside it, or labels with `edge-cmcl record --label`",
        )
    if set(report.drops.dropped) == {NO_PARTNER}:
        raise DataError(
            f"{where}: the sensors do not overlap in time",
            expected="two sensors at the same time, for longer than a window",
            got="; ".join(f"{each.sensor}: {each.seconds:g} s" for each in report.sensors),
            hint="record them at the same time",
        )
    raise DataError(
        f"no window is left of {where}",
        expected="at least one",
        got="; ".join(f"{count} {reason}" for reason, count in sorted(report.drops.dropped.items()))
        or "recordings shorter than a window",
        hint="a shorter --window loses less to each gap; --max-gap allows irregular samples",
    )


def _write(out: Path | str, found: Sequence[Aligned], report: PairReport) -> None:
    kinds = _kinds(report)
    windows: dict[str, NDArray[np.float32]] = {}
    valid: dict[str, NDArray[np.bool_]] = {}
    for name in kinds:
        shape = next(each.windows[name].shape[1:] for each in found if name in each.windows)
        parts = [(each, len(each.time_s)) for each in found]
        there = np.concatenate([each.valid.get(name, np.zeros(n, np.bool_)) for each, n in parts])
        if not there.any():
            report.notes.append(f"{name} is in none of the windows that are left, and not in the file")
            continue
        rows = [each.windows.pop(name, np.zeros((n, *shape), np.float32)) for each, n in parts]
        windows[name], valid[name] = np.concatenate(rows), there
        _advise(report, name, windows[name][there])
    texts = [label for each in found for label in each.labels or [""] * len(each.time_s)]
    label_names, label_ids = numbered(texts)
    if label_names:
        report.labels = counted(texts)
    if len(found) > 1:
        report.groups = {name: i for i, name in enumerate(report.recordings)}
    write_pairs(
        out,
        windows,
        labels=label_ids if label_names else None,
        label_names=label_names,
        groups=[i for i, each in enumerate(found) for _ in each.time_s] if len(found) > 1 else None,
        time=np.concatenate([each.time_s for each in found]),
        valid={name: there for name, there in valid.items() if not there.all()},
        rate_hz={name: kinds[name].rate_hz for name in windows},
        units={name: kinds[name].unit for name in windows},
        source=", ".join(sorted({Path(path).name for path in report.recordings})),
    )
    report.windows = report.drops.kept
    report.shapes = {name: rows.shape[1:] for name, rows in windows.items()}


def _kinds(report: PairReport) -> dict[str, SensorReport]:
    """Return each sensor, the same in all recordings."""
    kinds: dict[str, SensorReport] = {}
    for sensor in report.sensors:
        first = kinds.setdefault(sensor.sensor, sensor)
        one, other = ((each.unit, each.channels, each.rate_hz) for each in (first, sensor))
        if one != other:
            raise DataError(
                f"{sensor.sensor} differs between the recordings",
                expected="one unit, number of channels and rate",
                got="; ".join(f"{channels} channels at {rate:g} Hz in {unit}" for unit, channels, rate in (one, other)),
                hint=f"--rate {sensor.sensor}=HZ gives it one rate; other units belong into files of their own",
            )
    return kinds


def _advise(report: PairReport, name: str, windows: NDArray[np.float32]) -> None:
    stuck = constant_channels(windows)
    if stuck:
        report.constant[name] = len(stuck)
        report.notes.append(f"{name}: channels {', '.join(map(str, stuck))} never change; is it connected?")
    better = better_scale(windows)
    if better is not None:
        size, scale = better
        report.notes.append(f"{name} has values of about {size:.2g}: a unit {scale:g} times as large suits encoders")


def _warn(report: PairReport, found: Sequence[Aligned]) -> None:
    for path, why in report.cut.items():
        report.warnings.append(f"{path} ends before its end ({why}): all before that was read")
    for clock in report.clocks:
        if clock.source == "arrivals":
            report.warnings.append(
                f"{clock.link} answered too few pings: its clock was bounded by the fastest of {clock.count} arrivals, "
                "and is late by what that one took"
            )
    for each in found:
        if each.speed != 1:
            report.warnings.append(f"recorded in accelerated time, {each.speed:.4g} seconds in one: a simulation")
    for sensor in report.sensors:
        ratio = sensor.recorded_hz / sensor.rate_hz
        if not 1 / MAX_RATE_RATIO <= ratio <= MAX_RATE_RATIO:
            done = "averaged down" if ratio > 1 else "interpolated up, which adds nothing"
            rates = f"at {sensor.recorded_hz:.4g} Hz, and its windows have {sensor.rate_hz:g} Hz"
            report.warnings.append(f"{sensor.sensor} was recorded {rates}: it was {done}")
        if sensor.repeated > MAX_REPEATED * (sensor.repeated + sensor.frames):
            report.warnings.append(
                f"{sensor.sensor}: {sensor.repeated} frames had the device time of another one, and were left out"
            )
