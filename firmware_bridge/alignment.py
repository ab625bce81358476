"""From the streams of a recording to windows of all sensors at the same moments, and what was dropped. No I/O.

Each stream lies on the common clock and is cut at its own rate on one grid of windows, exactly as an import cuts files
(`data.clock`, `data.windows`): up to 20 % of a window may be missing and is interpolated, but nothing is over a reboot.
A window is a row where two sensors have it, or one and the labels; a sensor that lacks it there is marked (`valid`).

Rows get their time and no group. What must not be split between training and judging are windows that overlap and
neighbours that are alike, and blocks of time with a guard see to both. Pieces of a recording would be a bad unit: they
are as long as a cable holds, not as something lasts, and a split by them judges half an hour by ten seconds. Several
recordings are several occasions, and each is a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.cutting import cover_instants, covering
from edge_cmcl.data.windows import DropReport
from edge_cmcl.errors import DataError
from firmware_bridge.clock import Clock
from firmware_bridge.collecting import Collected, clocks_of, speed_of
from firmware_bridge.streams import REASONS, Stream, build_stream
from firmware_bridge.windows import Cut, Cutting, cut_stream, grid

NO_PARTNER, MIXED = "no partner", "mixed label"

_BLOCK_LABELS = 256

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class SensorReport:
    """What was recorded of one sensor.

    Attributes:
        sensor: the modality.
        unit: of its values.
        channels: of a sample.
        rate_hz: of its windows.
        recorded_hz: at which it was recorded.
        frames: recorded.
        samples: recorded.
        seconds: from the first to the last sample.
        starts: of its firmware.
        breaks: how often its samples broke off, by reason.
        repeated: frames left out because another one has the same device time.
        windows: moments of the grid at which it is there.
        missing: moments at which it is not, by reason.
    """

    sensor: str
    unit: str
    channels: int
    rate_hz: float
    recorded_hz: float
    frames: int
    samples: int
    seconds: float
    starts: int
    breaks: dict[str, int]
    repeated: int
    windows: int
    missing: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return vars(self).copy()


@dataclass
class Aligned:
    """The windows of one recording; row i of everything is the same moment.

    Attributes:
        windows: per sensor float32 (n, T, C), zeros where it is missing.
        valid: per sensor bool (n,).
        time_s: float64 (n,), start of each window in s since 1970, by the host's clock.
        labels: of each window, "" where that is not known; [] where the recording has none.
        drops: windows that were dropped and why.
        sensors: what was recorded of each.
        clocks: how the clock of each start of a firmware was fitted.
        speed: seconds of the devices in one of the host: 1, but for simulations in accelerated time.
    """

    windows: dict[str, NDArray[np.float32]]
    valid: dict[str, NDArray[np.bool_]]
    time_s: Float64s
    labels: list[str]
    drops: DropReport
    sensors: list[SensorReport]
    clocks: list[Clock]
    speed: float


def align(found: Collected, cutting: Cutting) -> Aligned:
    """Cut what was recorded into windows. What `found` holds of the sensors is used up, to save memory.

    Raises:
        UsageError: a window is too short or too long.
        DataError: there is no sensor, a stream cannot be used, or the windows would take more than `MAX_BYTES`.
    """
    clocks = clocks_of(found)
    speed = speed_of(clocks.values())
    streams: dict[str, Stream] = {}
    for name in sorted(found.parts):
        stream = build_stream(found.where, found.parts.pop(name), clocks, speed)
        if stream is not None:
            streams[name] = stream
    if not streams:
        raise DataError(
            f"{found.where} has no samples to pair",
            expected="a sensor",
            got=", ".join(sorted(found.seen)) or "an empty recording",
        )
    begins = grid(found.where, streams, cutting)
    cuts = {name: cut_stream(stream, begins, cutting) for name, stream in streams.items()}
    since_s = np.array([(at - found.origin_ns) / 1e9 * speed for at, _ in found.labels], np.float64)
    longest = max(map(cutting.length_s, streams))
    labels = _labels(since_s, [text for _, text in found.labels], begins, longest)
    drops = DropReport()
    kept = []
    for i in range(len(begins)):
        why = _dropped({name: cut.reason[i] for name, cut in cuts.items()}, labels[i] if labels else "", cutting.alone)
        if why:
            drops.drop(why)
        else:
            kept.append(i)
    drops.merge(DropReport(len(kept), interpolated=int(sum(cut.filled[kept].sum() for cut in cuts.values()))))
    return Aligned(
        windows={name: cut.windows[kept] for name, cut in cuts.items()},
        valid={name: cut.valid[kept] for name, cut in cuts.items()},
        time_s=found.origin_ns / 1e9 + begins[kept],
        labels=[labels[i] or "" for i in kept] if labels else [],
        drops=drops,
        sensors=[_report(stream, cuts[name], cutting.rate_hz(stream)) for name, stream in streams.items()],
        clocks=list(clocks.values()),
        speed=speed,
    )


def _labels(since_s: Float64s, texts: Sequence[str], begins: Float64s, window_s: float) -> list[str | None]:
    """Return the label that covers 80 % of each window, None where none does; [] for a recording without labels."""
    if not texts:
        return []
    names = np.array(["", *texts])
    found: list[str | None] = []
    for low in range(0, len(begins), _BLOCK_LABELS):
        instants = cover_instants(begins[low : low + _BLOCK_LABELS], window_s)
        found += covering(names[np.searchsorted(since_s, instants, side="right")])
    return found


def _dropped(missing: Mapping[str, str], label: str | None, alone: bool) -> str:
    """Return why a moment is no row, "" where it is one.

    Args:
        missing: why each sensor is missing, "" where it is there.
        label: of the moment, "" for none, None where it changes.
        alone: whether one sensor is enough.
    """
    there = sum(not why for why in missing.values())
    if there == 0 or (there == 1 and label == "" and not alone):
        found = set(missing.values())
        return next((reason for reason in REASONS if reason in found), NO_PARTNER)
    return MIXED if label is None else ""


def _report(stream: Stream, cut: Cut, rate_hz: float) -> SensorReport:
    reasons = [each.reason for each in stream.breaks]
    why = [reason for reason in cut.reason if reason]
    return SensorReport(
        sensor=stream.hello.name,
        unit=stream.hello.unit,
        channels=stream.hello.channels,
        rate_hz=rate_hz,
        recorded_hz=round(1 / stream.period_s, 6),
        frames=len(stream.begin_s),
        samples=len(stream.values),
        seconds=round(stream.end_s - float(stream.begin_s[0]), 6),
        starts=stream.starts,
        breaks={reason: reasons.count(reason) for reason in REASONS if reason in reasons},
        repeated=stream.repeated,
        windows=int(cut.valid.sum()),
        missing={reason: why.count(reason) for reason in sorted(set(why))},
    )
