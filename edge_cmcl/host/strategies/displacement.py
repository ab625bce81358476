"""Projection of the displacement: what AdamW did is taken back in every direction that was seen before."""

from __future__ import annotations

import torch
from torch import Tensor

from edge_cmcl.host.strategies.base import Batch, Settings, Step, Stored, Strategy, tensor_bytes
from edge_cmcl.host.strategies.projector import Moment, Projector, range_projector


class Displacement(Strategy):
    """W = W_before + (W - W_before) (I - P) after every optimiser step, P onto the modality's own past features.

    S. Wang et al., "Training Networks in Null Space of Feature Covariance for Continual Learning" (Adam-NSCL), CVPR
    2021, section 3 and algorithm 1: the candidate update that Adam has made is projected onto the null space of the
    uncentred second moment of past inputs of a linear layer. HMCL (ICML 2026) does so for the adapters of continual
    multimodal learning and adds a rotation; this is its form without one. Because nothing comes after the projection,
    neither AdamW's scaling of elements nor weight decay moves an embedding within the protected directions.

    `lambda_min` is the eigenvalue from which on a direction is protected, as a share of the trace.
    """

    name = "displacement"
    title = "Displacement"
    source = "S. Wang et al., CVPR 2021, algorithm 1; HMCL, ICML 2026, without rotation"
    grid = {"lambda_min": (3e-3, 1e-3, 1e-2)}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.moments: dict[str, Moment] = {}
        self.own_side: dict[str, Projector] = {}
        self._before: dict[str, Tensor] = {}

    def before_step(self, step: Step) -> None:
        """Make the projectors of the modalities of `step` that have learned before."""
        known = [name for name in step.modalities if name in self.moments]
        self._before = {name: self.adapters[name].detach().clone() for name in known}
        self.own_side = {name: self.protected(self.moments[name].mean()) for name in known}

    def after_optimizer(self, batch: Batch) -> None:
        """Project the displacement since the step began."""
        with torch.no_grad():
            for name, before in self._before.items():
                weight = self.adapters[name]
                weight.copy_(before + self.free(name, weight - before))

    def free(self, name: str, change: Tensor) -> Tensor:
        """Return what of `change` (d, width) the modality may do."""
        return change - self.own_side[name](change)

    def protected(self, moment: Tensor) -> Projector:
        """Return the projector onto the directions of `moment` (m, m) that must not move."""
        return range_projector(moment, self.own("lambda_min") * float(moment.trace()))

    def after_step(self, step: Step) -> None:
        """Add the features of `step` to the second moments."""
        for name, features in zip(step.modalities, step.features, strict=True):
            self.moments.setdefault(name, Moment(features.shape[1])).add(features)

    def stored(self) -> Stored:
        """A dense second moment per modality."""
        return Stored(tensor_bytes(moment.total for moment in self.moments.values()))
