"""Boards with clocks of their own, whose samples and exchanges become recordings: what is true is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.simulator import SENSORS, simulate
from firmware_bridge.hello import Hello
from firmware_bridge.recording import Event, Exchange, Label, RecordingWriter, Samples, StreamInfo

ORIGIN_NS = 1_790_000_000_000_000_000
Signal = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass
class Board:
    """A firmware on a link. Its clock was 0 at `started_s` of the host's, and is `ppm` too fast.

    What it sends arrives 1 ms later, and up to `jitter_s` more.
    """

    link: str = "tcp:a"
    boot: int = 1
    started_s: float = -5.0
    ppm: float = 0.0
    jitter_s: float = 0.002
    seed: int = 0
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng([self.seed, self.boot, sum(self.link.encode())])

    def device_us(self, host_s: float) -> int:
        return round((host_s - self.started_s) * (1 + self.ppm * 1e-6) * 1e6)

    def host_s(self, device_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return device_s / (1 + self.ppm * 1e-6) + self.started_s

    def delay_s(self) -> float:
        return 0.001 + float(self.random.uniform(0, self.jitter_s))

    def stream(self, name: str = "acc", *, rate_hz: float = 100.0, channels: int = 1, unit: str = "g", stream: int = 1,
               kind: str = "sensor") -> StreamInfo:  # fmt: skip
        return StreamInfo(self.link, stream, Hello(name, unit, 1.0, rate_hz, channels, 6, "test 1", kind))

    def samples(self, info: StreamInfo, signal: Signal, begin_s: float, end_s: float, *, frame: int = 10,
                rate_hz: float | None = None) -> list[Samples]:  # fmt: skip
        """Samples of `signal`, a function of host time, taken at `rate_hz` of the board's clock."""
        rate = rate_hz or info.hello.rate_hz
        count = int((end_s - begin_s) * rate) // frame * frame
        host_s = self.host_s(self.device_us(begin_s) / 1e6 + np.arange(count) / rate)
        return self.play(info, signal(host_s), begin_s, frame=frame, rate_hz=rate)

    def play(self, info: StreamInfo, values: NDArray[Any], begin_s: float, *, frame: int = 10,
             rate_hz: float | None = None) -> list[Samples]:  # fmt: skip
        """Samples with these values, taken from `begin_s` on at `rate_hz` of the board's clock."""
        rate = rate_hz or info.hello.rate_hz
        device_s = self.device_us(begin_s) / 1e6 + np.arange(len(values)) / rate
        host_s = self.host_s(device_s)
        rows = np.array(values, np.float32).reshape(len(values), -1)
        return [
            Samples(
                info, ns(host_s[min(i + frame, len(rows)) - 1] + self.delay_s()), self.boot, i // frame,
                round(device_s[i] * 1e6), rows[i : i + frame],
            )
            for i in range(0, len(rows), frame)
        ]  # fmt: skip

    def exchanges(self, begin_s: float, end_s: float, *, rate_hz: float = 2.0) -> list[Exchange]:
        found = []
        for sent in np.arange(begin_s, end_s, 1 / rate_hz):
            came = sent + self.delay_s()
            arrived = came + 1e-4 + self.delay_s()
            times = (self.device_us(came), self.device_us(came + 1e-4))
            found.append(Exchange(self.link, self.boot, ns(sent), ns(arrived), *times))
        return found


def ns(host_s: float) -> int:
    return ORIGIN_NS + round(float(host_s) * 1e9)


def label(at_s: float, text: str) -> Label:
    return Label(ns(at_s), text)


def arrived(event: Event) -> int:
    return event.since_ns if isinstance(event, Label) else event.arrived_ns


def in_order(*parts: Iterable[Event]) -> list[Event]:
    return sorted((event for part in parts for event in part), key=arrived)


def write(path: Path, *parts: Iterable[Event]) -> Path:
    """Write a file of a recording, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = RecordingWriter(file)
        for event in in_order(*parts):
            writer.write(event)
        writer.finish({})
    return path


def without(samples: list[Samples], begin_s: float, end_s: float) -> list[Samples]:
    """Lose the frames that arrive between two times."""
    return [each for each in samples if not ns(begin_s) <= each.arrived_ns < ns(end_s)]


def dropped(samples: list[Samples], begin_s: float, end_s: float) -> list[Samples]:
    """Drop them in the board, where they get no sequence."""
    kept = without(samples, begin_s, end_s)
    return [replace(each, sequence=i) for i, each in enumerate(kept)]


def chirp(host_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """A signal that tells its time: shifted by 1 ms it differs by up to 0.03."""
    return np.sin(2 * np.pi * (3 * host_s + 0.02 * host_s**2))


def machine(path: Path, *, windows: int = 240, unit: str = "") -> Path:
    """Record the simulated machine through two boards, its health states as labels.

    It is what `write_simulated` writes with seed 2; `unit` replaces that of acoustic.
    """
    made = simulate(windows, ("acoustic", "vibration", "current"), seed=2)
    boards = {"acoustic": Board("tcp:ears", 21, ppm=4), "vibration": Board("tcp:body", 22, started_s=-900.0, ppm=-3)}
    events: list[Event] = [board_event for board in boards.values() for board_event in board.exchanges(0, 2 * windows)]
    for number, (name, rows) in enumerate(made.windows.items(), start=1):
        board = boards.get(name, boards["vibration"])
        kind = SENSORS[name]
        info = board.stream(name, rate_hz=kind.rate_hz, channels=rows.shape[2], stream=number,
                            unit=unit if unit and name == "acoustic" else kind.unit)  # fmt: skip
        events += board.play(info, rows.reshape(-1, rows.shape[2]), 0.0, frame=16)
    changes = np.flatnonzero(np.diff(made.labels, prepend=-1))
    events += [label(2.0 * i, made.label_names[made.labels[i]]) for i in changes]
    return write(path, events)
