"""BorealTC: a wheeled robot on five terrains, with an inertial sensor, motor currents and wheel speeds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.prepare.recipe import STANDARD_GRAVITY, TEST, TRAIN, DatasetInfo, Job, Recipe, Sample
from edge_cmcl.data.prepare.source import Found
from edge_cmcl.data.prepare.text import damaged, numbers, read_columns
from edge_cmcl.data.windows import on_clock

WINDOW_S = 5.0
IMU_SAMPLES, DRIVE_SAMPLES = 256, 32
IMU_GAP_S, DRIVE_GAP_S = 0.025, 0.4
"""About 2.5 samples at the published 100 Hz and 6.5 Hz."""
CURRENT_SCALE = 10.0
TEST_EVERY = 3

_COLUMNS = {
    "imu": ("time", "ax", "ay", "az", "wx", "wy", "wz"),
    "pro": ("time", "curL", "curR", "velL", "velR"),
}
_TERRAINS = {
    "ASPHALT": "asphalt",
    "FLOORING": "flooring",
    "ICE": "ice",
    "SANDY_LOAM": "sandy loam",
    "SNOW": "snow",
}
_CODES = tuple(_TERRAINS)
_RUNS_PER_TERRAIN = 1000


def _samples(job: Job) -> Iterator[Sample]:
    runs: dict[tuple[int, int], dict[str, Found]] = defaultdict(dict)
    for file in job.found:
        terrain, run = _CODES.index(file.match["terrain"]), int(file.match["run"])
        runs[terrain, run][file.match["kind"]] = file
    alone = [f"{_CODES[terrain]} {run:02d}" for (terrain, run), files in sorted(runs.items()) if len(files) < 2]
    if alone:
        job.notes.append(f"Runs with only one of their imu and pro files are not used: {', '.join(alone)}.")
    pairs = [run for run, files in runs.items() if len(files) == 2]
    for terrain, run in job.each(sorted(pairs, key=lambda pair: (pair[1] % TEST_EVERY == 0, pair))):
        files = runs[terrain, run]
        split = TEST if run % TEST_EVERY == 0 else TRAIN
        for start_s, windows in _windows(job, _read(files["imu"]), _read(files["pro"])):
            group = terrain * _RUNS_PER_TERRAIN + run
            yield Sample(split, {"": windows}, label=terrain, group=group, time_s=start_s)


def _windows(
    job: Job, imu: NDArray[np.float64], drive: NDArray[np.float64]
) -> Iterator[tuple[float, dict[str, NDArray[np.float32]]]]:
    """Cut windows that do not overlap from the time both files cover; both clocks start with the run."""
    first, last = max(imu[0, 0], drive[0, 0]), min(imu[-1, 0], drive[-1, 0])
    imu_clock = np.arange(IMU_SAMPLES) * WINDOW_S / IMU_SAMPLES
    drive_clock = np.arange(DRIVE_SAMPLES) * WINDOW_S / DRIVE_SAMPLES
    for start in first + WINDOW_S * np.arange(int((last - first) / WINDOW_S)):
        motion = on_clock(imu[:, 0], imu[:, 1:], start + imu_clock, IMU_GAP_S)
        wheels = on_clock(drive[:, 0], drive[:, 1:], start + drive_clock, DRIVE_GAP_S)
        windows = job.fit(
            {
                "acc": (motion[:, :3] / STANDARD_GRAVITY, IMU_SAMPLES),
                "gyro": (motion[:, 3:], IMU_SAMPLES),
                "current": (wheels[:, :2] / CURRENT_SCALE, DRIVE_SAMPLES),
                "wheel_speed": (wheels[:, 2:], DRIVE_SAMPLES),
            }
        )
        if windows is not None:
            yield float(start), windows


def _read(file: Found) -> NDArray[np.float64]:
    names = _COLUMNS[file.match["kind"]]
    cells = read_columns(file, names)
    table = numbers(file, [cells[name] for name in names])
    if not np.isfinite(table[:, 0]).all() or (np.diff(table[:, 0]) <= 0).any():
        raise damaged(file, "times in rising order", "a missing, equal or falling one")
    return table


RECIPE = Recipe(
    info=DatasetInfo(
        name="borealtc",
        title="BorealTC: a Husky A200 robot on five terrains of a boreal forest and a campus",
        sensors=("acc", "gyro", "current", "wheel_speed"),
        url="https://github.com/norlab-ulaval/BorealTC",
        licence="CC0 1.0",
        citation="D. LaRocque, W. Guimont-Martin, D.-A. Duclos, P. Giguere, F. Pomerleau: Proprioception Is All You "
        "Need: Terrain Classification for Boreal Forests. arXiv:2403.16877, 2024.",
        steps=("acc-gyro", "gyro-current"),
        files="TERRAIN/imu_NN.csv and TERRAIN/pro_NN.csv (ASPHALT, FLOORING, ICE, SANDY_LOAM, SNOW)",
    ),
    wanted=re.compile(rf"(?:^|/)(?P<terrain>{'|'.join(_CODES)})/(?P<kind>imu|pro)_(?P<run>\d\d?\d?)\.csv$"),
    labels=tuple(_TERRAINS.values()),
    rate_hz={
        "acc": IMU_SAMPLES / WINDOW_S,
        "gyro": IMU_SAMPLES / WINDOW_S,
        "current": DRIVE_SAMPLES / WINDOW_S,
        "wheel_speed": DRIVE_SAMPLES / WINDOW_S,
    },
    units={"acc": "g", "gyro": "rad/s", "current": "A/10", "wheel_speed": "m/s"},
    recipe="Windows of 5 s that do not overlap; acc and gyro 256 samples, current and wheel speed (left, right) 32. "
    "The terrain MIXED is not used. Runs whose number is a multiple of 3 test, the others train; group = run.",
    samples=_samples,
)
