"""Stage one of base training: convolutional encoders, trained end to end by symmetric InfoNCE over the base pairs.

Skipped where no modality has `encoder = "conv"`. The heads used here are thrown away: once the encoders are frozen,
`adapters` fits the adapters of all modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_cmcl.device.judging import MAX_GALLERY, label_scores, pair_scores
from edge_cmcl.device.text import TEXT
from edge_cmcl.host.epochs import History, fit_epochs
from edge_cmcl.host.step import info_nce
from edge_cmcl.progress import Progress, silent
from edge_cmcl.project import TrainTable

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PairInputs:
    """One base pair: windows in the encoder's scale for a trained side, unit features for a frozen one.

    Attributes:
        modalities: both names.
        inputs: (n, ...) float32 of each.
        ids: (n,) int64, equal ids are positives.
        training: rows to train on.
        validation: rows to validate on.
    """

    modalities: tuple[str, str]
    inputs: tuple[NDArray[np.float32], NDArray[np.float32]]
    ids: Rows
    training: Rows
    validation: Rows


class _Branch(nn.Module):
    """One modality: encoder (identity for a frozen one), standardisation by batch, unit norm, head."""

    def __init__(self, encoder: nn.Module | None, width: int, dimensions: int) -> None:
        super().__init__()
        self.encoder = encoder or nn.Identity()
        self.standardise = nn.BatchNorm1d(width, affine=False) if encoder else nn.Identity()
        self.head = nn.Linear(width, dimensions, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.standardise(self.encoder(inputs))
        return torch.as_tensor(self.head(nn.functional.normalize(features, dim=1)))


def train_encoders(
    encoders: Mapping[str, nn.Module],
    widths: Mapping[str, int],
    pairs: Sequence[PairInputs],
    dimensions: int,
    options: TrainTable,
    *,
    device: str,
    checkpoint: Path | None,
    fingerprint: str,
    progress: Progress = silent,
) -> History:
    """Train `encoders` in place.

    Args:
        encoders: by modality; modalities without one are frozen.
        widths: features of every modality in `pairs`.
        pairs: the pairs with at least one trained side.
        dimensions: d.
        options: the project's `[train]` table.
        device: torch device.
        checkpoint: see `fit_epochs`.
        fingerprint: see `fit_epochs`.
        progress: told each epoch.
    """
    torch.manual_seed(options.seed)
    names = sorted({name for pair in pairs for name in pair.modalities})
    branches = nn.ModuleDict({name: _Branch(encoders.get(name), widths[name], dimensions) for name in names}).to(device)
    optimizer = torch.optim.AdamW(branches.parameters(), lr=options.learning_rate, weight_decay=0.05)
    precision = autocast_dtype(options.precision, device)

    def run_epoch(epoch: int) -> float:
        branches.train()
        return _run_epoch(branches, optimizer, pairs, options, epoch, device, precision)

    def validate() -> dict[str, float]:
        branches.eval()
        with torch.no_grad():
            return {"validation_mrr": float(np.mean([_validate(branches, pair, device) for pair in pairs]))}

    history = fit_epochs(
        branches,
        optimizer,
        run_epoch,
        validate,
        epochs=options.epochs,
        patience=options.patience,
        stage="train encoders",
        checkpoint=checkpoint,
        fingerprint=fingerprint,
        progress=progress,
    )
    branches.to("cpu").eval()
    return history


def autocast_dtype(precision: str, device: str) -> torch.dtype | None:
    """Return the dtype of mixed precision, None for plain float32; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if precision == "auto":
        return torch.bfloat16 if device.startswith("cuda") else None
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def _run_epoch(
    branches: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    pairs: Sequence[PairInputs],
    options: TrainTable,
    epoch: int,
    device: str,
    precision: torch.dtype | None,
) -> float:
    random = torch.Generator().manual_seed(options.seed * 100_003 + epoch)
    scaler = torch.amp.GradScaler(device, enabled=precision is torch.float16)
    batches = [
        (pair, torch.from_numpy(pair.training)[rows].numpy())
        for pair in pairs
        for rows in torch.split(torch.randperm(len(pair.training), generator=random), options.batch_size)
        if len(rows) > 1
    ]
    total = 0.0
    for index in torch.randperm(len(batches), generator=random).tolist():
        pair, rows = batches[index]
        with torch.autocast(device.split(":")[0], dtype=precision, enabled=precision is not None):
            a, b = _embed(branches, pair, rows, device)
        loss = info_nce(a.float(), b.float()[None], torch.from_numpy(pair.ids[rows]).to(device)[None])
        optimizer.zero_grad()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        total += float(loss.detach())
    return total / max(len(batches), 1)


def _embed(branches: nn.ModuleDict, pair: PairInputs, rows: Rows, device: str) -> list[Tensor]:
    return [
        branches[name](torch.from_numpy(inputs[rows]).to(device))
        for name, inputs in zip(pair.modalities, pair.inputs, strict=True)
    ]


def _validate(branches: nn.ModuleDict, pair: PairInputs, device: str) -> float:
    labels, row_of_label = np.unique(pair.ids, return_index=True)
    text = pair.modalities[1] == TEXT
    texts = _unit_embeddings(branches, pair, row_of_label, device)[1] if text else None
    scores = []
    for rows in np.array_split(pair.validation, max(1, -(-len(pair.validation) // MAX_GALLERY))):
        a, b = _unit_embeddings(branches, pair, rows, device)
        true = np.searchsorted(labels, pair.ids[rows])
        scores.append(pair_scores(a, b) if texts is None else label_scores(a, texts, true))
    return float(np.mean(np.concatenate(scores)))


def _unit_embeddings(branches: nn.ModuleDict, pair: PairInputs, rows: Rows, device: str) -> list[NDArray[np.float32]]:
    embedded = _embed(branches, pair, rows, device)
    return [nn.functional.normalize(side.float(), dim=1).cpu().numpy() for side in embedded]
