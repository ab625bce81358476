"""From the clock of a microcontroller to that of the host: offset and drift, for each start of a firmware. No I/O.

What bounds a clock is that nothing arrives before it was sent. In a plane of device time and host time every ping lies
below the line that is looked for (it was sent before the device received it), and every answer above it. Delays only
ever add, so the line is the one in the middle of the widest corridor between both, as with the convex hulls of
L. Zhang, Z. Liu, C. H. Xia, "Clock synchronization algorithms for network measurements" (INFOCOM 2002). It needs a
fast ping and a fast answer now and then, where NTP (RFC 5905, section 10) waits for one that is fast both ways.

Where a board answers no pings, only what arrives is known, and the line lies below it: the fastest frames count as
arriving at once. A clock so fitted is late by what the fastest of them took, and says so (`source`).

A crystal drifts slowly as it warms, so over a long recording the line is fitted anew every minute, to two minutes
each, and bends in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.lines import (
    MIN_POINTS,
    NOT_REAL_TIME,
    Float64s,
    Line,
    Trips,
    consenting,
    corridor,
    envelope,
    misses,
    tolerance,
)
from firmware_bridge.recording import Exchange

MAX_DEVICE_US = 1 << 50
"""Device times from here on, 35 years after a start, are no times: as float64 seconds, all below stay apart."""
SPAN_S = 120.0
"""Of one line: long enough for some fast exchanges, short enough for a crystal that warms up."""
_MIN_IN_SPAN = 30
_MAX_PIECES = 10_000
_LineOf = Callable[[NDArray[np.bool_]], Line | None]


@dataclass(frozen=True)
class Clock:
    """The clock of one start of a firmware.

    Attributes:
        link: the link's address.
        boot: of the firmware.
        source: "exchanges", or "arrivals" where there were too few of them.
        count: exchanges or arrivals it was fitted from.
        rejected: exchanges that cannot be true.
        drift_ppm: by how much the device's clock is faster than the host's.
        residual_median_ms: distance of the exchanges' midpoints, or the arrivals, from the line.
        residual_max_ms: the largest of them.
        bound_ms: half the fastest round trip: no unequal delay of the two ways can hide more; None of arrivals.
        device_s: (k,) device time of each bend of the line, ascending, k >= 2.
        host_s: (k,) host time at each bend, since the origin that the fit was given, ascending.
    """

    link: str
    boot: int
    source: str
    count: int
    rejected: int
    drift_ppm: float
    residual_median_ms: float
    residual_max_ms: float
    bound_ms: float | None
    device_s: Float64s
    host_s: Float64s

    @property
    def rate(self) -> float:
        """Seconds of the host's clock in a second of the device's."""
        return float((self.host_s[-1] - self.host_s[0]) / (self.device_s[-1] - self.device_s[0]))

    def to_host_s(self, device_s: Float64s) -> Float64s:
        """Return the host time of each device time, both in s; beyond the first and last bend the line goes on."""
        piece = np.clip(np.searchsorted(self.device_s, device_s, side="right") - 1, 0, len(self.device_s) - 2)
        slope = np.diff(self.host_s) / np.diff(self.device_s)
        mapped: Float64s = self.host_s[piece] + slope[piece] * (device_s - self.device_s[piece])
        return mapped

    def as_json(self) -> dict[str, Any]:
        """Return how it was fitted as plain JSON values."""
        shown = {key: value for key, value in vars(self).items() if key not in ("device_s", "host_s")}
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in shown.items()}


def fit_exchanges(link: str, boot: int, exchanges: Sequence[Exchange], origin_ns: int) -> Clock | None:
    """Fit a clock from TIME exchanges; return None where fewer than `MIN_POINTS` can be true.

    Args:
        link: the link's address.
        boot: of the firmware.
        exchanges: of that link and boot, in any order.
        origin_ns: of the host's clock, where `Clock.host_s` is 0.
    """
    trips = _trips(exchanges, origin_ns)
    bends = _bends(trips.device, lambda rows: corridor(consenting(trips.where(rows))))
    if bends is None:
        return None
    clock = Clock(link, boot, "exchanges", len(exchanges), 0, 0.0, 0.0, 0.0, None, *bends)
    trips = trips.where(misses(trips, clock.to_host_s) <= tolerance(trips))
    if len(trips.sent) < MIN_POINTS:
        return None
    distances = np.abs(trips.host - clock.to_host_s(trips.device))
    least = float(trips.round_trip.min())
    return _told(clock, distances, rejected=len(exchanges) - len(trips.sent), bound_ms=least / 2 * 1e3)


def fit_arrivals(link: str, boot: int, device_s: Float64s, arrived_s: Float64s) -> Clock:
    """Fit a clock that takes the fastest arrivals to have come at once.

    Args:
        link: the link's address.
        boot: of the firmware.
        device_s: (n,) device time at the last sample of each frame, n >= 1.
        arrived_s: (n,) host time of its arrival, since the origin.
    """
    bends = None
    if 1 / NOT_REAL_TIME <= _pace(device_s, arrived_s) <= NOT_REAL_TIME:
        bends = _bends(device_s, lambda rows: envelope(device_s[rows], arrived_s[rows]))
    if bends is None:  # a few frames, or a replay as fast as it goes: the device's clock is all there is
        first = float(device_s.min())
        bends = _ends(device_s, Line(first, float((arrived_s - device_s).min()) + first, 1.0))
    clock = Clock(link, boot, "arrivals", len(device_s), 0, 0.0, 0.0, 0.0, None, *bends)
    return _told(clock, arrived_s - clock.to_host_s(device_s), rejected=0, bound_ms=None)


def _pace(device_s: Float64s, arrived_s: Float64s) -> float:
    """Return seconds of arrival in a second of the device."""
    first, last = int(device_s.argmin()), int(device_s.argmax())
    return float((arrived_s[last] - arrived_s[first]) / max(device_s[last] - device_s[first], 1e-6))


def _told(clock: Clock, distances: Float64s, *, rejected: int, bound_ms: float | None) -> Clock:
    return replace(
        clock,
        rejected=rejected,
        drift_ppm=(1 / clock.rate - 1) * 1e6,
        residual_median_ms=float(np.median(distances)) * 1e3,
        residual_max_ms=float(distances.max()) * 1e3,
        bound_ms=bound_ms,
    )


def _trips(exchanges: Sequence[Exchange], origin_ns: int) -> Trips:
    """Return those exchanges that can be true at all."""
    rows = [
        ((e.sent_ns - origin_ns) / 1e9, e.received_us / 1e6, e.answered_us / 1e6, (e.arrived_ns - origin_ns) / 1e9)
        for e in exchanges
        if e.sent_ns <= e.arrived_ns and e.received_us <= e.answered_us < MAX_DEVICE_US
    ]
    return Trips(*np.array(rows, np.float64).reshape(-1, 4).T)


def _bends(device_s: Float64s, line_of: _LineOf) -> tuple[Float64s, Float64s] | None:
    """Return where the clock bends, in device and host time; None where no line can be fitted.

    Args:
        device_s: (n,) device times of what there is to fit to.
        line_of: returns the line of some of the n, None where they are too few.
    """
    if not len(device_s):
        return None
    first, last = float(device_s.min()), float(device_s.max())
    pieces = min(math.ceil((last - first) / (SPAN_S / 2)), 2 * len(device_s) // _MIN_IN_SPAN, _MAX_PIECES)
    if pieces <= 2:
        return _straight(device_s, line_of)
    reach = (last - first) / pieces
    bends = []
    for moment in np.linspace(first, last, pieces + 1):
        line = line_of(np.abs(device_s - np.clip(moment, first + reach, last - reach)) <= reach)
        if line is not None:
            bends.append((moment, line.at + line.slope * (moment - line.centre)))
    device, host = np.array(bends, np.float64).reshape(-1, 2).T
    return (device, host) if len(device) > 1 and np.all(np.diff(host) > 0) else _straight(device_s, line_of)


def _straight(device_s: Float64s, line_of: _LineOf) -> tuple[Float64s, Float64s] | None:
    line = line_of(np.ones(len(device_s), np.bool_))
    return None if line is None else _ends(device_s, line)


def _ends(device_s: Float64s, line: Line) -> tuple[Float64s, Float64s]:
    first = float(device_s.min())
    ends = np.array([first, max(float(device_s.max()), first + 1.0)])
    return ends, line.to_host_s(ends)
