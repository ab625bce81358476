"""The guard: what must hold of an update before it is committed. Policy only, without input or output.

A certificate bounds how far old embeddings moved on average, not what that does to recall; held-out pairs say what it
did to the recall of pairs that the recording holds. So both are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual.certificate import Certificate
from edge_cmcl.device.outcome import PairOutcome
from edge_cmcl.errors import RefusedError
from edge_cmcl.limits import MAX_DRIFT


@dataclass(frozen=True)
class Failure:
    """One check that an update did not pass.

    Attributes:
        check: "numbers", "drift" or "recall".
        message: what it is about.
        expected: what would have passed.
        got: the figure.
    """

    check: str
    message: str
    expected: str
    got: str

    @property
    def final(self) -> bool:
        """Whether not even force lets it pass."""
        return self.check == "numbers"


def failures(
    adapters: Mapping[str, NDArray[np.floating]],
    certificates: Iterable[Certificate],
    judged: Iterable[PairOutcome],
    max_drift: float = MAX_DRIFT,
) -> list[Failure]:
    """Return every check that an update fails, the worst first.

    Args:
        adapters: weight (d, width) of each changed modality, by name.
        certificates: of every origin of the changed modalities.
        judged: pairs of modalities before and after, on held-out pairs.
        max_drift: the largest relative displacement bound that an origin may have.
    """
    return [*_numbers(adapters), *_recall(judged), *_drift(certificates, max_drift)]


def refuse(found: list[Failure], pairs: int, of: int) -> None:
    """Raise for the first failure, and name the others.

    Args:
        found: what to refuse for.
        pairs: pairs learned from so far.
        of: pairs in the recording; more where a stage failed.

    Raises:
        RefusedError: there is one.
    """
    if not found:
        return
    others = "".join(f"; also {failure.message}: {failure.got}" for failure in found[1:])
    stage = "" if pairs == of else f" already after {pairs} of {of} pairs"
    raise RefusedError(
        f"the update was not committed{stage}: {found[0].message}",
        expected=found[0].expected,
        got=found[0].got + others,
        hint=_HINTS[found[0].check],
    )


def record(found: list[Failure]) -> dict[str, Any]:
    """Return what a generation keeps of failures that were overridden."""
    return {"forced": True, "failed": [vars(failure).copy() for failure in found]}


_HINTS = {
    "numbers": "check the recording for values far beyond its sensor's range",
    "recall": "check that the recording is synchronised and of the same machine; --force commits all the same",
    "drift": "learn from more varied data or with fewer partners, or allow more with --max-drift; --force commits "
    "all the same",
}


def _numbers(adapters: Mapping[str, NDArray[np.floating]]) -> list[Failure]:
    return [
        Failure("numbers", f"the new adapter of {name} is not finite", "finite numbers", "NaN or infinity")
        for name, weight in adapters.items()
        if not np.isfinite(weight).all()
    ]


def _recall(judged: Iterable[PairOutcome]) -> list[Failure]:
    worse = [pair for pair in judged if pair.change is not None and not pair.change[1] >= 0.0]  # NaN is worse, too
    return [
        Failure(
            "recall",
            f"{' - '.join(pair.modalities)} became worse on held-out pairs",
            f"an MRR not below {pair.before or 0.0:.3f}, within its interval",
            f"{pair.after:.3f}, a change of {pair.change[0]:+.3f} to {pair.change[1]:+.3f}" if pair.change else "",
        )
        for pair in sorted(worse, key=lambda pair: pair.change or (0.0, 0.0))
    ]


def _drift(certificates: Iterable[Certificate], max_drift: float) -> list[Failure]:
    moved = [each for each in certificates if not each.relative <= max_drift]  # NaN is too far
    return [
        Failure(
            "drift",
            f"{each.modality} as learned in {each.origin} may have moved too far",
            f"a mean squared displacement of at most {max_drift:.2%} of the embeddings' energy (--max-drift)",
            f"up to {each.relative:.2%}",
        )
        for each in sorted(moved, key=lambda each: -each.relative)
    ]
