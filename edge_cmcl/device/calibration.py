"""What the drift watch takes as normal: thresholds from held-out windows, kept in a modality's record (FORMAT.md).

They are found where raw data are at hand, on the host and at each update, one entry for each origin: held-out parts of
its own recording against all that was known before and the rest of that recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.bundle.canonical import canonical
from edge_cmcl.bundle.limits import MAX_FREE_BYTES
from edge_cmcl.continual.drift import FALSE_ALARMS, outside, range_of, residuals, thresholds
from edge_cmcl.continual.origin import Origin, Origins, mean_eigenvalue, moment_rows
from edge_cmcl.continual.sketch import MAX_ROWS as KEPT_ROWS
from edge_cmcl.continual.sketch import principal_rows
from edge_cmcl.continual.update_space import ALPHA, Preconditioner, soft
from edge_cmcl.data.splits import Rows, folds, hold_out
from edge_cmcl.device.clipping import (
    CLIPPED,
    CLIPPED_OUTPUTS,
    DRIFT,
    LASTING,
    entries_of,
    lasting,
    lasting_entry,
    names_of,
)
from edge_cmcl.device.features import RunningStatistics, Statistics, standard_scores, unit
from edge_cmcl.errors import DataError

MAX_ROWS = 384
"""Windows that an entry is found from, evenly from all parts of a recording: bounds what it adds to an update."""

FOLDS = 8
"""Parts held out in turn: groups, or blocks of time. Fewer give wider limits, more cost time."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """What is normal for one modality: the widest of its origins' entries.

    Attributes:
        thresholds: largest normal share of energy outside, by size of batch.
        energy: lowest and highest normal mean energy of a recording's scores, 1 for the one that the statistics are of.
        shift: largest normal energy of a recording's mean score, 0 for the one that the statistics are of.
        false_alarms: share of normal batches, and of normal recordings, beyond.
    """

    thresholds: Mapping[int, float]
    energy: tuple[float, float]
    shift: float
    false_alarms: float


@dataclass(frozen=True)
class Recording:
    """Raw encoder outputs of one modality, and what leak-free splits of them need.

    Attributes:
        raw: (n, width) float32, in order of time.
        groups: (n,) int64 or None, subject or run of each row.
        time: (n,) float64 or None, start of each window in s.
        window_s: length of a window in s, None where unknown.
    """

    raw: Array
    groups: NDArray[np.int64] | None = None
    time: NDArray[np.float64] | None = None
    window_s: float | None = None


def read_calibration(record: ModalityRecord) -> Calibration | None:
    """Return what is normal for a modality, None where its record does not say or says it in another way.

    What is normal for one of its origins is normal. A size that only some entries have is left to the smaller ones.
    """
    try:
        found = [_calibration(entry) for entry in entries_of(record).values() if not entry.keys() <= {*LASTING}]
    except (KeyError, TypeError, ValueError):
        return None  # a free object: what another version wrote there is no reason to fail
    sizes = set.intersection(*(set(each.thresholds) for each in found)) if found else set()
    if not sizes:
        return None
    return Calibration(
        thresholds={size: max(each.thresholds[size] for each in found) for size in sorted(sizes)},
        energy=(min(each.energy[0] for each in found), max(each.energy[1] for each in found)),
        shift=max(each.shift for each in found),
        false_alarms=max(each.false_alarms for each in found),
    )


def calibrated(
    record: ModalityRecord,
    origins: Origins,
    origin: str,
    recording: Recording,
    statistics: Statistics | None,
    *,
    renewed: bool = False,
) -> ModalityRecord:
    """Return `record` with an entry for what is learned from `recording` under the id `origin`.

    Entries of origins that are gone are left out. Where the recording is too short to hold anything out, no entry is
    written, and one of the same id from an earlier recording stays.

    Args:
        record: of the modality.
        origins: what was known before; none for a new modality.
        origin: id of the origin that the recording makes.
        recording: what is learned.
        statistics: those that a known modality has; None for a new one, whose own come from the recording.
        renewed: whether they were renewed with this recording: older thresholds no longer hold then, and of what
            clipping took the older figure is an upper bound.
    """
    ids = {origin} | {name for each in origins for name in (each.id, *dict(each.absorbed))}
    kept = {name: entry for name, entry in entries_of(record).items() if name in ids}
    if renewed:
        kept = {name: lasting(entry) for name, entry in kept.items() if CLIPPED in entry}
    entry = calibrate(recording, origins, statistics)
    entries = {**kept, origin: entry} if entry else kept
    others = {key: value for key, value in record.calibration.items() if key != DRIFT}
    return record.model_copy(update={"calibration": {**others, **({DRIFT: entries} if entries else {})}})


def calibrate(
    recording: Recording, origins: Origins = (), statistics: Statistics | None = None
) -> dict[str, Any] | None:
    """Return one entry in JSON types, None where the recording has too few windows to hold any out.

    Args:
        recording: normal windows.
        origins: what was known before.
        statistics: as in `calibrated`.
    """
    rows, splits = _splits(recording)
    raw = recording.raw[rows]
    held_out: list[Array] = []
    energies: list[float] = []
    shifts: list[float] = []
    for training, tested in splits:
        used = statistics or _statistics(raw[training])
        scores = standard_scores(raw[tested], used)
        held_out.append(residuals(scores, _guard(standard_scores(raw[training], used), origins)))
        energies.append(float(np.square(scores, dtype=np.float64).mean()))
        shifts.append(outside(scores.mean(axis=0, dtype=np.float64)))
    found = thresholds(held_out)
    if not found:
        return None
    return {
        "false_alarms": FALSE_ALARMS,
        "windows": sum(map(len, held_out)),
        "parts": len(held_out),
        "thresholds": [[size, limit] for size, limit in found.items()],
        "energy": list(range_of(energies)),
        "shift": range_of(shifts)[1],
        **lasting_entry(raw, statistics or _statistics(raw)),
    }


def united_calibration(sources: Sequence[tuple[Origin, ModalityRecord]], moved: bool) -> dict[str, dict[str, Any]]:
    """Return the entries of what several devices learned of one modality, by origin id.

    Those of very many go without their lists of clipped outputs, so that a record can hold them.

    Args:
        sources: each origin that is left, with the record of a device that has it.
        moved: whether statistics are other ones now: then thresholds no longer hold.
    """
    found: dict[str, dict[str, Any]] = {}
    for origin, record in sources:
        entries = entries_of(record)
        for name in names_of(origin):
            if name in entries:
                found[name] = lasting(entries[name]) if moved else entries[name]
    if len(canonical(found)) > MAX_FREE_BYTES // 2:
        return {name: {key: entry[key] for key in entry if key != CLIPPED_OUTPUTS} for name, entry in found.items()}
    return found


def _calibration(entry: dict[str, Any]) -> Calibration:
    low, high = entry["energy"]
    limits = {int(size): float(limit) for size, limit in entry["thresholds"]}
    return Calibration(limits, (float(low), float(high)), float(entry["shift"]), float(entry["false_alarms"]))


def _splits(recording: Recording) -> tuple[Rows, list[tuple[Rows, Rows]]]:
    """Return the rows to calibrate on, a run out of the middle of each part, and what is held out of them in turn.

    Parts are the groups, or blocks of time. Where every window overlaps one that is held out, nothing is.
    """
    n, groups = len(recording.raw), recording.groups
    names = np.unique(groups) if groups is not None else np.zeros(0, np.int64)
    if groups is None or len(names) < 2:
        groups = None
        parts = np.arange(n) * FOLDS // max(n, 1)
    else:
        parts = np.searchsorted(names, groups)
    rows = np.sort(np.concatenate([np.zeros(0, np.int64), *_runs(parts)]))
    time = recording.time[rows] if recording.time is not None else None
    try:
        if groups is not None:
            return rows, folds(len(rows), parts[rows], FOLDS, time=time, window_s=recording.window_s)
        present, number = np.unique(parts), parts[rows]
        return rows, hold_out(np.searchsorted(present, number), time=time, window_s=recording.window_s)
    except DataError:
        return rows, []


def _runs(parts: Rows) -> list[Rows]:
    names = np.unique(parts)
    most = max(1, MAX_ROWS // max(1, len(names)))
    runs = []
    for name in names:
        rows = np.flatnonzero(parts == name)
        start = max(0, (len(rows) - most) // 2)
        runs.append(rows[start : start + most])
    return runs


def _statistics(raw: Array) -> Statistics:
    running = RunningStatistics(raw.shape[1])
    running.update(raw)
    return running.statistics()


def _guard(scores: Array, origins: Origins) -> Preconditioner:
    """Return what holds back the directions of `origins`, and of `scores` (n, width) as many as a sketch has."""
    width = scores.shape[1]
    energies, directions = principal_rows(unit(scores) / np.sqrt(len(scores)))
    kept = np.sqrt(energies[:KEPT_ROWS, None]) * directions[:KEPT_ROWS]
    return soft(np.concatenate([moment_rows(origins, width), kept]), ALPHA * mean_eigenvalue(origins, width))
