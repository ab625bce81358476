"""What all recordings have in common that are cut into windows: sizes, labels and groups by name, advice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.pairs_format import MIN_SAMPLES
from edge_cmcl.errors import UsageError
from edge_cmcl.limits import MAX_WINDOW_VALUES

MIN_COVER = 0.8
"""Share of a window that its label must cover."""
_COVER_POINTS = 100  # instants at which the label of a window is looked up
_SMALLEST, _LARGEST = 0.02, 50  # values that encoders take for being of order 1


def check_seconds(name: str, value: float | None) -> None:
    """Check an option that is a time, None where it was not given.

    Raises:
        UsageError: it is not above 0, or not finite.
    """
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(f"--{name} is out of range", expected="seconds above 0", got=f"{value:g}")


def window_samples(name: str, window_s: float, rate_hz: float, channels: int) -> int:
    """Return how many samples a window of the sensor `name` has.

    Raises:
        UsageError: fewer than 16, or more than fit into a pairs file.
    """
    if not window_s * rate_hz * channels <= MAX_WINDOW_VALUES:
        got = f"{window_s:g} s at {rate_hz:g} Hz"
        expected = f"at most {MAX_WINDOW_VALUES} values"
        raise UsageError(f"a window of sensor {name!r} is too long", expected=expected, got=got)
    samples = round(window_s * rate_hz)
    if samples < MIN_SAMPLES:
        hint = f"take windows of at least {MIN_SAMPLES / rate_hz:g} s, or ask for a higher rate"
        message = f"a window of sensor {name!r} is too short"
        raise UsageError(message, expected=f"at least {MIN_SAMPLES} samples", got=str(samples), hint=hint)
    return samples


def cover_instants(begins_s: NDArray[np.float64], window_s: float) -> NDArray[np.float64]:
    """Return the instants (n, 100) at which the text that covers each of n windows is looked up."""
    instants: NDArray[np.float64] = begins_s[:, None] + window_s * (np.arange(_COVER_POINTS) + 0.5) / _COVER_POINTS
    return instants


def covering(held: NDArray[np.str_]) -> list[str | None]:
    """Return the text that covers at least `MIN_COVER` of each window, None where none does.

    Args:
        held: (n, 100) texts that hold at `cover_instants`.
    """
    majority: list[str | None] = []
    for row in held:
        texts, counts = np.unique(row, return_counts=True)
        best = int(counts.argmax())
        majority.append(str(texts[best]) if counts[best] >= MIN_COVER * len(row) else None)
    return majority


def numbered(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """Return the different texts, sorted, and the index of each text among them, -1 for ""."""
    given = list(texts)
    names = sorted(set(given) - {""})
    index = {name: i for i, name in enumerate(names)}
    return names, [index.get(text, -1) for text in given]


def counted(texts: Sequence[str]) -> dict[str, int]:
    """Return how often each text occurs."""
    names, counts = np.unique(texts, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def constant_channels(windows: NDArray[np.float32]) -> list[int]:
    """Return the channels of `windows` (n, T, C) that have one value throughout."""
    return [int(c) for c in np.flatnonzero(np.ptp(windows, axis=(0, 1)) == 0)]


def better_scale(windows: NDArray[np.float32]) -> tuple[float, float] | None:
    """Return the size of the values and a divisor that would make it order 1; None where it is that already."""
    size = float(np.sqrt(np.square(windows, dtype=np.float64).mean()))
    if size == 0 or _SMALLEST <= size <= _LARGEST:
        return None
    return size, float(10 ** round(np.log10(size)))
