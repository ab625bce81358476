"""What the drift watch on a device takes as normal of the base's sensors, from the windows it was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.device.calibration import Recording, calibrate
from edge_cmcl.device.clipping import DRIFT
from edge_cmcl.device.text import TEXT
from edge_cmcl.host.base_data import PairData, Rows

KEY = "calibration"
"""Of a run's metrics: an entry for each sensor."""

Outputs = Callable[[PairData, int], NDArray[np.float32]]


def calibrate_base(
    pairs: Sequence[PairData], outputs: Outputs, fitted: Callable[[PairData], Rows]
) -> dict[str, dict[str, Any]]:
    """Return an entry of `device.calibration` for each sensor of which enough can be held out.

    Of a trained encoder the held-out windows are not new to the encoder itself, only to the sketch: its thresholds are
    somewhat low until an update on the device adds its own.

    Args:
        pairs: the project's pairs.
        outputs: raw encoder outputs (n, width) of one side of a pair.
        fitted: the rows of a pair that its adapters were fitted on.
    """
    names = sorted({name for pair in pairs for name in pair.modalities} - {TEXT})
    found = {name: calibrate(_recording(name, pairs, outputs, fitted)) for name in names}
    return {name: entry for name, entry in found.items() if entry is not None}


def _recording(name: str, pairs: Sequence[PairData], outputs: Outputs, fitted: Callable[[PairData], Rows]) -> Recording:
    """Return all windows of one sensor; one that several pairs share counts once, or it would be on both sides."""
    seen: set[tuple[str, str, int]] = set()
    raw, groups, times, lengths = [], [], [], []
    for pair in pairs:
        for side in (side for side in (0, 1) if pair.modalities[side] == name):
            places = _places(pair, side)
            new = np.array([row for row in fitted(pair) if _add(seen, places[row])], dtype=np.int64)
            raw.append(outputs(pair, side)[new])
            groups.append(pair.groups[new] if pair.groups is not None else None)
            clocks = [part.pairs.time for part in pair.parts]
            known = [clock[part.rows] for clock, part in zip(clocks, pair.parts, strict=True) if clock is not None]
            times.append(np.concatenate(known)[new] if len(known) == len(clocks) else None)
            lengths += [part.pairs.longest_window_s([part.tensors[side]]) for part in pair.parts]
    known_lengths = [length for length in lengths if length is not None]
    return Recording(np.concatenate(raw), _joined(groups), _joined(times), max(known_lengths, default=None))


def _places(pair: PairData, side: int) -> list[tuple[str, str, int]]:
    """Return file, tensor and row of each row of a pair."""
    return [(str(part.pairs.path), part.tensors[side], int(row)) for part in pair.parts for row in part.rows]


def _add(seen: set[tuple[str, str, int]], place: tuple[str, str, int]) -> bool:
    new = place not in seen
    seen.add(place)
    return new


def _joined(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if len(known) == len(arrays) else None


def calibration_of(metrics: Mapping[str, Any], name: str, origin: str) -> dict[str, Any]:
    """Return the field `calibration` of a sensor's record from a run's metrics; empty for a run that has none."""
    entry = metrics.get(KEY, {}).get(name)
    return {DRIFT: {origin: entry}} if entry else {}
