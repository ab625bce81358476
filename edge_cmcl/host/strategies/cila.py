"""CILA: Co2L with a distillation coefficient that follows from the losses of earlier steps."""

from __future__ import annotations

from torch import Tensor

from edge_cmcl.host.strategies.base import Settings, Step
from edge_cmcl.host.strategies.co2l import Co2L, Distillation


class Cila(Co2L):
    """Weigh the distillation of step t with max(1, kappa * sum L_dis / sum L_con) over the steps 2 to t - 1.

    Y. Wen et al., "Provable Contrastive Continual Learning", ICML 2024, arXiv 2405.18756, algorithm 1: L_dis and L_con
    are the mean distillation (a cross entropy) and contrastive loss while a step was learned; the coefficient of the
    second step, the first with anything to distil, is 1.
    """

    name = "cila"
    title = "CILA"
    source = "Y. Wen et al., ICML 2024, algorithm 1"
    grid = {"kappa": (1.0, 0.3, 3.0)}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.coefficient = 1.0
        self._steps = _Losses()
        self._batches = _Losses()

    def before_step(self, step: Step) -> None:
        """Choose the coefficient of `step`."""
        super().before_step(step)
        if self._steps.count:
            self.coefficient = max(1.0, self.own("kappa") * self._steps.distillation / self._steps.contrast)
        self._batches = _Losses()

    def weighted(self, contrast: Tensor, distillation: Distillation) -> Tensor:
        """Return the weighted sum of both terms."""
        self._batches.add(float(contrast.detach()), distillation.cross_entropy)
        return contrast + self.coefficient * distillation.divergence

    def after_step(self, step: Step) -> None:
        """Add the mean losses of `step` to those of the steps before."""
        super().after_step(step)
        if count := self._batches.count:
            self._steps.add(self._batches.contrast / count, self._batches.distillation / count)


class _Losses:
    """Sums of both losses."""

    def __init__(self) -> None:
        self.contrast = self.distillation = 0.0
        self.count = 0

    def add(self, contrast: float, distillation: float) -> None:
        self.contrast += contrast
        self.distillation += distillation
        self.count += 1
