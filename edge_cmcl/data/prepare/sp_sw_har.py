"""sp-sw-har: five activities recorded by a smartphone and a smartwatch at once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.prepare.recipe import STANDARD_GRAVITY, TEST, TRAIN, UNLABELLED, DatasetInfo, Job, Recipe, Sample
from edge_cmcl.data.prepare.source import Found
from edge_cmcl.data.prepare.text import damaged, numbers, read_columns
from edge_cmcl.data.windows import on_clock, starts

WINDOW_S, STEP_S = 2.0, 1.0
SAMPLES = 128
RATE_HZ = SAMPLES / WINDOW_S
MAX_GAP_S = 0.05
"""Five samples; time stamps that come in bursts stay below it."""
MIN_MAJORITY = 0.8
LAST_TRAIN_SUBJECT = 15

_DEVICES = {"sw": "watch_", "sp": "phone_"}
_LABELS = {
    "SEATED": "seated",
    "STANDING_UP": "standing up",
    "WALKING": "walking",
    "TURNING": "turning",
    "SITTING_DOWN": "sitting down",
}
_CODES = tuple(_LABELS)
_SENSORS = ("x_acc", "y_acc", "z_acc", "x_gyro", "y_gyro", "z_gyro")


@dataclass(frozen=True)
class _Recording:
    """One device's recording: seconds (t,), m/s^2 and rad/s (t, 6), label of each sample (t,)."""

    time_s: NDArray[np.float64]
    values: NDArray[np.float64]
    labels: NDArray[np.int64]


def _samples(job: Job) -> Iterator[Sample]:
    runs: dict[tuple[int, int], dict[str, Found]] = defaultdict(dict)
    for file in job.found:
        runs[int(file.match["subject"]), int(file.match["run"])][file.match["device"]] = file
    alone = sum(len(devices) < len(_DEVICES) for devices in runs.values())
    if alone:
        job.notes.append(f"Executions with the file of only one device that are not used: {alone}.")
    pairs = [run for run, devices in sorted(runs.items()) if len(devices) == len(_DEVICES)]
    for subject, run in job.each(pairs):
        recordings = {_DEVICES[device]: _read(file) for device, file in runs[subject, run].items()}
        split = TRAIN if subject <= LAST_TRAIN_SUBJECT else TEST
        for start_s, label, windows in _windows(job, recordings):
            yield Sample(split, windows, label=label, group=subject, time_s=start_s)


def _windows(
    job: Job, recordings: dict[str, _Recording]
) -> Iterator[tuple[float, int, dict[str, dict[str, NDArray[np.float32]]]]]:
    """Cut both devices' recordings on one clock; row i of both is the same two seconds."""
    first = max(recording.time_s[0] for recording in recordings.values())
    last = min(recording.time_s[-1] for recording in recordings.values())
    clock = first + np.arange(int((last - first) * RATE_HZ) + 1) / RATE_HZ
    values = {name: on_clock(r.time_s, r.values, clock, MAX_GAP_S) for name, r in recordings.items()}
    labels = {name: r.labels[np.searchsorted(r.time_s, clock, "right") - 1] for name, r in recordings.items()}
    for start in starts(len(clock), SAMPLES, int(STEP_S * RATE_HZ)):
        rows = slice(start, start + SAMPLES)
        records = {}
        for name in values:
            records[f"{name}acc"] = (values[name][rows, :3] / STANDARD_GRAVITY, SAMPLES)
            records[f"{name}gyro"] = (values[name][rows, 3:], SAMPLES)
        fitted = job.fit(records)
        if fitted is not None:
            yield (
                float(clock[start]),
                _majority(np.concatenate([labels[name][rows] for name in labels])),
                {name: {"acc": fitted[f"{name}acc"], "gyro": fitted[f"{name}gyro"]} for name in recordings},
            )


def _majority(labels: NDArray[np.int64]) -> int:
    """Return the label that most samples have, or `UNLABELLED` where it falls short of `MIN_MAJORITY`."""
    counts = np.bincount(labels)
    return int(counts.argmax()) if counts.max() >= MIN_MAJORITY * len(labels) else UNLABELLED


def _read(file: Found) -> _Recording:
    cells = read_columns(file, [*_SENSORS, "timestamp", "label"])
    unknown = sorted(set(cells["label"]) - set(_LABELS))
    if unknown:
        raise damaged(file, f"labels {', '.join(_CODES)}", ", ".join(unknown))
    columns = numbers(file, [cells["timestamp"], *(cells[name] for name in _SENSORS)])
    time_ms = columns[:, 0]
    if not np.isfinite(time_ms).all() or (np.diff(time_ms) < 0).any():
        raise damaged(file, "time stamps in rising order", "a missing or falling one")
    # A burst of samples can share one time stamp; the mean of them stands for it.
    distinct, first, count = np.unique(time_ms, return_index=True, return_counts=True)
    values = np.add.reduceat(columns[:, 1:], first, axis=0) / count[:, None]
    labels = np.array([_CODES.index(label) for label in cells["label"]], dtype=np.int64)
    return _Recording(distinct / 1000.0, values, labels[first])


RECIPE = Recipe(
    info=DatasetInfo(
        name="sp_sw_har",
        title="sp-sw-har: five activities of 23 subjects with a smartphone and a smartwatch",
        sensors=("acc", "gyro"),
        url="https://doi.org/10.5281/zenodo.8398688",
        licence="CC BY 4.0",
        citation="M. Matey-Sanz, S. Casteleyn, C. Granell: Dataset of inertial measurements of smartphones and "
        "smartwatches for human activity recognition. Data in Brief, 109809, 2023. doi:10.1016/j.dib.2023.109809",
        steps=("watch acc-gyro", "phone acc-gyro"),
        files="sXX_YY_sp.csv and sXX_YY_sw.csv (subject, execution, phone or watch)",
    ),
    wanted=re.compile(r"(?:^|/)s(?P<subject>\d\d)_(?P<run>\d\d)_(?P<device>sp|sw)\.csv$"),
    labels=tuple(_LABELS.values()),
    rate_hz={"acc": RATE_HZ, "gyro": RATE_HZ},
    units={"acc": "g", "gyro": "rad/s"},
    recipe="Windows of 2 s every 1 s, 128 samples, phone and watch on one clock by their time stamps: row i of the "
    "watch files and row i of the phone files are the same moment; unlabelled where no activity fills 80 % of it. "
    "Subjects s01 to s15 train, the others test; group = subject.",
    samples=_samples,
)
