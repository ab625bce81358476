"""One sensor's samples on the common clock, and where they break off. No I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.clock import MIN_RATE_SHARE
from edge_cmcl.errors import DataError
from firmware_bridge.clock import MAX_DEVICE_US, Clock
from firmware_bridge.collecting import Part, Start
from firmware_bridge.hello import Hello
from firmware_bridge.recording import StreamInfo

REBOOT, CHANGED, LOSS, GAP = "reboot", "new HELLO", "loss", "gap"
REASONS = (REBOOT, CHANGED, LOSS, GAP)
"""Why samples break off, the most telling first: a reboot is no loss, and a lost frame no gap."""
UNBRIDGED = {REBOOT, CHANGED}
"""Over these nothing is interpolated: what is before and what is after are two recordings."""

_LATE_PERIODS = 0.5  # by which the next frame may be late before samples are missing
_MAX_OVERLAP_S = 1.0  # of two starts of one firmware, which only the error of their clocks can make

Float64s = NDArray[np.float64]
Integers = NDArray[np.int64]


class Break(NamedTuple):
    """Where samples break off: times of the last one before and the first one after, in s."""

    begin_s: float
    end_s: float
    reason: str


@dataclass(frozen=True)
class Stream:
    """One sensor's samples, frame by frame, in ascending order of time.

    Attributes:
        hello: what its firmware said first.
        begin_s: (k,) common time of the first sample of each frame.
        step_s: (k,) distance of its samples.
        counts: (k,) its samples.
        first: (k,) where they begin in `values`.
        values: (t, C) float32; what is not finite is missing.
        period_s: usual distance of samples.
        breaks: where they break off, in order.
        starts: of the firmware.
        repeated: frames left out because another one has the same device time.
    """

    hello: Hello
    begin_s: Float64s
    step_s: Float64s
    counts: Integers
    first: Integers
    values: NDArray[np.float32]
    period_s: float
    breaks: tuple[Break, ...]
    starts: int
    repeated: int

    @property
    def end_s(self) -> float:
        """Return when the period of the last sample ends."""
        return float(self.begin_s[-1] + self.counts[-1] * self.step_s[-1])

    def between(self, begin_s: float, end_s: float) -> tuple[Float64s, Float64s]:
        """Return times (n,) and values (n, C) of all frames that have a part between two times."""
        low = max(int(np.searchsorted(self.begin_s, begin_s, side="right")) - 1, 0)
        high = max(int(np.searchsorted(self.begin_s, end_s, side="right")), low)
        count, first = self.counts[low:high], self.first[low : high + 1]
        samples = int(count.sum())
        origin = int(first[0]) if samples else 0
        within = np.arange(samples) - np.repeat(np.cumsum(count) - count, count)
        times = np.repeat(self.begin_s[low:high], count) + within * np.repeat(self.step_s[low:high], count)
        return times, self.values[origin : origin + samples].astype(np.float64)

    def broken_by(self, begin_s: float, end_s: float) -> set[str]:
        """Return the reasons why samples break off between two times."""
        low = bisect_right(self.breaks, begin_s, key=lambda each: each.end_s)
        high = bisect_left(self.breaks, end_s, key=lambda each: each.begin_s)
        return {each.reason for each in self.breaks[low:high]}

    def spans(self, longest_s: float) -> list[tuple[float, float]]:
        """Return when it was recorded, gaps up to `longest_s` included."""
        long = [each for each in self.breaks if each.end_s - each.begin_s > longest_s]
        begins = [float(self.begin_s[0]), *(each.end_s for each in long)]
        return list(zip(begins, [*(each.begin_s for each in long), self.end_s], strict=True))


class _Piece(NamedTuple):
    """The frames of one start, in order."""

    info: StreamInfo
    boot: int
    begin_s: Float64s
    step_s: Float64s
    counts: Integers
    values: list[NDArray[np.float32]]
    reason: list[str]
    period_s: float
    repeated: int

    def since(self, time_s: float) -> _Piece:
        """Return the frames that begin after `time_s`."""
        low = int(np.searchsorted(self.begin_s, time_s, side="right"))
        return self._replace(
            begin_s=self.begin_s[low:], step_s=self.step_s[low:], counts=self.counts[low:], values=self.values[low:],
            reason=self.reason[low:],
        )  # fmt: skip


def build_stream(
    where: str, parts: Mapping[tuple[StreamInfo, int], Part], clocks: Mapping[Start, Clock], speed: float
) -> Stream | None:
    """Put the samples of one sensor onto the common clock; return None where none has a time.

    Args:
        where: the recording, for messages.
        parts: its frames by what HELLO said and boot.
        clocks: by link and boot.
        speed: seconds of the common clock in one of the host's.

    Raises:
        DataError: unit or channels change within the recording, the rate is far from the nominal one, or two streams
            of one name overlap.
    """
    _check_one_kind(where, [info for info, _ in parts])
    pieces = []
    for (info, boot), part in parts.items():
        clock = clocks.get((info.link, boot))
        piece = None if clock is None else _piece(where, info, boot, part, clock, speed)
        if piece is not None:
            pieces.append(piece)
    pieces.sort(key=lambda piece: piece.begin_s[0])
    return _joined(where, pieces) if pieces else None


def _check_one_kind(where: str, infos: Sequence[StreamInfo]) -> None:
    kinds = {(info.hello.unit, info.hello.channels) for info in infos}
    if len(kinds) > 1:
        raise DataError(
            f"{where}: {infos[0].hello.name!r} changes within the recording",
            expected="one unit and one number of channels",
            got="; ".join(f"{channels} channels in {unit}" for unit, channels in sorted(kinds)),
            hint="pair the files from before and after the change one by one",
        )


def _piece(where: str, info: StreamInfo, boot: int, part: Part, clock: Clock, speed: float) -> _Piece | None:
    order, sequence = _in_order(part)
    if not len(order):
        return None
    device_s = np.array(part.time_us, np.uint64)[order].astype(np.float64) / 1e6
    count = np.array([len(part.values[i]) for i in order], np.int64)
    apart, follows = np.diff(device_s), np.diff(sequence) == 1
    period = float(np.median((apart / count[:-1])[follows])) if follows.any() else 1 / info.hello.rate_hz
    if MIN_RATE_SHARE * info.hello.rate_hz * period > 1:
        raise DataError(
            f"{where}: {info.hello.name!r} is far slower than its HELLO says",
            expected=f"about {info.hello.rate_hz:g} Hz",
            got=f"{1 / period:g} Hz",
            hint="correct the rate in the firmware, or its device time, which is in microseconds",
        )
    missing = apart - count[:-1] * period > _LATE_PERIODS * period
    reason = np.where(missing, np.where(follows, GAP, LOSS), "")
    begin = clock.to_host_s(device_s) * speed
    step = np.full(len(begin), period * clock.rate * speed)
    step[:-1] = np.minimum(step[:-1], np.diff(begin) / count[:-1])
    return _Piece(
        info, boot, begin, step, count, [part.values[i] for i in order], ["", *reason.tolist()], float(step[-1]),
        len(part.sequence) - len(order),
    )  # fmt: skip


def _in_order(part: Part) -> tuple[Integers, Integers]:
    """Return which frames to take, in order of device time, each time once; and how far each is from the first.

    Device time never goes back within a boot, so its order is that of the sequence, and survives a wrong number.
    """
    sequence = np.array(part.sequence, np.int64)
    steps = (np.diff(sequence) + (1 << 31)) % (1 << 32) - (1 << 31)
    sequence = np.concatenate([[0], np.cumsum(steps)])
    time = np.minimum(np.array(part.time_us, np.uint64), MAX_DEVICE_US).astype(np.int64)
    _, order = np.unique(time, return_index=True)
    order = order[time[order] < MAX_DEVICE_US]
    return order, sequence[order]


def _joined(where: str, pieces: Sequence[_Piece]) -> Stream:
    kept = [pieces[0]]
    for piece in pieces[1:]:
        before = kept[-1]
        end = float(before.begin_s[-1] + (before.counts[-1] - 1) * before.step_s[-1])
        if end - piece.begin_s[0] > _MAX_OVERLAP_S:
            name = piece.info.hello.name
            raise DataError(
                f"{where} has two streams called {name!r} at the same time",
                expected="one stream of a name",
                got=f"{before.info.link} stream {before.info.stream} and {piece.info.link} stream {piece.info.stream}",
                hint="give each sensor a name of its own in its firmware",
            )
        piece = piece.since(end)
        if len(piece.begin_s):
            piece.reason[0] = REBOOT if piece.boot != before.boot or piece.info.link != before.info.link else CHANGED
            kept.append(piece)
    begin, step, count = (np.concatenate([each[i] for each in kept]) for i in (2, 3, 4))
    reasons = [reason for piece in kept for reason in piece.reason]
    last = begin + (count - 1) * step
    return Stream(
        hello=kept[0].info.hello,
        begin_s=begin,
        step_s=step,
        counts=count,
        first=np.cumsum(count) - count,
        values=np.concatenate([values for piece in kept for values in piece.values]),
        period_s=float(np.median([piece.period_s for piece in kept])),
        breaks=tuple(
            Break(float(last[k - 1]), float(begin[k]), reasons[k]) for k in range(1, len(begin)) if reasons[k]
        ),
        starts=len({(piece.info.link, piece.boot) for piece in kept}),
        repeated=sum(piece.repeated for piece in pieces),
    )
