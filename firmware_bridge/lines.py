"""Straight lines between device time and host time: the widest corridor of exchanges, the envelope of arrivals. No I/O.

See `clock` for what they are for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float64s = NDArray[np.float64]
ToHost = Callable[[Float64s], Float64s]

MIN_POINTS, MIN_SPAN_S = 3, 0.1
"""Exchanges or arrivals that a line is fitted to, at least, and the device time between the first and the last."""
NOT_REAL_TIME = 1.5
"""Clocks of a real machine never differ by this factor; those of a simulation in accelerated time do."""

_USUAL_DRIFT = 100e-6  # of crystals; short recordings tell too little about a drift to contradict it
_CROOKED_S = 0.5e-3  # by which a corridor may close because a crystal warmed up
_BLOCKS = 16
_ROUNDS = 4  # in which exchanges that contradict others are left out
_SEARCHES = 100  # each shortens the interval by a third


class Line(NamedTuple):
    """host = at + slope * (device - centre)."""

    centre: float
    at: float
    slope: float

    def to_host_s(self, device_s: Float64s) -> Float64s:
        """Return the host time of device times."""
        return self.at + self.slope * (device_s - self.centre)


class Trips(NamedTuple):
    """Exchanges as float64 (n,) arrays in s."""

    sent: Float64s
    received: Float64s
    answered: Float64s
    arrived: Float64s

    @property
    def round_trip(self) -> Float64s:
        """Return how long ping and answer were under way."""
        return np.maximum(self.arrived - self.sent - (self.answered - self.received), 0.0)

    @property
    def device(self) -> Float64s:
        """Return the middle on the device."""
        return (self.received + self.answered) / 2

    @property
    def host(self) -> Float64s:
        """Return the middle on the host."""
        return (self.sent + self.arrived) / 2

    def where(self, rows: NDArray[np.bool_]) -> Trips:
        """Return some of the exchanges."""
        return Trips(*(column[rows] for column in self))


def corridor(trips: Trips) -> Line | None:
    """Return the line in the middle of the widest corridor between what was sent and what arrived.

    Where no straight corridor is open, exchanges contradict each other: those that most of them agree on are kept (K.
    Marzullo, S. Owicki, "Maintaining the time in a distributed system", 1983). None where they are too few.
    """
    line = None
    for _ in range(_ROUNDS):
        if not _enough(trips.device):
            break
        line, width = _widest(trips)
        if width >= -_CROOKED_S:
            break
        agreed = Line(line.centre, _agreed(trips, line), line.slope)
        trips = trips.where(misses(trips, agreed.to_host_s) <= _CROOKED_S)
    return line


def _agreed(trips: Trips, line: Line) -> float:
    """Return the host time at the line's centre that most exchanges allow, for the slope of `line`."""
    least = trips.sent - line.slope * (trips.received - line.centre)
    most = trips.arrived - line.slope * (trips.answered - line.centre)
    ends = np.concatenate([least, most])
    order = np.lexsort((np.repeat([0, 1], len(least)), ends))  # of equal ends, those that begin come first
    agreeing = np.cumsum(np.repeat([1, -1], len(least))[order])
    best = int(agreeing.argmax())
    return float(ends[order[best : best + 2]].mean())


def _widest(trips: Trips) -> tuple[Line, float]:
    """Return the line in the middle of the widest corridor, and its width in s: below 0 where none is open.

    With delays that are exponential with mean s, the likelihood of a slope is that of n widths of its corridor over s.
    """
    centre = float(trips.device.mean())
    received, answered = trips.received - centre, trips.answered - centre

    def edges(slope: float) -> tuple[float, float]:
        return float((trips.sent - slope * received).max()), float((trips.arrived - slope * answered).min())

    def width(slope: float) -> float:
        below, above = edges(slope)
        return above - below

    delay_s, span_s = float(trips.round_trip.mean()) / 2, float(np.ptp(trips.device))
    slope = _best_slope(width, len(trips.sent), delay_s, span_s, float(np.polyfit(answered, trips.host, 1)[0]))
    return Line(centre, sum(edges(slope)) / 2, slope), width(slope)


def _enough(device_s: Float64s) -> bool:
    return len(device_s) >= MIN_POINTS and float(np.ptp(device_s)) >= MIN_SPAN_S


def envelope(device_s: Float64s, arrived_s: Float64s) -> Line | None:
    """Return the highest line that lies below all arrivals, closest to them on the whole."""
    if not _enough(device_s):
        return None
    centre = float(device_s.mean())
    device = device_s - centre

    def closeness(slope: float) -> float:
        above = arrived_s - slope * device
        return float(above.min() - above.mean())

    paced = float(np.polyfit(device, arrived_s, 1)[0])
    slope = _best_slope(closeness, len(device_s), -closeness(paced), float(np.ptp(device_s)), paced)
    return Line(centre, float((arrived_s - slope * device).min()), slope)


def _best_slope(score: Callable[[float], float], count: int, delay_s: float, span_s: float, start: float) -> float:
    """Return the likeliest slope.

    Args:
        score: concave, in s; `count` / `delay_s` times it is the logarithm of a slope's likelihood.
        count: of what the line is fitted to.
        delay_s: mean delay.
        span_s: of device time.
        start: slope to look around.
    """
    usual = 1.0 if 1 / NOT_REAL_TIME <= start <= NOT_REAL_TIME else start
    weight = count / max(delay_s, 1e-7)
    reach = 1e-3 * start + 8 * delay_s / span_s
    low, high = min(start - reach, usual), max(start + reach, usual)

    def likelihood(slope: float) -> float:
        return weight * score(slope) - abs(slope / usual - 1) / _USUAL_DRIFT

    for _ in range(_SEARCHES):
        third = (high - low) / 3
        if likelihood(low + third) < likelihood(high - third):
            low += third
        else:
            high -= third
    return max((low + high) / 2, 1e-9)  # time goes on, whatever was claimed


def consenting(trips: Trips) -> Trips:
    """Return the exchanges that agree with a line through the fastest of each block (Theil and Sen)."""
    if len(trips.sent) < MIN_POINTS:
        return trips
    order = np.argsort(trips.device, kind="stable")
    blocks = np.array_split(order, min(_BLOCKS, len(order)))
    fastest = np.array([block[(trips.arrived - trips.sent)[block].argmin()] for block in blocks])
    device, host = trips.device[fastest], trips.host[fastest]
    one, other = np.triu_indices(len(fastest), 1)
    apart = device[other] > device[one]
    if not apart.any():
        return trips
    slope = float(np.median((host[other] - host[one])[apart] / (device[other] - device[one])[apart]))
    line = Line(0.0, float(np.median(host - slope * device)), slope)
    return trips.where(misses(trips, line.to_host_s) <= tolerance(trips))


def misses(trips: Trips, to_host_s: ToHost) -> Float64s:
    """Return by how much a clock has each ping received before it was sent, or its answer sent after it arrived."""
    early, late = trips.sent - to_host_s(trips.received), to_host_s(trips.answered) - trips.arrived
    return np.maximum(np.maximum(early, late), 0.0)


def tolerance(trips: Trips) -> float:
    """Return by how much an exchange may miss a clock that is not fitted well yet: a usual round trip."""
    return 1e-3 + float(np.median(trips.round_trip)) if len(trips.sent) else 0.0
