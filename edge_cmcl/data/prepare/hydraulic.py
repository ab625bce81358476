"""Condition monitoring of hydraulic systems (UCI 447): the sensors of a test rig that are read once a second."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.prepare.recipe import TEST, TRAIN, DatasetInfo, Job, Recipe, Sample
from edge_cmcl.data.prepare.source import Found
from edge_cmcl.data.prepare.text import damaged, matrix
from edge_cmcl.errors import DataError

CYCLE_SAMPLES = 60
CYCLES_PER_BLOCK = 15
TEST_EVERY = 3
PROFILE_COLUMNS = 5

_SENSORS = {
    "temperature": ("TS1", "TS2", "TS3", "TS4"),
    "vibration": ("VS1",),
    "efficiency": ("SE",),
}
_COOLER = {3: "cooler close to total failure", 20: "cooler of reduced efficiency", 100: "cooler of full efficiency"}
_COOLER_CODES = tuple(_COOLER)


def _samples(job: Job) -> Iterator[Sample]:
    files = {file.match["name"]: file for file in job.found}
    names = [name for sensors in _SENSORS.values() for name in sensors]
    missing = [f"{name}.txt" for name in ("profile", *names) if name not in files]
    if missing:
        raise DataError("the data set is incomplete", expected=RECIPE.info.files, got=f"no {', '.join(missing)}")
    labels = _labels(files["profile"])
    cycles = {
        modality: np.stack([_cycles(files[name], len(labels)) for name in sensors], axis=2)
        for modality, sensors in _SENSORS.items()
    }
    train = np.arange(len(labels)) % TEST_EVERY != 0
    scaled = {modality: _standardise(job, modality, values, train) for modality, values in cycles.items()}
    order = [*np.flatnonzero(train), *np.flatnonzero(~train)]
    for cycle in job.each([int(index) for index in order]):
        windows = job.fit({modality: (values[cycle], CYCLE_SAMPLES) for modality, values in scaled.items()})
        if windows is not None:
            split = TRAIN if train[cycle] else TEST
            yield Sample(split, {"": windows}, label=int(labels[cycle]), group=cycle // CYCLES_PER_BLOCK)


def _standardise(job: Job, modality: str, values: NDArray[np.float64], train: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return z-scores (cycles, 60, channels) by the mean and deviation of each channel over the training cycles."""
    known = values[train]
    mean, deviation = np.nanmean(known, axis=(0, 1)), np.nanstd(known, axis=(0, 1))
    deviation = np.where(deviation > 0, deviation, 1.0)
    numbers = "; ".join(f"{m:.6g}, {s:.6g}" for m, s in zip(mean, deviation, strict=True))
    job.notes.append(f"{modality}: mean and deviation of each channel over the training cycles {numbers}.")
    scores: NDArray[np.float64] = (values - mean) / deviation
    return scores


def _cycles(file: Found, count: int) -> NDArray[np.float64]:
    table = _table(file)
    if table.shape != (count, CYCLE_SAMPLES):
        expected = f"{count} lines (as profile.txt has) of {CYCLE_SAMPLES} numbers"
        raise damaged(file, expected, f"{table.shape[0]} lines of {table.shape[1]}")
    return table


def _labels(file: Found) -> NDArray[np.int64]:
    table = _table(file)
    if table.shape[1] != PROFILE_COLUMNS or not np.isin(table[:, 0], _COOLER_CODES).all():
        expected = f"{PROFILE_COLUMNS} numbers per line, the first one of {', '.join(map(str, _COOLER_CODES))}"
        raise damaged(file, expected, f"{table.shape[1]} numbers, first line {table[0].tolist()}")
    return np.searchsorted(_COOLER_CODES, table[:, 0]).astype(np.int64)


def _table(file: Found) -> NDArray[np.float64]:
    try:
        lines = [line for line in file.path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"cannot read {file.name}", got=str(error)) from error
    if not lines:
        raise damaged(file, "lines of numbers", "an empty file")
    return matrix(file, lines, None)


_NAMES: Mapping[str, None] = dict.fromkeys(["profile", *(name for sensors in _SENSORS.values() for name in sensors)])

RECIPE = Recipe(
    info=DatasetInfo(
        name="hydraulic",
        title="Condition monitoring of hydraulic systems: 2205 cycles of 60 s of a test rig",
        sensors=("temperature", "vibration", "efficiency"),
        url="https://archive.ics.uci.edu/dataset/447/condition+monitoring+of+hydraulic+systems",
        licence="CC BY 4.0",
        citation="N. Helwig, E. Pignanelli, A. Schuetze: Condition Monitoring of a Complex Hydraulic System Using "
        "Multivariate Statistics. I2MTC 2015. doi:10.1109/I2MTC.2015.7151267",
        steps=("temperature-vibration",),
        files="TS1.txt to TS4.txt, VS1.txt, SE.txt and profile.txt",
    ),
    wanted=re.compile(rf"(?:^|/)(?P<name>{'|'.join(_NAMES)})\.txt$"),
    labels=tuple(_COOLER.values()),
    rate_hz=dict.fromkeys(_SENSORS, 1.0),
    units=dict.fromkeys(_SENSORS, "z-score"),
    recipe="Whole cycles of 60 s at 1 Hz, z-scored by channel; label = condition of the cooler. Cycles whose index is "
    "a multiple of 3 test, the others train, so neighbouring cycles stand in both; group = block of 15 cycles.",
    samples=_samples,
)
