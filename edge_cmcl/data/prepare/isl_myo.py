"""Italian Sign Language alphabet with the Myo armband: EMG, acceleration, angular rate and orientation."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.prepare.recipe import TEST, TRAIN, DatasetInfo, Job, Recipe, Sample
from edge_cmcl.data.prepare.source import Found
from edge_cmcl.data.prepare.text import damaged

GESTURE_S = 2.0
IMU_SAMPLES, EMG_SAMPLES = 128, 256
EMG_SCALE = 50.0
BLOCK = 3
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_TEST_DAY = datetime(2020, 7, 9).date()
_TEST_GROUP = 100  # above any block of the training sessions
_WIDTHS = {"acceleration": 3, "gyroscope": 3, "orientation": 4}


def _samples(job: Job) -> Iterator[Sample]:
    gestures = [(*_read(file), file) for file in job.each(job.found)]
    gestures.sort(key=lambda gesture: (gesture[0].date() == _TEST_DAY, gesture[0], gesture[2].name))
    repetitions: Counter[tuple[bool, str]] = Counter()
    for when, records, file in gestures:
        letter, test = file.match["letter"], when.date() == _TEST_DAY
        # Each day but the test day has other letters, so a day cannot be held out; a block of repetitions can.
        block = repetitions[test, letter] // BLOCK
        repetitions[test, letter] += 1
        windows = job.fit(records)
        if windows is not None:
            group = block + (_TEST_GROUP if test else 0)
            yield Sample(TEST if test else TRAIN, {"": windows}, label=LETTERS.index(letter), group=group)


def _read(file: Found) -> tuple[datetime, dict[str, tuple[NDArray[Any], int]]]:
    try:
        gesture = json.loads(file.path.read_bytes())
        when = datetime.strptime(gesture["timestamp"], "%d/%m/%y/%H:%M:%S")
        emg = np.asarray(gesture["emg"]["data"], dtype=np.float32)
        rows = gesture["imu"]["data"]
        imu = {name: np.asarray([row[name] for row in rows], dtype=np.float32) for name in _WIDTHS}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        expected = "JSON with timestamp, emg.data and imu.data"
        raise damaged(file, expected, f"{type(error).__name__}: {error}") from error
    for name, values, width in [("emg.data", emg, 8), *((n, imu[n], w) for n, w in _WIDTHS.items())]:
        if values.ndim != 2 or values.shape[1] != width or len(values) < 2:
            raise damaged(file, f"{name} of shape (T, {width})", str(values.shape))
    return when, {
        "acc": (imu["acceleration"], IMU_SAMPLES),
        "gyro": (np.deg2rad(imu["gyroscope"]), IMU_SAMPLES),
        "orientation": (imu["orientation"], IMU_SAMPLES),
        "emg": (emg / EMG_SCALE, EMG_SAMPLES),
    }


RECIPE = Recipe(
    info=DatasetInfo(
        name="isl_myo",
        title="Italian Sign Language alphabet: 26 letters with the Myo armband",
        sensors=("acc", "gyro", "orientation", "emg"),
        url="https://github.com/airtlab/An-EMG-and-IMU-Dataset-for-the-Italian-Sign-Language-Alphabet",
        licence='"freely released for research and educational purposes", with citation',
        citation="I. Pacifici, P. Sernani, N. Falcionelli, S. Tomassini, A. F. Dragoni: A surface electromyography and "
        "inertial measurement unit dataset for the Italian Sign Language alphabet. Data in Brief 33, 106455, 2020. "
        "doi:10.1016/j.dib.2020.106455",
        steps=("acc-emg", "orientation-emg"),
        files="Dataset/LETTER/GUID.json",
    ),
    wanted=re.compile(r"(?:^|/)(?P<letter>[A-Z])/[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\.json$"),
    labels=tuple(f"letter {letter}" for letter in LETTERS),
    rate_hz={
        "acc": IMU_SAMPLES / GESTURE_S,
        "gyro": IMU_SAMPLES / GESTURE_S,
        "orientation": IMU_SAMPLES / GESTURE_S,
        "emg": EMG_SAMPLES / GESTURE_S,
    },
    units={"acc": "g", "gyro": "rad/s", "orientation": "quaternion", "emg": "counts/50"},
    recipe="Whole gestures of 2 s; acc, gyro and orientation 128 samples, EMG 256. The session of 09/07/20 tests, the "
    "others train; group = block of three repetitions of each letter, in order of time.",
    samples=_samples,
)
