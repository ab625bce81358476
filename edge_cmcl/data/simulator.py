"""Recordings of a simulated machine, as pairs files: deterministic, in no time, with the faults of real recordings.

The physics stands in `machine`. The machine is always the same one: another seed is another day at it, another run
(group) another drive cycle in one health state. Sensors that are not asked for change nothing in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data import machine
from edge_cmcl.data.pairs import write_pairs
from edge_cmcl.data.windows import DropReport, repair
from edge_cmcl.errors import UsageError
from edge_cmcl.progress import Progress, silent

WINDOW_S = 2.0
Windows64 = NDArray[np.float64]

MEAN_BURST = 6  # samples that go missing together
_MEASURE, _SPOIL = 0, 1  # random streams of one sensor in one run


@dataclass(frozen=True)
class SimulatedSensor:
    """One sensor of the machine: its nominal rate, its unit and its physics (see `machine`)."""

    rate_hz: float
    unit: str
    measure: Callable[[machine.Latent, np.random.Generator], NDArray[np.float64]]

    @property
    def samples(self) -> int:
        """Samples in a window of `WINDOW_S`."""
        return round(self.rate_hz * WINDOW_S)


SENSORS: Mapping[str, SimulatedSensor] = MappingProxyType(
    {
        "vibration": SimulatedSensor(128.0, "g", machine.vibration),
        "current": SimulatedSensor(100.0, "10 A", machine.current),
        "acoustic": SimulatedSensor(128.0, "Pa", machine.acoustic),
        "temperature": SimulatedSensor(8.0, "(degC - 50) / 10", machine.temperature),
        "shaft_speed": SimulatedSensor(64.0, "400 rpm", machine.shaft_speed),
        "pressure": SimulatedSensor(80.0, "bar", machine.pressure),
    }
)


@dataclass(frozen=True)
class Faults:
    """What goes wrong in the recording.

    Attributes:
        noise: white noise added to each channel, relative to its standard deviation within the run.
        missing: share of the samples that are missing, in bursts of `MEAN_BURST` samples on average.
        drift: change of gain over the whole recording, and of zero relative to the standard deviation (0.1 = 10 %).
        clock_offset_s: each sensor's clock is off by a constant drawn from within +- this; at most 1 s.
    """

    noise: float = 0.0
    missing: float = 0.0
    drift: float = 0.0
    clock_offset_s: float = 0.0

    def __post_init__(self) -> None:
        limits = {"noise": (0, 100), "missing": (0, 0.9), "drift": (-1, 100), "clock_offset_s": (0, machine.MARGIN_S)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(
                    f"{name} of the simulator is out of range", expected=f"{low} to {high}", got=str(value)
                )


@dataclass(frozen=True)
class SimulatedMachine:
    """Synchronised windows of the simulated machine; row i of every array is the same moment.

    Attributes:
        windows: per sensor float32 (n, T, C).
        labels: int64 (n,), index into `label_names`.
        label_names: the health states.
        groups: int64 (n,), the run of each row; a run is one drive cycle in one state.
        time_s: float64 (n,), start of each window; the runs follow each other.
        valid: per sensor bool (n,), False where more than 20 % of the samples are missing (the window is zeros).
        speed_hz: float64 (n,), true mean shaft speed.
        load: float64 (n,), true mean load.
        clock_offset_s: true offset per sensor.
        report: samples interpolated.
    """

    windows: dict[str, NDArray[np.float32]]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    groups: NDArray[np.int64]
    time_s: NDArray[np.float64]
    valid: dict[str, NDArray[np.bool_]]
    speed_hz: NDArray[np.float64]
    load: NDArray[np.float64]
    clock_offset_s: dict[str, float]
    report: DropReport = field(default_factory=DropReport)


@dataclass(frozen=True)
class _Day:
    """One seed at the machine, in `runs` runs."""

    seed: int
    runs: int
    windows_per_run: int
    faults: Faults

    def random(self, stream: str, *rest: int) -> np.random.Generator:
        """Return a stream of its own for each purpose, so that no sensor's draws depend on another's."""
        streams = ("latent", "state", "offset", *SENSORS)
        return np.random.default_rng([self.seed, streams.index(stream), *rest])

    def state(self, run: int) -> int:
        """Return the health state of a run; each block of runs has every state once, in its own order.

        A fixed order would put the states apart in any split by run number, odd and even for instance.
        """
        block, place = divmod(run, len(machine.STATES))
        return int(self.random("state", block).permutation(len(machine.STATES))[place])

    def offset_s(self, sensor: str) -> float:
        """Return how far the clock of `sensor` is off."""
        return float(self.random("offset", list(SENSORS).index(sensor)).uniform(-1, 1) * self.faults.clock_offset_s)

    def record(self, sensor: str, run: int, clock_s: Windows64, latent: machine.Latent) -> Windows64:
        """Return what `sensor` measures in `run`: (windows, T, C), missing samples as NaN."""
        kind = SENSORS[sensor]
        instants = np.arange(self.windows_per_run * kind.samples) / kind.rate_hz + self.offset_s(sensor)
        values: Windows64 = kind.measure(
            machine.on_sensor_clock(clock_s, latent, instants), self.random(sensor, run, _MEASURE)
        )
        spread = values.std(axis=0)
        moved = self.faults.drift * (run + 1) / self.runs
        values = values * (1 + moved) + moved * spread
        random = self.random(sensor, run, _SPOIL)
        values += self.faults.noise * spread * random.standard_normal(values.shape)
        values[_missing(len(values), self.faults.missing, random)] = np.nan
        return values.reshape(self.windows_per_run, kind.samples, -1)


def simulate(
    n_windows: int,
    sensors: Sequence[str] | None = None,
    *,
    seed: int,
    noise: float = 0.0,
    missing: float = 0.0,
    drift: float = 0.0,
    clock_offset_s: float = 0.0,
    windows_per_run: int = 10,
    progress: Progress = silent,
) -> SimulatedMachine:
    """Simulate `n_windows` consecutive windows of `WINDOW_S` seconds, in runs of `windows_per_run`.

    Args:
        n_windows: rows wanted, at least 1.
        sensors: names among `SENSORS`; all of them by default.
        seed: the day at the machine; the same seed gives the same arrays, bit for bit.
        noise: see `Faults`, like the three that follow.
        missing: share of the samples.
        drift: relative, at the end of the recording.
        clock_offset_s: largest error of a sensor's clock.
        windows_per_run: windows in one run; each block of `len(machine.STATES)` runs has every health state once.
        progress: called once a run.

    Raises:
        UsageError: an unknown sensor, or a number out of range.
    """
    names = _chosen(sensors)
    if n_windows < 1 or windows_per_run < 1 or seed < 0:
        got = f"{n_windows} windows, {windows_per_run} in a run, seed {seed}"
        raise UsageError("the simulator cannot run", expected="at least 1 window, 1 in a run, seed >= 0", got=got)
    runs = -(-n_windows // windows_per_run)
    day = _Day(seed, runs, windows_per_run, Faults(noise, missing, drift, clock_offset_s))
    states = np.array([day.state(run) for run in range(runs)], dtype=np.int64)
    points: list[Windows64] = []
    records: dict[str, list[Windows64]] = {name: [] for name in names}
    for run in range(runs):
        state = machine.STATES[states[run]]
        clock_s, latent = machine.run_latent(windows_per_run * WINDOW_S, state, day.random("latent", run))
        points.append(_operating_points(clock_s, latent, windows_per_run))
        for name in names:
            records[name].append(day.record(name, run, clock_s, latent))
        progress("simulate", run + 1, runs)
    report = DropReport(kept=n_windows)
    mended = {name: _mend(np.concatenate(parts)[:n_windows], report) for name, parts in records.items()}
    speed_hz, load = np.concatenate(points)[:n_windows].T
    groups = np.repeat(np.arange(runs, dtype=np.int64), windows_per_run)[:n_windows]
    return SimulatedMachine(
        windows={name: windows for name, (windows, _) in mended.items()},
        labels=states[groups],
        label_names=machine.STATES,
        groups=groups,
        time_s=np.arange(n_windows, dtype=np.float64) * WINDOW_S,
        valid={name: valid for name, (_, valid) in mended.items()},
        speed_hz=speed_hz,
        load=load,
        clock_offset_s={name: day.offset_s(name) for name in names},
        report=report,
    )


def write_simulated(
    path: Path | str,
    n_windows: int,
    sensors: Sequence[str] | None = None,
    *,
    seed: int,
    labelled: bool = True,
    noise: float = 0.0,
    missing: float = 0.0,
    drift: float = 0.0,
    clock_offset_s: float = 0.0,
    windows_per_run: int = 10,
    progress: Progress = silent,
) -> SimulatedMachine:
    """Simulate (see `simulate`) and write a pairs file with groups, rates, units and, if `labelled`, health states.

    Raises:
        UsageError: an unknown sensor, or a number out of range.
        StorageError: the file system refused.
    """
    made = simulate(
        n_windows,
        sensors,
        seed=seed,
        noise=noise,
        missing=missing,
        drift=drift,
        clock_offset_s=clock_offset_s,
        windows_per_run=windows_per_run,
        progress=progress,
    )
    write_pairs(
        path,
        made.windows,
        labels=made.labels if labelled else None,
        label_names=made.label_names if labelled else (),
        groups=made.groups,
        time=made.time_s,
        valid={name: valid for name, valid in made.valid.items() if not valid.all()},
        rate_hz={name: SENSORS[name].rate_hz for name in made.windows},
        units={name: SENSORS[name].unit for name in made.windows},
        source=f"simulated machine, seed {seed}",
    )
    return made


def _chosen(sensors: Sequence[str] | None) -> list[str]:
    names = list(SENSORS) if sensors is None else list(sensors)
    unknown = [name for name in names if name not in SENSORS]
    if unknown or not names or len(set(names)) != len(names):
        got = ", ".join(names) or "none"
        raise UsageError("the simulated machine has other sensors", expected=f"some of {', '.join(SENSORS)}", got=got)
    return names


def _operating_points(clock_s: Windows64, latent: machine.Latent, windows: int) -> Windows64:
    """Return the mean speed and load of each window, (windows, 2)."""
    window = np.floor(clock_s / WINDOW_S).astype(int)
    inside = [window == i for i in range(windows)]
    return np.array([[latent.speed_hz[rows].mean(), latent.load[rows].mean()] for rows in inside])


def _missing(count: int, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return a bool (count,): about `share` of the samples, in bursts of geometric length."""
    # Bursts may overlap: with starts at rate r the share covered is 1 - exp(-r * MEAN_BURST).
    burst = np.flatnonzero(random.random(count) < -np.log1p(-share) / MEAN_BURST)
    change = np.zeros(count + 1)
    np.add.at(change, burst, 1)
    np.add.at(change, np.minimum(burst + random.geometric(1 / MEAN_BURST, len(burst)), count), -1)
    return np.cumsum(change)[:count] > 0


def _mend(windows: Windows64, report: DropReport) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Interpolate missing samples; windows with too many of them become zeros that are not valid."""
    out = np.zeros(windows.shape, dtype=np.float32)
    valid = np.zeros(len(windows), dtype=np.bool_)
    for i, window in enumerate(windows):
        mended, filled = repair(window)
        if mended is not None:
            out[i], valid[i] = mended, True
            report.interpolated += filled
    return out, valid
