"""What a reader of one public data set is made of: who published it, which files it needs, how it yields windows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.prepare.source import Found
from edge_cmcl.data.windows import MAX_MISSING, DropReport, repair, resample_whole
from edge_cmcl.progress import Progress

TRAIN, TEST = "train", "test"
UNLABELLED = -1
STANDARD_GRAVITY = 9.80665
"""m/s^2 in one g, by definition."""

Window = NDArray[np.float32]
Trial = TypeVar("Trial")


@dataclass(frozen=True)
class DatasetInfo:
    """Who published a data set, where, and on which terms.

    Attributes:
        name: how `prepare` calls it.
        title: one line on what was recorded.
        sensors: the modalities that `prepare` writes.
        url: the official page to download it from.
        licence: the terms as published.
        citation: what to cite when it is used.
        steps: the steps of the 11-step stream (design.md section 8) that use it.
        files: which files of the publication `prepare` needs.
    """

    name: str
    title: str
    sensors: tuple[str, ...]
    url: str
    licence: str
    citation: str
    steps: tuple[str, ...]
    files: str

    def as_json(self) -> dict[str, Any]:
        """Return the entry as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """One moment, cut, scaled and repaired.

    Attributes:
        split: `TRAIN` or `TEST`.
        windows: modality to window, by the prefix of the files it goes to ("" where there is one pair of files).
        label: index into the recipe's labels, or `UNLABELLED`.
        group: subject, run or block of time.
        time_s: where in its recording the window starts, as the pairs file's `time` says; None for whole trials.
    """

    split: str
    windows: Mapping[str, Mapping[str, Window]]
    label: int
    group: int
    time_s: float | None = None


@dataclass
class Job:
    """What a reader works on and reports to.

    Attributes:
        found: the files of the data set, in the order of their names.
        progress: told after each trial.
        drops: windows kept and dropped so far.
        notes: what the user should know about this run; also written into the files.
    """

    found: Sequence[Found]
    progress: Progress
    drops: DropReport = field(default_factory=DropReport)
    notes: list[str] = field(default_factory=list)

    def each(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Yield the trials, telling the progress as each is done."""
        for done, trial in enumerate(trials, start=1):
            yield trial
            self.progress("prepare", done, len(trials))

    def fit(self, records: Mapping[str, tuple[NDArray[Any], int]]) -> dict[str, Window] | None:
        """Fill in what is missing and stretch each record to its length; None, and counted, if too much is missing.

        Args:
            records: modality to (samples (t, ...), length wanted).
        """
        repaired = {name: repair(values) for name, (values, _) in records.items()}
        windows = {
            name: window if len(window) == records[name][1] else resample_whole(window, records[name][1])
            for name, (window, _) in repaired.items()
            if window is not None
        }
        if len(windows) < len(records):
            self.drops.drop(f"more than {MAX_MISSING:.0%} missing")
            return None
        self.drops.interpolated += sum(count for _, count in repaired.values())
        return windows


@dataclass(frozen=True)
class Recipe:
    """How one data set becomes pairs files.

    Attributes:
        info: the catalogue entry.
        wanted: matches the path, below the source, of the files to read.
        labels: names of the classes.
        rate_hz: nominal sample rate of the windows, per modality.
        units: unit of the windows, per modality.
        recipe: windows, lengths and split, in words; written into the files.
        samples: yields the samples, all of `TRAIN` before all of `TEST`.
    """

    info: DatasetInfo
    wanted: re.Pattern[str]
    labels: tuple[str, ...]
    rate_hz: Mapping[str, float]
    units: Mapping[str, str]
    recipe: str
    samples: Callable[[Job], Iterator[Sample]]
