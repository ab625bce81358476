"""Recent windows of the simulated machine, as they are or with something wrong, for tests of the drift watch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data import open_pairs, write_pairs

Windows = NDArray[np.float32]


def changed(source: Path, target: Path, sensor: str, change: Callable[[Windows], Windows]) -> Path:
    """Write a copy of `source` with the windows of `sensor` changed to `target`, and return that."""
    with open_pairs(source) as pairs:
        windows = {name: pairs.read(name) for name in pairs.modalities}
        windows[sensor] = np.ascontiguousarray(change(windows[sensor]), dtype=np.float32)
        write_pairs(
            target, windows, labels=pairs.labels, label_names=pairs.label_names, groups=pairs.groups, time=pairs.time,
            rate_hz=pairs.rate_hz, units=pairs.units,
        )  # fmt: skip
    return target


def first(source: Path, target: Path, n: int) -> Path:
    """Write the first `n` moments of `source` to `target`, and return that."""
    with open_pairs(source) as pairs:
        windows = {name: pairs.read(name, 0, n) for name in pairs.modalities}
        write_pairs(target, windows, rate_hz=pairs.rate_hz, units=pairs.units)
    return target


def remounted(windows: Windows) -> Windows:
    """The sensor was turned by 90 degrees about its third axis."""
    return np.stack([-windows[:, :, 1], windows[:, :, 0], windows[:, :, 2]], axis=2)


def noisy(windows: Windows) -> Windows:
    """Noise as strong as the signal."""
    random = np.random.default_rng(0)
    spread = windows.std(axis=(0, 1))
    return windows + (spread * random.standard_normal(windows.shape)).astype(np.float32)


def stronger(windows: Windows) -> Windows:
    """Another machine: four times the amplitude, around another mean."""
    return 4.0 * windows + 2.0
