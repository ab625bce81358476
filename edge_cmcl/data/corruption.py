"""Reproducible damage to recordings: noise, missing samples and drift, to see what a model makes of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.pairs import open_pairs, write_pairs
from edge_cmcl.errors import UsageError

Array = NDArray[np.float32]

_LIMITS = {"noise": (-60.0, 120.0), "missing": (0.0, 0.9), "drift": (0.0, 1000.0)}
_MEAN_GAP = 8
"""Samples of an average gap: links and loggers lose several samples in a row, not one here and there."""


@dataclass(frozen=True)
class Corruption:
    """What is done to every window of a file.

    Attributes:
        noise: white Gaussian noise at this signal-to-noise ratio in dB, against each channel's variance in the file.
        missing: share of the samples that are lost, in gaps of 8 on average, and bridged by linear interpolation.
        drift: by how many of its standard deviations each channel's baseline moves from the first window to the last.
    """

    noise: float | None = None
    missing: float | None = None
    drift: float | None = None

    @property
    def name(self) -> str:
        """As `parse_corruption` reads it."""
        return ",".join(f"{key}={value:g}" for key, value in vars(self).items() if value is not None)


def parse_corruption(text: str) -> Corruption:
    """Read "noise=SNR_DB,missing=FRACTION,drift=RATE", any of them.

    Raises:
        UsageError: it is not that.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        low, high = _LIMITS.get(key.strip(), (0.0, -1.0))
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high or key.strip() in found:
            raise UsageError(
                f"cannot corrupt with {part!r}",
                expected="noise=SNR_DB (-60 to 120), missing=FRACTION (0 to 0.9), drift=RATE (0 to 1000), each once",
                got=text,
            )
        found[key.strip()] = number
    return Corruption(**found)


def corrupt_file(source: Path, target: Path, corruption: Corruption, seed: int = 0) -> None:
    """Write a damaged copy of the pairs file `source`; equal arguments and content give equal files.

    Raises:
        DataError: `source` is broken.
        StorageError: `target` cannot be written.
    """
    with open_pairs(source) as pairs:
        windows, valid = {}, {}
        for name in pairs.modalities:
            valid[name] = pairs.valid(name)
            windows[name] = pairs.read(name)
            present = np.flatnonzero(valid[name])
            windows[name][present] = _corrupt(windows[name][present], corruption, _random(seed, name, pairs.n))
        write_pairs(
            target, windows, labels=pairs.labels, label_names=pairs.label_names, groups=pairs.groups, time=pairs.time,
            valid=valid, rate_hz=pairs.rate_hz, units=pairs.units, source=f"{pairs.source} ({corruption.name})".strip(),
        )  # fmt: skip


def _random(seed: int, name: str, n: int) -> np.random.Generator:
    digest = hashlib.sha256(f"edge-cmcl/corruption/{seed}/{name}/{n}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _corrupt(windows: Array, corruption: Corruption, random: np.random.Generator) -> Array:
    """Return damaged (n, T, ...) windows: drift first, as it is in the sensor, then noise, then loss on the way."""
    spread = windows.std(axis=(0, 1), dtype=np.float64).astype(np.float32)
    result: Array = windows.copy()
    if corruption.drift is not None:
        direction = random.choice([-1.0, 1.0], size=spread.shape)
        moved = np.linspace(0.0, corruption.drift, len(windows), dtype=np.float32)
        result += moved.reshape(-1, 1, *(1,) * spread.ndim) * (direction * spread).astype(np.float32)
    if corruption.noise is not None:
        scale = spread * np.float32(10.0 ** (-corruption.noise / 20.0))
        result += random.standard_normal(windows.shape, dtype=np.float32) * scale
    if corruption.missing:
        for window in result:
            _lose(window, corruption.missing, random)
    return result


def _lose(window: Array, share: float, random: np.random.Generator) -> None:
    """Replace gaps of one window (T, ...) by what interpolation makes of them; the first and last sample stay."""
    length = len(window)
    lost = np.zeros(length, np.bool_)
    wanted = min(round(share * length), length - 2)
    while (missing := wanted - int(lost.sum())) > 0:
        start = int(random.integers(1, length - 1))
        gap = min(int(random.geometric(1.0 / _MEAN_GAP)), missing)
        lost[start : min(start + gap, length - 1)] = True
    kept, gone = np.flatnonzero(~lost), np.flatnonzero(lost)
    flat = window.reshape(length, -1)
    for column in range(flat.shape[1]):
        flat[gone, column] = np.interp(gone, kept, flat[kept, column])
