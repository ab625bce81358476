"""Where the adapter of a new modality starts: at random, or in closed form as on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_cmcl.continual.sketch import FrequentDirections, principal_rows
from edge_cmcl.device.fitting import choose_penalty
from edge_cmcl.device.fitting import start as closed_form
from edge_cmcl.device.judging import Judge
from edge_cmcl.device.members import MAX_REDUCED, Member

if TYPE_CHECKING:
    from edge_cmcl.host.strategies.base import Settings, Step

Kind = Literal["random", "closed_form"]
KINDS: tuple[Kind, ...] = ("random", "closed_form")


def start(step: Step, known: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    """Return adapters (d, width) float32 of the modalities that `known` has none of.

    "random" draws N(0, 1 / d), so that embeddings begin with unit norm; "closed_form" is what the device does
    (`device.fitting.start`): canonical correlations, or ridge onto the known partner, the penalty by cross-validation.

    Args:
        step: a pair of modalities.
        known: adapters of known modalities.
        settings: `start`, `dimensions` and `seed` of the strategy.
    """
    modalities, features, ids = step.modalities, step.features, step.ids
    new = [place for place, name in enumerate(modalities) if name not in known]
    if settings.start == "random":
        random = torch.Generator().manual_seed(settings.seed)
        shapes = {place: (settings.dimensions, features[place].shape[1]) for place in new}
        scale = settings.dimensions**-0.5
        return {modalities[p]: torch.randn(shape, generator=random) * scale for p, shape in shapes.items()}
    if not new:
        return {}
    members = [_member(n, x.numpy(), known.get(n)) for n, x in zip(modalities, features, strict=True)]
    positives = ids.numpy()[None]
    penalty = choose_penalty(members, positives, step.folds(), Judge(members, positives), settings.dimensions)
    assert penalty is not None  # one member is new
    maps = closed_form(members, positives, np.arange(len(ids)), penalty, settings.dimensions).maps
    return {modalities[p]: torch.from_numpy(np.asarray(maps[p]) @ members[p].directions) for p in new}


def _member(name: str, features: NDArray[np.float32], weight: Tensor | None) -> Member:
    valid = np.ones(len(features), np.bool_)
    sketched = FrequentDirections(features.shape[1])
    sketched.update(features)
    no_space, no_inputs = np.zeros((features.shape[1], 1), np.float32), np.zeros((len(features), 1), np.float32)
    empty = np.zeros((0, 0), np.float32)
    if weight is not None:
        known = weight.detach().numpy()
        base = features @ known.T
        return Member(name, valid, known, base, empty, empty, no_space, no_inputs, sketched.sketch())
    directions = principal_rows(sketched.rows)[1][:MAX_REDUCED].astype(np.float32)
    reduced = features @ directions.T
    return Member(name, valid, None, empty, reduced, directions, no_space, no_inputs, sketched.sketch())
