"""Small streams with something to learn: both sides of a pair see the same hidden state."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from edge_cmcl.host.strategies import Settings, Step

WIDTHS = {"acc": 24, "gyro": 20, "emg": 16, "text": 12}
SMALL = Settings(dimensions=8, epochs=2, start="random")


def toy_step(place: int, a: str = "acc", b: str = "gyro", n: int = 70, *, hidden: int = 4, classes: int = 5) -> Step:
    """Return a step of `n` pairs; features have rank `hidden` and span a subspace of the step's own."""
    random = torch.Generator().manual_seed(100 + place)
    if b == "text":
        ids = torch.randint(classes, (n,), generator=random)
        state = torch.randn(classes, hidden, generator=random)[ids]
    else:
        ids = torch.arange(n)
        state = torch.randn(n, hidden, generator=random)
    sides = [_seen(state, WIDTHS[name], random) for name in (a, b)]
    return Step(place, f"{a}-{b}-{place}", (a, b), (sides[0], sides[1]), ids, None, Path("unused"))


def three_steps() -> list[Step]:
    """Return a stream that shares modalities, has feature widths of four kinds, and ends with labels."""
    return [toy_step(0), toy_step(1, "acc", "emg"), toy_step(2, "gyro", "text")]


def _seen(state: Tensor, width: int, random: torch.Generator) -> Tensor:
    return normalize(state @ torch.randn(state.shape[1], width, generator=random), dim=1)
