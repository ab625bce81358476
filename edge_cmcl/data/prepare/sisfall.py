"""SisFall: falls and activities of daily living with an inertial sensor at the waist."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.prepare.recipe import TEST, TRAIN, DatasetInfo, Job, Recipe, Sample
from edge_cmcl.data.prepare.source import Found
from edge_cmcl.data.prepare.text import damaged, matrix
from edge_cmcl.errors import DataError

WINDOW_S = 6.0
SAMPLES = 256
RATE_HZ = 200
DECIMATION = 4
COLUMNS = 9
COUNTS_PER_G = 256.0
"""ADXL345: 13 bits over +-16 g."""
COUNTS_PER_DEG_S = 14.375
"""ITG3200, from its data sheet; the 16 bits over +-2000 deg/s of the data set's readme would be 16.384."""

_SUBJECTS = {"SA01": TRAIN, "SA02": TRAIN, "SA03": TRAIN, "SA04": TRAIN, "SA05": TEST, "SA06": TEST}

_ACTIVITIES = {
    "D01": "walking slowly",
    "D02": "walking quickly",
    "D03": "jogging slowly",
    "D04": "jogging quickly",
    "D05": "walking upstairs and downstairs slowly",
    "D06": "walking upstairs and downstairs quickly",
    "D07": "slowly sit in a half height chair and up slowly",
    "D08": "quickly sit in a half height chair and up quickly",
    "D09": "slowly sit in a low height chair and up slowly",
    "D10": "quickly sit in a low height chair and up quickly",
    "D11": "trying to get up and collapse into a chair",
    "D12": "lying down slowly and sit again",
    "D13": "lying down quickly and sit again",
    "D14": "lying, change from back to side and back",
    "D15": "standing, bending at knees and getting up",
    "D16": "standing, bending without bending knees and getting up",
    "D17": "get into a car, remain seated and get out",
    "D18": "stumble while walking",
    "D19": "gently jump without falling",
    "F01": "fall forward while walking, slip",
    "F02": "fall backward while walking, slip",
    "F03": "lateral fall while walking, slip",
    "F04": "fall forward while walking, trip",
    "F05": "fall forward while jogging, trip",
    "F06": "vertical fall while walking, fainting",
    "F07": "fall while walking with hands on a table, fainting",
    "F08": "fall forward when trying to get up",
    "F09": "lateral fall when trying to get up",
    "F10": "fall forward when trying to sit down",
    "F11": "fall backward when trying to sit down",
    "F12": "lateral fall when trying to sit down",
    "F13": "fall forward while sitting, fainting or asleep",
    "F14": "fall backward while sitting, fainting or asleep",
    "F15": "lateral fall while sitting, fainting or asleep",
}
_CODES = tuple(_ACTIVITIES)


def _samples(job: Job) -> Iterator[Sample]:
    trials = [file for file in job.found if file.match["subject"] in _SUBJECTS]
    ignored = sorted({file.match["subject"] for file in job.found} - set(_SUBJECTS))
    if ignored:
        job.notes.append(
            f"Trials of other subjects that are not used: {len(job.found) - len(trials)} ({', '.join(ignored)})."
        )
    for file in job.each(sorted(trials, key=lambda file: (file.match["subject"], file.name))):
        code, subject = file.match["code"], file.match["subject"]
        if code not in _ACTIVITIES:
            raise damaged(file, "an activity D01 to D19 or F01 to F15", code)
        counts = _middle(file)
        if counts is None:
            job.drops.drop(f"trial shorter than {WINDOW_S:g} s")
            continue
        # The mean of 4 samples keeps what lies above 25 Hz from folding down into the 50 Hz series.
        slow = counts.reshape(-1, DECIMATION, COLUMNS).mean(axis=1)
        acc, gyro = slow[:, :3] / COUNTS_PER_G, np.deg2rad(slow[:, 3:6] / COUNTS_PER_DEG_S)
        windows = job.fit({"acc": (acc, SAMPLES), "gyro": (gyro, SAMPLES)})
        if windows is not None:
            yield Sample(_SUBJECTS[subject], {"": windows}, label=_CODES.index(code), group=int(subject[2:]))


def _middle(file: Found) -> NDArray[np.float64] | None:
    """Return the middle 6 s as (1200, 9) raw counts, or None where the trial is shorter."""
    lines = _lines(file)
    length = int(WINDOW_S * RATE_HZ)
    if len(lines) < length:
        return None
    start = (len(lines) - length) // 2
    counts = matrix(file, lines[start : start + length], b",")
    if counts.shape[1] != COLUMNS:
        raise damaged(file, f"{COLUMNS} numbers in each line", str(counts.shape[1]))
    return counts


def _lines(file: Found) -> Sequence[bytes]:
    try:
        text = file.path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file.name}", got=str(error)) from error
    lines = [line.strip().rstrip(b";") for line in text.splitlines()]
    return [line for line in lines if line]


RECIPE = Recipe(
    info=DatasetInfo(
        name="sisfall",
        title="SisFall: 19 daily activities and 15 falls with an inertial sensor at the waist",
        sensors=("acc", "gyro"),
        url="http://sistemic.udea.edu.co/en/research/projects/english-falls/",
        licence="none stated; published for research, with citation",
        citation="A. Sucerquia, J. D. Lopez, J. F. Vargas-Bonilla: SisFall: A Fall and Movement Dataset. "
        "Sensors 17(1), 198, 2017. doi:10.3390/s17010198",
        steps=("acc-gyro",),
        files="D01_SA01_R01.txt and its like (activity, subject, trial)",
    ),
    wanted=re.compile(r"(?:^|/)(?P<code>[DF]\d\d)_(?P<subject>S[AE]\d\d)_R\d\d\.txt$"),
    labels=tuple(_ACTIVITIES.values()),
    rate_hz={"acc": SAMPLES / WINDOW_S, "gyro": SAMPLES / WINDOW_S},
    units={"acc": "g", "gyro": "rad/s"},
    recipe="The middle 6 s of each trial (ADXL345 and ITG3200), averaged to 50 Hz, 256 samples. "
    "Subjects SA01 to SA04 train, SA05 and SA06 test; group = subject.",
    samples=_samples,
)
