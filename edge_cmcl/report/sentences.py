"""What a comparison says in plain sentences: who is best, and where ours is not clearly better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_cmcl.report.entries import percent
from edge_cmcl.report.results import OURS, Comparison
from edge_cmcl.report.summary import Spread, Summary, summaries

JOINT = "joint"
"""Name of the strategy that learns everything at once."""

DEVIATIONS = 2.0
"""A mean is clearly better when it is ahead by more than this many standard deviations of the difference."""

TITLES = {
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "mrr": "MRR",
    "accuracy": "accuracy",
    "map": "mAP",
}


@dataclass(frozen=True)
class Lead:
    """How far the mean of one strategy is ahead of another's.

    Attributes:
        ahead: difference of the means.
        needed: `DEVIATIONS` standard deviations of the difference, sqrt(s_1^2 + s_2^2); None with one seed.
    """

    ahead: float
    needed: float | None

    @property
    def clear(self) -> bool:
        """Whether it is ahead by more than needed."""
        return self.needed is not None and self.ahead > self.needed


def lead(of: Spread, over: Spread) -> Lead:
    """Return how far `of` is ahead of `over`."""
    if of.std is None or over.std is None:
        return Lead(of.mean - over.mean, None)
    return Lead(of.mean - over.mean, DEVIATIONS * float((of.std**2 + over.std**2) ** 0.5))


def best_continual(comparison: Comparison, metric: str) -> Summary | None:
    """Return the continual strategy with the highest final mean, the first of equals; None where there is none."""
    return max(_continual(comparison, metric), key=lambda summary: summary.final.mean, default=None)


def verdict(comparison: Comparison) -> list[str]:
    """Return the sentences, for each metric that decides: R@10 between sensors, accuracy against labels."""
    deciding = [name for name in ("recall_at_10", "accuracy") if name in comparison.metrics]
    return [sentence for metric in deciding for sentence in _verdict(comparison, metric)]


def _verdict(comparison: Comparison, metric: str) -> list[str]:
    best = best_continual(comparison, metric)
    if best is None:
        return []
    strategies, title = _continual(comparison, metric), TITLES[metric]
    named = f"{_title(comparison, best)} ends with a mean {title} of {percent(best.final)} %"
    rank = f"the highest of the {len(strategies)} continual strategies" if len(strategies) > 1 else "alone here"
    sentences = [f"{named}, {rank}{_against_joint(comparison, best)}."]
    ours = next((summary for summary in strategies if summary.strategy == OURS), None)
    others = [summary for summary in strategies if summary.strategy != OURS]
    if ours is not None and others:
        sentences.append(_ours_against(comparison, ours, others))
    return sentences


def _against_joint(comparison: Comparison, best: Summary) -> str:
    for summary in summaries(comparison):
        if (summary.strategy, summary.metric) == (JOINT, best.metric) and summary.final.mean > 0:
            share = best.final.mean / summary.final.mean
            return f"; that is {share:.1%} of what {_title(comparison, summary)} reaches with all data at once"
    return ""


def _ours_against(comparison: Comparison, ours: Summary, others: Sequence[Summary]) -> str:
    title, metric = _title(comparison, ours), TITLES[ours.metric]
    leads = {_title(comparison, other): lead(ours.final, other.final) for other in others}
    if any(found.needed is None for found in leads.values()):
        return f"Whether {title} is clearly better in {metric} cannot be said: that takes two seeds or more of each."
    unclear = [
        f"{name} ({100 * found.ahead:+.1f} points, more than {100 * (found.needed or 0):.1f} needed)"
        for name, found in leads.items()
        if not found.clear
    ]
    if not unclear:
        return f"{title} is ahead of every other continual strategy in {metric} by more than two standard deviations."
    count = f"{len(unclear)} of {len(others)} other continual strategies"
    return f"{title} is not ahead of {count} in {metric} by more than two standard deviations: {'; '.join(unclear)}."


def _continual(comparison: Comparison, metric: str) -> list[Summary]:
    kinds = {name: cells[0].kind for name, cells in comparison.strategies().items()}
    return [s for s in summaries(comparison) if s.metric == metric and kinds[s.strategy] == "continual"]


def _title(comparison: Comparison, summary: Summary) -> str:
    return comparison.strategies()[summary.strategy][0].title
