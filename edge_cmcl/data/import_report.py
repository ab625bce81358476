"""What an import of recordings read, wrote and lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_cmcl.data.import_spec import SensorFile
from edge_cmcl.data.windows import DropReport

MAX_RATE_RATIO = 1.3
"""Recorded and stated rate may differ by this factor before the user is told."""


@dataclass(frozen=True)
class SensorReport:
    """What one sensor's file of one run held.

    Attributes:
        sensor: the modality.
        path: the file.
        rows: samples recorded.
        duplicates: samples that shared a time with another one and were averaged with it.
        recorded_hz: rate at which it was recorded, from the median distance of its samples.
        seconds: from the first to the last sample.
    """

    sensor: str
    path: str
    rows: int
    duplicates: int
    recorded_hz: float
    seconds: float


@dataclass
class ImportReport:
    """What an import wrote and what it lost.

    Attributes:
        path: the pairs file.
        windows: rows written.
        runs: runs read.
        shapes: per modality (T, C).
        labels: windows per label; "" counts the unlabelled.
        groups: the group number of each subject or run.
        drops: windows dropped and why, samples interpolated.
        sensors: one report per file and sensor.
        constant: per sensor, how many of its channels have one value throughout; sensors without any are left out.
        notes: advice, for instance on the scale of a sensor.
    """

    path: str
    windows: int = 0
    runs: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    drops: DropReport = field(default_factory=DropReport)
    sensors: list[SensorReport] = field(default_factory=list)
    constant: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        sensors = [vars(sensor) for sensor in self.sensors]
        return {**vars(self), "shapes": shapes, "drops": self.drops.as_json(), "sensors": sensors}


def rate_warnings(sensors: Sequence[SensorFile], report: ImportReport) -> list[str]:
    """Return a warning for each sensor whose windows have a rate far from the one that it was recorded at."""
    stated = {sensor.name: sensor.rate_hz for sensor in sensors}
    found = []
    for each in report.sensors:
        ratio = each.recorded_hz / stated[each.sensor]
        if ratio > MAX_RATE_RATIO:
            done = "averaged down to it"
        elif ratio < 1 / MAX_RATE_RATIO:
            done = "interpolated up to it, which adds nothing"
        else:
            continue
        rates = f"recorded at {each.recorded_hz:.4g} Hz, asked for at {stated[each.sensor]:g} Hz"
        found.append(
            f"{each.sensor} ({each.path}) was {rates}: the samples were {done}; check @RATE and the time's unit"
        )
    return found
