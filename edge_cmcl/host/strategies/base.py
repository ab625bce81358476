"""What every continual strategy of the comparison is: adapters that learn one step of a stream after the other.

All strategies see the same frozen features and optimise the same loss (symmetric InfoNCE, `host.step.info_nce`); they
differ in the hooks below. Source of the setting: X. Liu et al., "Continual Multimodal Contrastive Learning", NeurIPS
2025, arXiv 2503.14963, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_cmcl.bundle import CertificateRecord
from edge_cmcl.data.splits import folds
from edge_cmcl.device.fitting import FOLDS
from edge_cmcl.host.step import info_nce
from edge_cmcl.host.strategies.start import Kind, start

BATCH_SIZE = 64
WEIGHT_DECAY = 1e-3
"""Batch size and weight decay of the paper's released code (github.com/Xiaohao-Liu/CMCL, training.py)."""

BUFFER_PAIRS = 512
"""Pairs that a replay strategy may keep, over all steps together (the paper, section 5.1)."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """The training part of one step of a stream.

    Attributes:
        place: number of the step, from 0.
        name: its name in the stream file.
        modalities: the pair; the second may be "text", the labels.
        features: (n, width) float32 unit features of each; the widths may differ.
        ids: (n,) int64, rows with equal ids are positives of each other.
        groups: (n,) int64, subject or run of each row, or None.
        file: the pairs file, for strategies that read recordings.
        time: (n,) float64, start of each window in s, or None.
        window_s: length of the longer window of the two in s, or None.
    """

    place: int
    name: str
    modalities: tuple[str, str]
    features: tuple[Tensor, Tensor]
    ids: Tensor
    groups: NDArray[np.int64] | None
    file: Path
    time: NDArray[np.float64] | None = None
    window_s: float | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def folds(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return (training rows, held-out rows) of each fold: by group, or by blocks of time, without overlaps."""
        return folds(len(self), self.groups, FOLDS, time=self.time, window_s=self.window_s)


@dataclass(frozen=True)
class Batch:
    """Some rows of one step.

    Attributes:
        step: which step.
        features: (B, width) float32 of each modality.
        ids: (B,) int64, as in `Step`.
        rows: (B,) int64, rows of the step.
    """

    step: Step
    features: tuple[Tensor, Tensor]
    ids: Tensor
    rows: Tensor

    @property
    def modalities(self) -> tuple[str, str]:
        """The pair."""
        return self.step.modalities


@dataclass(frozen=True)
class Stored:
    """What a strategy keeps between steps, beside the adapters.

    Attributes:
        bytes: all of it.
        raw_samples: pairs of the training data, or of their features, among it.
        details: parts of `bytes` worth knowing.
    """

    bytes: int = 0
    raw_samples: int = 0
    details: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How a strategy trains.

    Attributes:
        dimensions: d of the embeddings.
        epochs: per step.
        learning_rate: of the first batch of a step; it falls linearly to 0 within the step.
        start: where the adapter of a new modality starts, see `strategies.start`.
        seed: of random starts, the order of batches and replay buffers.
        own: the strategy's own hyper-parameters by name.
    """

    dimensions: int = 256
    epochs: int = 20
    learning_rate: float = 1e-3
    start: Kind = "closed_form"
    seed: int = 0
    own: Mapping[str, float] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Settings:
        """Return these settings with `changes`; a name that is no field is one of the strategy's own."""
        fields = {name: value for name, value in changes.items() if name in Settings.__dataclass_fields__}
        own = {name: value for name, value in changes.items() if name not in fields}
        return replace(self, **fields, own={**self.own, **own})


class Strategy:
    """Sequential training with hooks; without them it is plain fine-tuning.

    A subclass overrides what its paper changes. The hooks are called in this order, for every step of the stream:
    `before_step`; for every batch `loss` (within `backward`), `before_optimizer`, the AdamW step, `after_optimizer`;
    then `after_step`.

    Attributes:
        name: as in `--strategies`.
        title: as in tables.
        source: paper and equations.
        kind: "reference" for what is no continual learner.
        reads_files: whether it learns from the steps' files and chooses its settings from them by itself.
        grid: its own hyper-parameters and the values that the search tries; the first is the default.
        adapters: per modality known so far, (d, width) float32.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    grid: ClassVar[Mapping[str, Sequence[float]]] = {}
    kind: ClassVar[Literal["continual", "reference"]] = "continual"
    reads_files: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.adapters: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(settings.seed)

    def own(self, name: str) -> float:
        """Return the value of one of the strategy's own hyper-parameters."""
        return float(self.settings.own.get(name, self.grid[name][0]))

    def learn_stream(self, steps: Sequence[Step]) -> Iterator[int]:
        """Learn all steps; yield how many are learned whenever the strategy may be judged."""
        for done, step in enumerate(steps, start=1):
            self.learn(step)
            yield done

    def learn(self, step: Step) -> None:
        """Learn one step of the stream."""
        self.add_adapters(step)
        self.before_step(step)
        optimizer = self.make_optimizer()
        batches = self.settings.epochs * batches_of(step)
        for done, batch in enumerate(self.batches(step)):
            set_rate(optimizer, self.settings.learning_rate * (1.0 - done / batches))
            optimizer.zero_grad(set_to_none=True)
            self.backward(batch)
            self.before_optimizer(batch)
            optimizer.step()
            self.after_optimizer(batch)
        self.after_step(step)

    def add_adapters(self, step: Step) -> None:
        """Give the modalities of `step` that are new an adapter."""
        new = start(step, self.adapters, self.settings)
        self.adapters |= {name: weight.requires_grad_() for name, weight in new.items()}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of one step; adapters without a gradient are left alone."""
        rate, decay = self.settings.learning_rate, WEIGHT_DECAY
        return torch.optim.AdamW(self.adapters.values(), lr=rate, weight_decay=decay, fused=True)

    def batches(self, step: Step) -> Iterator[Batch]:
        """Yield all batches of all epochs of one step."""
        for _ in range(self.settings.epochs):
            for rows in epoch_rows(step, self.random):
                yield batch_of(step, rows)

    def before_step(self, step: Step) -> None:
        """Prepare for `step`, whose modalities have adapters now."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch, a scalar."""
        return self.contrastive(batch)

    def backward(self, batch: Batch) -> None:
        """Leave the gradients of one batch in the adapters' `grad`."""
        self.loss(batch).backward()  # type: ignore[no-untyped-call]

    def before_optimizer(self, batch: Batch) -> None:
        """Change the gradients before the optimiser uses them."""

    def after_optimizer(self, batch: Batch) -> None:
        """Change the adapters after the optimiser has."""

    def after_step(self, step: Step) -> None:
        """Keep what later steps need of `step`."""

    def close(self) -> None:
        """Remove what the strategy keeps outside of memory; it cannot be used afterwards."""

    def stored(self) -> Stored:
        """Return what is kept between steps beside the adapters."""
        return Stored()

    def certificates(self) -> Sequence[CertificateRecord] | None:
        """Return bounds on how far what was learned has moved; None for a strategy that gives none."""
        return None

    def weights(self, step: Step) -> tuple[Tensor, Tensor] | None:
        """Return both adapters to judge the pair of `step` with, None where one is not known yet."""
        a, b = (self.adapters.get(name) for name in step.modalities)
        return None if a is None or b is None else (a, b)

    def contrastive(self, batch: Batch, adapters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return symmetric InfoNCE of one batch (CMCL paper, equation 1)."""
        a, b = self.embed(batch, adapters)
        return info_nce(a, b[None], batch.ids[None])

    def embed(self, batch: Batch, adapters: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return the embeddings (B, d) of both modalities of a batch, not normalised."""
        weights = self.adapters if adapters is None else adapters
        a, b = (x @ weights[name].T for x, name in zip(batch.features, batch.modalities, strict=True))
        return a, b


def epoch_rows(step: Step, random: torch.Generator) -> list[Tensor]:
    """Return the rows of each batch of one epoch of `step`, in random order; a last batch of one row is left out."""
    batches = torch.split(torch.randperm(len(step), generator=random), BATCH_SIZE)
    return [rows for rows in batches if len(rows) > 1]


def batch_of(step: Step, rows: Tensor) -> Batch:
    """Return `rows` (B,) of `step`."""
    a, b = step.features
    return Batch(step, (a[rows], b[rows]), step.ids[rows], rows)


def batches_of(step: Step) -> int:
    """Return the number of batches of one epoch of `step`."""
    full, rest = divmod(len(step), BATCH_SIZE)
    return full + (rest > 1)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of an optimiser."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def tensor_bytes(tensors: Sequence[Tensor] | Iterator[Tensor]) -> int:
    """Return the bytes of `tensors`."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
