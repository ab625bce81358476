"""What a recording holds, sorted: samples by stream, start of the firmware and sequence; exchanges; labels. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.pairs_format import check_name
from edge_cmcl.errors import DataError
from edge_cmcl.limits import MAX_LABEL_LENGTH
from firmware_bridge.clock import MAX_DEVICE_US, Clock, fit_arrivals, fit_exchanges
from firmware_bridge.lines import NOT_REAL_TIME
from firmware_bridge.recording import Event, Exchange, Label, Samples, StreamInfo

MAX_BYTES = 1 << 29
"""Of the samples of all sensors that are paired, and of their windows; up to four times as much is needed meanwhile."""

_EVENT_BYTES = 256  # that an event costs beside its samples
_LABEL_BYTES = 4 * MAX_LABEL_LENGTH
Start = tuple[str, int]
"""Link and boot: what has a clock of its own."""


@dataclass
class Part:
    """The frames of one stream and start of its firmware, in the order in which they came; one entry each.

    Attributes:
        sequence: of the frame.
        time_us: device clock at its first sample.
        arrived_ns: host clock.
        values: (samples, channels) float32.
    """

    sequence: list[int] = field(default_factory=list)
    time_us: list[int] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    values: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass
class Collected:
    """What a recording holds.

    Attributes:
        where: the recording, for messages.
        origin_ns: host clock at its first event: the common time counts from there.
        parts: per sensor that was asked for, its frames by what HELLO said and boot.
        exchanges: TIME exchanges by link and boot.
        labels: (host clock in ns, text), in order of time.
        seen: every stream in the recording, whatever its kind.
    """

    where: str
    origin_ns: int = 0
    parts: dict[str, dict[tuple[StreamInfo, int], Part]] = field(default_factory=dict)
    exchanges: dict[Start, list[Exchange]] = field(default_factory=dict)
    labels: list[tuple[int, str]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def collect(where: str, events: Iterable[Event], wanted: Collection[str] | None = None) -> Collected:
    """Sort the events of a recording.

    Args:
        where: the recording, for messages.
        events: in the order in which they were recorded.
        wanted: the sensors to keep, None for all.

    Raises:
        DataError: a sensor's name cannot name a modality, or there is more than `MAX_BYTES` of them.
    """
    found = Collected(where)
    taken = 0
    for event in events:
        if not found.origin_ns:
            found.origin_ns = _time_ns(event)
        taken += _EVENT_BYTES
        if isinstance(event, Exchange):
            found.exchanges.setdefault((event.link, event.boot), []).append(event)
        elif isinstance(event, Label):
            taken += _LABEL_BYTES
            found.labels.append((event.since_ns, _checked(where, event.label)))
        else:
            taken += _take(found, event, wanted)
        if taken > MAX_BYTES:
            raise DataError(
                f"{where} is too long to be paired at once",
                expected=f"at most {MAX_BYTES >> 20} MiB of samples",
                got="more",
                hint="pair its files one by one, or choose sensors",
            )
    found.labels.sort(key=lambda label: label[0])
    return found


def clocks_of(found: Collected) -> dict[Start, Clock]:
    """Return a clock for each start of a firmware that samples came from: from exchanges, or else from arrivals."""
    arrivals: dict[Start, list[tuple[StreamInfo, Part]]] = {}
    for parts in found.parts.values():
        for (info, boot), part in parts.items():
            arrivals.setdefault((info.link, boot), []).append((info, part))
    clocks = {}
    for (link, boot), came in arrivals.items():
        clock = fit_exchanges(link, boot, found.exchanges.get((link, boot), ()), found.origin_ns)
        if clock is None:
            rows = [row for info, part in came for row in _arrivals(info, part, found.origin_ns)]
            if not rows:
                continue
            clock = fit_arrivals(link, boot, *np.array(rows, np.float64).T)
        clocks[link, boot] = clock
    return clocks


def speed_of(clocks: Iterable[Clock]) -> float:
    """Return how many seconds pass for the devices in one of the host: 1, but for simulations in accelerated time."""
    rate = float(np.median([clock.rate for clock in clocks] or [1.0]))
    return 1.0 if 1 / NOT_REAL_TIME <= rate <= NOT_REAL_TIME else 1 / rate


def _arrivals(info: StreamInfo, part: Part, origin_ns: int) -> Iterable[tuple[float, float]]:
    """Yield device time at the last sample and host time of arrival of each frame, in s."""
    for time_us, arrived_ns, values in zip(part.time_us, part.arrived_ns, part.values, strict=True):
        if time_us < MAX_DEVICE_US:
            yield time_us / 1e6 + (len(values) - 1) / info.hello.rate_hz, (arrived_ns - origin_ns) / 1e9


def _take(found: Collected, event: Samples, wanted: Collection[str] | None) -> int:
    """Keep a frame if its stream is wanted, and return the bytes that it takes."""
    name = event.stream.hello.name
    found.seen.add(name)
    if event.stream.hello.kind != "sensor" or (wanted is not None and name not in wanted) or not len(event.values):
        return -_EVENT_BYTES
    if name not in found.parts:
        check_name(found.where, name)
    part = found.parts.setdefault(name, {}).setdefault((event.stream, event.boot), Part())
    part.sequence.append(event.sequence)
    part.time_us.append(event.device_time_us)
    part.arrived_ns.append(event.arrived_ns)
    part.values.append(event.values)
    return event.values.nbytes


def _checked(where: str, label: str) -> str:
    if len(label) > MAX_LABEL_LENGTH:
        expected = f"at most {MAX_LABEL_LENGTH} characters"
        raise DataError(f"{where} has a label that is too long", expected=expected, got=label)
    return label


def _time_ns(event: Event) -> int:
    return event.since_ns if isinstance(event, Label) else event.arrived_ns
