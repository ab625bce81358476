"""Cutting the streams of a recording into windows on one grid. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.clock import Record, on_windows
from edge_cmcl.data.cutting import window_samples
from edge_cmcl.data.windows import repair
from edge_cmcl.errors import DataError
from firmware_bridge.collecting import MAX_BYTES
from firmware_bridge.streams import GAP, REASONS, UNBRIDGED, Stream

NOT_RECORDED = "not recorded"

_BLOCK_VALUES = 1 << 21  # that are cut at once

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Cutting:
    """How windows are cut.

    Attributes:
        window_s: length of a window.
        windows_s: of the windows of some sensors, where it is another one.
        step_s: distance of their starts; None for the longest window.
        rates_hz: of the windows of some sensors; by default the nominal one.
        max_gap_s: longest distance of two samples that is no gap; None for 1.5 periods.
        alone: whether one sensor without labels is a row, too: to use what was learned, not to learn.
    """

    window_s: float
    windows_s: Mapping[str, float] = field(default_factory=dict)
    step_s: float | None = None
    rates_hz: Mapping[str, float] = field(default_factory=dict)
    max_gap_s: float | None = None
    alone: bool = False

    def length_s(self, name: str) -> float:
        """Return the length of a window of a sensor."""
        return self.windows_s.get(name, self.window_s)

    def rate_hz(self, stream: Stream) -> float:
        """Return the rate of the windows of a sensor."""
        return self.rates_hz.get(stream.hello.name, stream.hello.rate_hz)


@dataclass
class Cut:
    """One sensor on the grid: its windows, where it has one, how many samples were filled in, and why it has none."""

    windows: NDArray[np.float32]
    valid: NDArray[np.bool_]
    filled: NDArray[np.int64]
    reason: list[str]


def grid(where: str, streams: Mapping[str, Stream], cutting: Cutting) -> Float64s:
    """Return the start of each window (n,), anew after each pause of all sensors that is longer than a window.

    Raises:
        UsageError: a window is too short or too long.
        DataError: the windows would take more than `MAX_BYTES`.
    """
    longest = max(map(cutting.length_s, streams))
    step = cutting.step_s or longest
    row = 0
    for name, stream in streams.items():
        samples = window_samples(name, cutting.length_s(name), cutting.rate_hz(stream), stream.hello.channels)
        row += 4 * samples * stream.hello.channels
    begins = []
    total = 0
    for begin, end in _stretches([span for stream in streams.values() for span in stream.spans(longest)], longest):
        count = max(int(np.floor((end - begin - longest) / step + 1e-6)) + 1, 0)
        total += count
        if total * row > MAX_BYTES:
            raise DataError(
                f"{where} gives too many windows",
                expected=f"at most {MAX_BYTES >> 20} MiB of them",
                got="more",
                hint="take a longer --step, lower rates, or the files of the recording one by one",
            )
        begins.append(begin + step * np.arange(count, dtype=np.float64))
    return np.concatenate(begins)


def _stretches(spans: Sequence[tuple[float, float]], longest_s: float) -> list[tuple[float, float]]:
    """Return from when to when anything was recorded.

    A stretch begins with the last of the sensors that begin within a window, and ends with the first of those that end
    within one.
    """
    merged: list[list[tuple[float, float]]] = []
    end = -np.inf
    for span in sorted(spans):
        if span[0] > end + longest_s:
            merged.append([])
        merged[-1].append(span)
        end = max(end, span[1])
    stretches = []
    for each in merged:
        first, last = each[0][0], max(stop for _, stop in each)
        begin = max(start for start, _ in each if start < first + longest_s)
        stretches.append((begin, min(stop for _, stop in each if stop > last - longest_s)))
    return stretches


def cut_stream(stream: Stream, begins: Float64s, cutting: Cutting) -> Cut:
    """Cut one sensor into windows that begin at `begins` (n,).

    Raises:
        UsageError: a window is too short or too long.
    """
    name, channels = stream.hello.name, stream.hello.channels
    length, rate = cutting.length_s(name), cutting.rate_hz(stream)
    samples = window_samples(name, length, rate, channels)
    n = len(begins)
    cut = Cut(np.zeros((n, samples, channels), np.float32), np.zeros(n, np.bool_), np.zeros(n, np.int64), [""] * n)
    step = float(np.median(np.diff(begins))) if n > 1 else length
    per_window = max(samples, step / stream.period_s, length / stream.period_s) * channels
    block = max(1, int(_BLOCK_VALUES / per_window))
    margin = 2 * max(cutting.max_gap_s or 0.0, stream.period_s, 1 / rate)
    for low in range(0, n, block):
        some = begins[low : low + block]
        times, values = stream.between(some[0] - margin, some[-1] + length + margin)
        record = Record(times, values, stream.period_s, len(times), 0)
        raw = on_windows(record, some, samples, rate, cutting.max_gap_s)
        for i, window in enumerate(raw, start=low):
            end = begins[i] + length
            if not _inside(stream, begins[i], end) or stream.broken_by(begins[i], end) & UNBRIDGED:
                continue
            mended, filled = repair(window)
            if mended is not None:
                cut.windows[i], cut.filled[i], cut.valid[i] = mended, filled, True
    for i in np.flatnonzero(~cut.valid).tolist():
        cut.reason[i] = _why_missing(stream, begins[i], begins[i] + length)
    return cut


def _why_missing(stream: Stream, begin_s: float, end_s: float) -> str:
    found = stream.broken_by(begin_s, end_s)
    for reason in REASONS:
        if reason in found:
            return reason
    return GAP if _inside(stream, begin_s, end_s) else NOT_RECORDED


def _inside(stream: Stream, begin_s: float, end_s: float) -> bool:
    """Return whether a sensor was recorded from one time to another, but for a period."""
    return bool(stream.begin_s[0] - stream.period_s <= begin_s and end_s <= stream.end_s + stream.period_s)
