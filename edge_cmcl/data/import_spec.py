"""How a user says what is in which column: the text of `--sensor`, `--label` and `--group`.

    --sensor NAME=FILE:TIME:COLUMN,COLUMN@RATE          acc=run1.csv:time_s:ax,ay,az@50
    --sensor NAME=FILE:TIME[ms]:COLUMN@RATE[UNIT/SCALE] current=run1.parquet:t[ms]:i@20[A/10]
    --label  FILE:COLUMN            a column of a sensor's file, on that sensor's time
    --label  FILE:TIME[iso]:COLUMN  a file of its own, such as a list of events: a label holds until the next row
    --group  as --label: the subject, or the run

The time is in s unless [ms], [us], [ns] or [iso] follows the column's name without a space. RATE is the nominal rate
in Hz that the sensor's windows get. Values are divided by SCALE, so that an encoder sees numbers of order 1. A colon,
comma or at sign within a column's name is written as \\: \\, \\@. The second --sensor of the same name belongs to the
second run, and so on: every sensor, and --label and --group if given, comes once per run, in the same order of runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_cmcl.data.pairs_format import MAX_RATE_HZ, check_name
from edge_cmcl.data.recordings import ISO, TIME_UNITS
from edge_cmcl.errors import UsageError

_SENSOR_FORM = "NAME=FILE:TIME:COLUMN,COLUMN@RATE, for instance acc=run1.csv:time_s:ax,ay,az@50"
_COLUMN_FORM = "FILE:COLUMN or FILE:TIME:COLUMN, for instance run1.csv:state"
_UNITS = (*TIME_UNITS, ISO)


@dataclass(frozen=True)
class SensorFile:
    """One sensor in one run.

    Attributes:
        name: the modality.
        path: CSV, Parquet or NumPy file.
        time_column: its acquisition times.
        columns: its channels.
        rate_hz: nominal rate of the windows.
        time_unit: "s", "ms", "us", "ns" or "iso".
        unit: of the values in the file, "" if not known.
        scale: the values are divided by it.
    """

    name: str
    path: Path
    time_column: str
    columns: tuple[str, ...]
    rate_hz: float
    time_unit: str = "s"
    unit: str = ""
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_name("--sensor", self.name)
        _check_time_unit(self.time_unit)
        if not self.columns or not all(self.columns) or len(set(self.columns)) != len(self.columns):
            raise UsageError(f"sensor {self.name!r} needs different columns", got=", ".join(self.columns) or "none")
        if not 0 < self.rate_hz <= MAX_RATE_HZ or not 0 < self.scale < float("inf"):
            got = f"rate {self.rate_hz:g}, scale {self.scale:g}"
            raise UsageError(f"sensor {self.name!r}: rate or scale is wrong", expected="numbers above 0", got=got)

    @property
    def written_unit(self) -> str:
        """The unit of the values in the pairs file, for instance "A/10"."""
        if self.scale == 1:
            return self.unit
        return f"{self.unit or '1'}/{self.scale:g}"


@dataclass(frozen=True)
class ColumnFile:
    """A column of labels or groups in one run.

    Attributes:
        path: CSV, Parquet or NumPy file.
        column: the names.
        time_column: the times from which they hold; None where the file is a sensor's: that sensor's.
        time_unit: "s", "ms", "us", "ns" or "iso".
    """

    path: Path
    column: str
    time_column: str | None = None
    time_unit: str = "s"

    def __post_init__(self) -> None:
        _check_time_unit(self.time_unit)


@dataclass(frozen=True)
class Run:
    """What was recorded together."""

    sensors: tuple[SensorFile, ...]
    label: ColumnFile | None
    group: ColumnFile | None


def parse_sensor(text: str) -> SensorFile:
    """Parse the text of `--sensor` (see the module).

    Raises:
        UsageError: it has another form.
        DataError: the name cannot name a modality.
    """
    name, equals, rest = text.partition("=")
    fields = re.split(r"(?<!\\):", rest)
    match = re.fullmatch(r"(.*)(?<!\\)@([^@\[\]]+)(?:\[(.*)\])?", fields[-1])
    if not equals or len(fields) < 3 or match is None or not all(fields):
        raise UsageError("--sensor has another form", expected=_SENSOR_FORM, got=text)
    time_column, time_unit = _time(fields[-2])
    columns, rate, unit = match.groups()
    unit, scale = _scaled(unit or "")
    return SensorFile(
        name=name,
        path=Path(":".join(fields[:-2])),
        time_column=time_column,
        columns=tuple(_plain(column) for column in re.split(r"(?<!\\),", columns)),
        rate_hz=_number(text, rate),
        time_unit=time_unit,
        unit=unit,
        scale=scale,
    )


def parse_column(text: str) -> ColumnFile:
    """Parse the text of `--label` or `--group` (see the module).

    Raises:
        UsageError: it has another form.
    """
    fields = re.split(r"(?<!\\):", text)
    if len(fields) < 2 or not all(fields):
        raise UsageError("--label or --group has another form", expected=_COLUMN_FORM, got=text)
    if len(fields) == 2:
        return ColumnFile(Path(fields[0]), _plain(fields[1]))
    time_column, time_unit = _time(fields[-2])
    return ColumnFile(Path(":".join(fields[:-2])), _plain(fields[-1]), time_column, time_unit)


def split_runs(
    sensors: Sequence[SensorFile], labels: Sequence[ColumnFile], groups: Sequence[ColumnFile]
) -> tuple[Run, ...]:
    """Sort what was given into runs: the i-th mention of every sensor, label and group is run i.

    Raises:
        UsageError: something is not mentioned once per run, or a sensor differs between runs.
    """
    by_name: dict[str, list[SensorFile]] = {}
    for sensor in sensors:
        by_name.setdefault(sensor.name, []).append(sensor)
    if not by_name:
        raise UsageError("nothing to import", expected="at least one --sensor", got="none")
    count = len(next(iter(by_name.values())))
    mentions = {name: len(files) for name, files in by_name.items()}
    mentions |= {name: len(files) for name, files in (("--label", labels), ("--group", groups)) if files}
    if len(set(mentions.values())) > 1:
        got = ", ".join(f"{name} {number} times" for name, number in mentions.items())
        raise UsageError("the runs are not complete", expected="every sensor once per run", got=got)
    for name, files in by_name.items():
        kinds = {(len(file.columns), file.rate_hz, file.written_unit) for file in files}
        if len(kinds) > 1:
            got = "; ".join(f"{c} columns at {rate:g} Hz in {unit!r}" for c, rate, unit in sorted(kinds))
            raise UsageError(f"sensor {name!r} differs between runs", expected="one kind of windows", got=got)
    return tuple(
        Run(
            sensors=tuple(files[i] for files in by_name.values()),
            label=labels[i] if labels else None,
            group=groups[i] if groups else None,
        )
        for i in range(count)
    )


def _time(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*\S)\[(\w+)\]", text)
    if match is None:
        return _plain(text), "s"
    _check_time_unit(match[2])
    return _plain(match[1]), match[2]


def _scaled(text: str) -> tuple[str, float]:
    unit, slash, last = text.rpartition("/")
    if slash and re.fullmatch(r"[\d.]+(e[+-]?\d+)?", last):
        return unit, _number(text, last)
    return text, 1.0


def _plain(text: str) -> str:
    return re.sub(r"\\([:,@])", r"\1", text).strip()


def _number(text: str, digits: str) -> float:
    try:
        return float(digits)
    except ValueError as error:
        raise UsageError(f"{digits!r} is not a number", expected=_SENSOR_FORM, got=text) from error


def _check_time_unit(unit: str) -> None:
    if unit not in _UNITS:
        raise UsageError("the unit of the time is unknown", expected=", ".join(_UNITS), got=unit)
