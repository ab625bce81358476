"""What the terms in the output of several commands mean, in the words that stand below the tables."""

from __future__ import annotations

MRR = (
    "MRR: mean over held-out pairs of 1 / rank, where rank is the place of the true partner among all of them (of the "
    "true label\namong all labels); 1 is perfect."
)
MOVED = (
    "moved at most: bound on how far the embeddings of what was learned have moved since, as a share of their energy "
    "(mean\nsquared distance over mean squared length)."
)
STILL = "nothing that was learned earlier has moved"
CLOSED_FORM = "the closed-form fit was best; no training epoch improved it"
OUTSIDE = (
    "energy outside: of the windows' mean feature, what lies outside everything learned, as a share of a normal "
    "window's;\n{share:.0%} of normal files exceed what is normal. windows beyond: those that exceed it for one window."
)
