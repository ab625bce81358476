"""What an entry of a calibration says of its recording that holds under other statistics, too (FORMAT.md).

Where a sensor's statistics are renewed, or a merge brings those of several devices together, what clipping took may be
given back in part, and a moved mean moves features; how far at most, a certificate says by these figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.continual.origin import Origin
from edge_cmcl.device.features import CLIP, Statistics, standard_scores

DRIFT = "drift"
"""The key of `ModalityRecord.calibration` that holds an entry for each origin id."""

CLIPPED = "clipped"
"""Of an entry: `clipped_share` of its recording."""

CLIPPED_OUTPUTS = "clipped_outputs"
"""Of an entry: `clipped_outputs` of its recording; left out where they are very many."""

INVERSE_ENERGY = "inverse_energy"
"""Of an entry: `inverse_energy` of its recording."""

LASTING = (CLIPPED, CLIPPED_OUTPUTS, INVERSE_ENERGY)
"""What still holds of an entry when the statistics of its modality are no longer those that it was found under."""

MAX_CLIPPED_OUTPUTS = 2048
"""As many as an entry may list: a record's calibration is a small document."""

Array = NDArray[np.float32]


def lasting(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what still holds of an entry under other statistics than those that it was found under."""
    return {key: value for key, value in entry.items() if key in LASTING}


def lasting_entry(raw: Array, statistics: Statistics) -> dict[str, Any]:
    """Return what an entry says of `raw` (n, width), encoder outputs whose statistics are `statistics`."""
    cut = clipped_outputs(raw, statistics)
    return {
        CLIPPED: clipped_share(raw, statistics),
        INVERSE_ENERGY: inverse_energy(raw, statistics),
        **({CLIPPED_OUTPUTS: cut} if len(cut) <= MAX_CLIPPED_OUTPUTS else {}),
    }


def clipped_share(raw: Array, statistics: Statistics) -> float:
    """Return what clipping took from the features of `raw` (n, width), mean of squares over windows.

    That is sum over outputs of (|score| - CLIP)^2 where positive, as a share of the energy of the clipped window.
    """
    scores = (raw - statistics.mean) / statistics.std
    over = np.square(np.maximum(np.abs(scores) - CLIP, 0.0), dtype=np.float64).sum(axis=1)
    left = np.square(np.clip(scores, -CLIP, CLIP), dtype=np.float64).sum(axis=1)
    return float((over / np.maximum(left, np.finfo(np.float32).tiny)).mean())


def clipped_outputs(raw: Array, statistics: Statistics) -> list[int]:
    """Return the outputs whose scores of `raw` (n, width) are clipped in one window at least."""
    beyond = np.abs((raw - statistics.mean) / statistics.std) > CLIP
    return [int(output) for output in np.flatnonzero(beyond.any(axis=0))]


def inverse_energy(raw: Array, statistics: Statistics) -> float:
    """Return the mean over windows of 1 / |scores|^2, of `raw` (n, width); a window without any score has none.

    It tells how far a moved mean moves features, which have unit length.
    """
    energy = np.square(standard_scores(raw, statistics), dtype=np.float64).sum(axis=1)
    return float((1.0 / energy[energy > 0]).mean()) if (energy > 0).any() else 0.0


def clipped_of(record: ModalityRecord, origin: Origin) -> float | None:
    """Return the `clipped_share` of what is in an origin, None where an entry that tells it is missing."""
    return _largest(record, origin, CLIPPED)


def inverse_energy_of(record: ModalityRecord, origin: Origin) -> float | None:
    """Return the `inverse_energy` of what is in an origin, None where an entry that tells it is missing."""
    return _largest(record, origin, INVERSE_ENERGY)


def clipped_outputs_of(record: ModalityRecord, origin: Origin) -> NDArray[np.bool_]:
    """Return a bool (width,): outputs that may have been clipped in what is in an origin; all that is not known to."""
    entries, found = entries_of(record), np.zeros(record.width, np.bool_)
    try:
        for name in names_of(origin):
            found[np.asarray(entries[name][CLIPPED_OUTPUTS], dtype=np.int64)] = True
    except (KeyError, TypeError, ValueError, IndexError):
        return np.ones(record.width, np.bool_)
    return found


def entries_of(record: ModalityRecord) -> dict[str, dict[str, Any]]:
    """Return the entries of a modality by origin id, those that are objects."""
    found = record.calibration.get(DRIFT)
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)} if isinstance(found, dict) else {}


def names_of(origin: Origin) -> list[str]:
    """Return the origin ids that an origin stands for."""
    return [name for name, _ in origin.absorbed] or [origin.id]


def _largest(record: ModalityRecord, origin: Origin, key: str) -> float | None:
    entries = entries_of(record)
    try:
        found = max(float(entries[name][key]) for name in names_of(origin))
    except (KeyError, TypeError, ValueError):
        return None
    return found if 0.0 <= found < math.inf else None
