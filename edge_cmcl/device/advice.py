"""Whether an update is worth it: the policy, from figures to a recommendation with reasons. No input or output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_cmcl.device.guard import Failure
from edge_cmcl.device.outcome import PairOutcome

LEARN, DO_NOT_LEARN, UNCLEAR = "learn", "do not learn", "unclear"

MIN_PAIRS = 32
"""Fewer pairs are too little data to recommend anything."""

SURE = 0.01
"""Highest p, of one partner, at which its pairing counts as real: so seldom do shuffled pairings get that far."""

DOUBTFUL = 0.05
"""Above this p a pairing is no better than shuffled ones; between the two more data is asked for."""

SHUFFLES = 200
"""Pairings for each partner, the true one included: the fewest in which p can be below `SURE` with one as good."""

NOTHING_NEW = 0.05
"""A sensor of which less is new is a spare for known ones; see `evidence.new_share`."""

NO_GAIN = 0.01
"""A rise of the MRR of a known pair that is surely below this is not worth an update."""


@dataclass(frozen=True)
class Evidence:
    """How well the sensor predicts one partner, on held-out pairs, before anything is trained.

    Attributes:
        partner: the partner; "text" stands for the labels.
        n: held-out pairs.
        gallery: candidates that each was ranked among, on average.
        mrr: MRR of the closed-form fit.
        chance: MRR of random ranking.
        shuffled: mean MRR of the same fit on shuffled pairings.
        gain: mrr - chance.
        interval: 95 % bootstrap interval of `gain`, over groups, or stretches of time that are independent.
        p: share of shuffled pairings that do as well, from `dependence.permutation_test`.
        stretches: independent stretches of the recording that were shuffled.
        pairings: number of different ways to shuffle them, at most 1e9.
    """

    partner: str
    n: int
    gallery: float
    mrr: float
    chance: float
    shuffled: float
    gain: float
    interval: tuple[float, float]
    p: float
    stretches: int
    pairings: float

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return vars(self).copy()


@dataclass(frozen=True)
class Findings:
    """What was found out about an update.

    Attributes:
        modality: the sensor.
        known: whether the generation has learned it already.
        pairs: rows with the sensor and a partner.
        evidence: per partner.
        new_share: see `evidence.new_share`; None where no partner is a known sensor.
        judged: pairs before and after a rehearsal of the update, on held-out pairs.
        failed: checks of the guard that the rehearsal failed.
    """

    modality: str
    known: bool
    pairs: int
    evidence: Sequence[Evidence] = ()
    new_share: float | None = None
    judged: Sequence[PairOutcome] = ()
    failed: Sequence[Failure] = ()


@dataclass(frozen=True)
class Advice:
    """A recommendation.

    Attributes:
        recommendation: "learn", "do not learn" or "unclear".
        reasons: why, the decisive one first; whole sentences without a full stop.
    """

    recommendation: str
    reasons: list[str] = field(default_factory=list)


def too_little(modality: str, pairs: int, why: str = "") -> Advice:
    """Return the advice where there are too few pairs to tell."""
    reason = why or f"too little data: {pairs} pairs of {modality} and a partner; record at least {MIN_PAIRS}"
    return Advice(UNCLEAR, [reason, "each subject, run or state of the machine should occur several times"])


def advise(found: Findings) -> Advice:
    """Return the recommendation that `found` leads to.

    Partners are tested side by side, so each at its share of the error probability (C. Bonferroni, 1936).
    """
    if found.pairs < MIN_PAIRS:
        return too_little(found.modality, found.pairs)
    share = len(found.evidence)
    sure = [each for each in found.evidence if each.p <= SURE / share]
    if not sure:
        return _not_sure(found, share)
    against = _against(found)
    if against is not None:
        return against
    reasons = [_predicts(each) for each in sure]
    rest = [each for each in found.evidence if each not in sure]
    if rest:
        chosen = " ".join(f"--with {each.partner}" for each in sure)
        reasons += [f"{_no_relation(found.modality, each)}; leave it out: {chosen}" for each in rest]
    if found.known:
        reasons += [
            f"learning more of it would raise the held-out MRR with {_other(found, each)} "
            f"from {each.before or 0.0:.3f} to {each.after:.3f}"
            for each in found.judged
            if found.modality in each.modalities and each.change is not None and each.change[0] > 0.0
        ]
    elif found.new_share is not None:
        reasons.append(f"{found.new_share:.0%} of it is new beside the known sensors, noise included")
    return Advice(LEARN, reasons)


def _not_sure(found: Findings, share: int) -> Advice:
    few = [each for each in found.evidence if each.pairings < share / SURE]
    if few:
        count = min(each.stretches for each in few)
        reason = (
            f"too little data: neighbours in the recording resemble each other, and only {count} stretches of it are "
            "independent of each other; record longer, or more different states"
        )
        return Advice(UNCLEAR, [reason])
    maybe = [each for each in found.evidence if each.p <= DOUBTFUL / share]
    if maybe:
        reasons = [f"{_predicts(each)}, but {each.p:.1%} of shuffled pairings do as well" for each in maybe]
        return Advice(UNCLEAR, [*reasons, f"record more: about {2 * found.pairs} pairs should tell"])
    return Advice(DO_NOT_LEARN, [_no_relation(found.modality, each) for each in found.evidence])


def _against(found: Findings) -> Advice | None:
    """Return what speaks against learning a sensor that does predict its partners, None where nothing does."""
    if found.failed:
        reasons = [f"the guard would refuse it: {each.message}: {each.got}" for each in found.failed]
        return Advice(DO_NOT_LEARN, reasons)
    if found.new_share is not None and found.new_share < NOTHING_NEW:
        reason = f"it is a spare: all but {found.new_share:.1%} of it can be told from the known sensors"
        return Advice(DO_NOT_LEARN, [reason])
    changes = [each.change for each in found.judged if found.modality in each.modalities and each.change is not None]
    if not found.known or not changes or any(low > 0.0 for low, _ in changes):
        return None
    told = "; ".join(f"{low:+.3f} to {high:+.3f}" for low, high in changes)
    if all(high < NO_GAIN for _, high in changes):
        return Advice(DO_NOT_LEARN, [f"it is known, and learning more of it would not raise its held-out MRR ({told})"])
    reason = f"it is known, and learning more of it may raise its held-out MRR or lower it ({told})"
    return Advice(UNCLEAR, [reason, f"record more: about {2 * found.pairs} pairs should tell"])


def _other(found: Findings, pair: PairOutcome) -> str:
    return next(name for name in pair.modalities if name != found.modality)


def _predicts(each: Evidence) -> str:
    return (
        f"it predicts {each.partner} of held-out moments: MRR {each.mrr:.3f}, {each.shuffled:.3f} for shuffled pairings"
    )


def _no_relation(modality: str, each: Evidence) -> str:
    return (
        f"{modality} and {each.partner} go together no better than shuffled: MRR {each.mrr:.3f} of held-out pairs, "
        f"{each.shuffled:.3f} for shuffled ones"
    )
