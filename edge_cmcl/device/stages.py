"""Learning from growing parts of a recording, so that one that harms is noticed before all of it was worked through."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge_cmcl.data import Pairs
from edge_cmcl.device.plan import Plan, within
from edge_cmcl.errors import DataError

SMALLEST_STAGE = 64
"""Pairs below which a stage says too little to stop an update."""


def stages(plan: Plan, pairs: Pairs, wanted: int) -> Iterator[Plan]:
    """Yield plans for growing parts of a recording, each twice the one before, and at last `plan` itself.

    The rows of a part are spread evenly, so that every group and every part of the time is in it.

    Args:
        plan: for the whole recording.
        pairs: the recording.
        wanted: stages wanted; those that would be too small are left out.
    """
    rows = np.arange(pairs.n)
    for halvings in range(wanted - 1, 0, -1):
        share = 0.5**halvings
        if plan.rows * share >= SMALLEST_STAGE:
            chosen = np.floor((rows + 1) * share) > np.floor(rows * share)
            try:
                yield within(plan, pairs, chosen)
            except DataError:  # a partner that is rare needs the whole recording
                continue
    yield plan
