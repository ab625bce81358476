"""What a virtual board measures: the simulated machine, or the windows of a pairs file, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.pairs import Pairs, open_pairs
from edge_cmcl.data.simulator import SENSORS, WINDOW_S, simulate
from edge_cmcl.errors import DataError, UsageError
from firmware_bridge.frames import CODES
from firmware_bridge.hello import Hello

FIRMWARE = "edge-cmcl virtual board"
_FULL_SCALE = 32_000  # of int16: room for the largest value, which is known


@dataclass(frozen=True)
class Signal:
    """One sensor's samples from the start to the end.

    Attributes:
        hello: what the board says of it.
        raw: (t, channels) in the dtype of the hello; value = raw x scale.
    """

    hello: Hello
    raw: NDArray[np.generic]


def machine_signals(names: Sequence[str], seconds: float, seed: int) -> list[Signal]:
    """Return what the sensors `names` of the simulated machine measure for at least `seconds`.

    Raises:
        UsageError: the machine has no such sensor.
    """
    made = simulate(max(1, -(-int(np.ceil(seconds)) // int(WINDOW_S))), names, seed=seed)
    return [_signal(name, made.windows[name], SENSORS[name].rate_hz, SENSORS[name].unit) for name in names]


def replayed(path: Path, names: Sequence[str] = ()) -> list[Signal]:
    """Return the windows of the pairs file `path`, one after the other, of the sensors `names` or of all.

    Raises:
        DataError: no pairs file, or one without rates.
        UsageError: it has no such sensor.
    """
    with open_pairs(path) as pairs:
        wanted = list(names) or list(pairs.modalities)
        missing = ", ".join(name for name in wanted if name not in pairs.modalities)
        if missing:
            expected = f"some of {', '.join(pairs.modalities)}"
            raise UsageError(f"{path} has no {missing}", expected=expected, got=", ".join(wanted))
        return [_replayed(pairs, name) for name in wanted]


def _replayed(pairs: Pairs, name: str) -> Signal:
    rate = pairs.rate_hz.get(name)
    if rate is None:
        raise DataError(f"{pairs.path} cannot be replayed", expected=f"a rate of {name}", got="none")
    windows = pairs.read(name)
    return _signal(name, windows.reshape(*windows.shape[:2], -1), rate, pairs.units.get(name, "?"))


def _signal(name: str, windows: NDArray[np.float32], rate_hz: float, unit: str) -> Signal:
    """Return (n, T, C) `windows` as a board measures them: in int16, whose scale spans the largest value."""
    values = windows.reshape(-1, windows.shape[2])
    largest = float(np.abs(values).max())
    scale = largest / _FULL_SCALE if largest > 0 else 1.0
    raw = np.round(values / scale).astype(np.int16)
    return Signal(
        Hello(name, unit, scale, rate_hz, values.shape[1], CODES[np.dtype("<i2")], FIRMWARE, max_payload=1024), raw
    )
