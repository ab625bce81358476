"""Whether a recording holds a modality, of the kind it was declared or learned with: its unit, rate and window.

An encoder sees bare numbers. Values in m/s^2 where it learned g, or windows of half the rate, give embeddings that
look like any others and mean something else, so this is the one place where they can be told apart.
"""

from __future__ import annotations

import difflib
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Protocol

from edge_cmcl.data import Pairs
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import DataError, EdgeCmclWarning

MAX_DIFFERENCE = 0.2
"""Rate and window length may differ by so much, relative to what was declared, before the user is warned."""

LABELS_HINT = "import the recording with --label FILE:COLUMN, or record it with --label"


class FitWarning(EdgeCmclWarning):
    """A recording differs from what its modality was declared or learned with, and is used all the same."""


class Declared(Protocol):
    """What a project's table or a generation's record says of a modality; None and "" where it says nothing."""

    @property
    def rate_hz(self) -> float | None:
        """Nominal samples per second."""

    @property
    def window_s(self) -> float | None:
        """Nominal length of a window in s."""

    @property
    def unit(self) -> str:
        """Unit of the values."""


def near(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return "did you mean X?" for the most similar of the `known` names, "" where none is."""
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f"did you mean {found[0]}?" if found else ""


def chosen_sensors(pairs: Pairs, wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the `wanted` sensors, each once, or by default every one of a file that is `known`.

    Raises:
        DataError: none is wanted, and the file has none that is known.
    """
    chosen = tuple(dict.fromkeys(wanted)) or tuple(name for name in pairs.modalities if name in known)
    if not chosen:
        raise DataError(
            f"{pairs.path} has no windows of a known modality",
            expected=f"one of {', '.join(name for name in known if name != TEXT)}",
            got=", ".join(pairs.modalities),
            hint=f"`edge-cmcl update --modality {pairs.modalities[0]}` teaches one",
        )
    return chosen


def check_holds(pairs: Pairs, tensor: str) -> None:
    """Check that a pairs file has windows of `tensor`, or labels where that is "text".

    Raises:
        DataError: it has not.
    """
    if tensor == TEXT:
        if pairs.labels is None:
            raise DataError(f"{pairs.path} has no labels", expected="a label per window", got="none", hint=LABELS_HINT)
        return
    if tensor not in pairs.modalities:
        raise DataError(
            f"{pairs.path} has no windows of {tensor}",
            expected=tensor,
            got=", ".join(pairs.modalities),
            hint=near(tensor, pairs.modalities) or f"record {tensor} too, or name a sensor that is in the file",
        )


def check_fit(pairs: Pairs, tensor: str, modality: str, declared: Declared) -> None:
    """Compare unit, rate and window length of `tensor` in `pairs` with what `modality` was declared or learned with.

    What one of the two does not say is not compared.

    Raises:
        DataError: the units differ.

    Warns:
        FitWarning: rate or window length differ by more than 20 %.
    """
    unit, rate_hz = pairs.units.get(tensor, ""), pairs.rate_hz.get(tensor)
    if unit and declared.unit and _plain(unit) != _plain(declared.unit):
        hint = f"import it again in that unit, for instance with @RATE[{declared.unit}]; a divisor belongs to the unit"
        raise DataError(
            f"{pairs.path}: {tensor} has another unit than {modality} was declared or learned with",
            expected=declared.unit,
            got=unit,
            hint=hint,
        )
    if rate_hz is None:
        return
    window_s = pairs.shape(tensor)[0] / rate_hz
    for what, found, wanted, in_unit in (
        ("a rate", rate_hz, declared.rate_hz, "Hz"),
        ("windows", window_s, declared.window_s, "s"),
    ):
        if wanted is not None and abs(found / wanted - 1) > MAX_DIFFERENCE:
            text = f"{pairs.path}: {tensor} has {what} of {found:g} {in_unit}, {modality} of {wanted:g} {in_unit}"
            warnings.warn(f"{text}: what was learned may not hold for it", FitWarning, stacklevel=2)


def _plain(unit: str) -> str:
    """Return a unit without differences of spelling: m/s², m/s^2 and m / s2 are one."""
    return unicodedata.normalize("NFKC", unit).replace("^", "").replace(" ", "")
