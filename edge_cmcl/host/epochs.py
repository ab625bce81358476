"""One training loop: epochs with validation, early stopping and a checkpoint each, so that a kill costs one epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_cmcl import tensors
from edge_cmcl.errors import DataError
from edge_cmcl.progress import Progress, silent


@dataclass
class History:
    """What happened so far.

    Attributes:
        epochs: one entry per epoch done: {"epoch", "loss", "validation_mrr", ...}; epoch 0 is the start.
        best_epoch: the epoch with the best validation MRR.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0

    def add(self, entry: dict[str, float]) -> bool:
        """Add one epoch; return whether it is the best so far."""
        self.epochs.append(entry)
        if entry["validation_mrr"] > self.epochs[self.best_epoch]["validation_mrr"] or len(self.epochs) == 1:
            self.best_epoch = len(self.epochs) - 1
        return self.best_epoch == len(self.epochs) - 1


def fit_epochs(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    run_epoch: Callable[[int], float],
    validate: Callable[[], dict[str, float]],
    *,
    epochs: int,
    patience: int,
    stage: str,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    progress: Progress = silent,
) -> History:
    """Train `module` in place and leave it as it was after its best epoch, which may be 0, before any training.

    Args:
        module: what is trained.
        optimizer: over its parameters.
        run_epoch: does epoch `e` (from 1), deterministic in `e`, and returns its mean loss.
        validate: returns figures, "validation_mrr" among them.
        epochs: most epochs.
        patience: epochs without a better one after which training stops.
        stage: name for progress and the checkpoint.
        checkpoint: file to continue from, where it is there and has the same `fingerprint`, and to write to.
        fingerprint: of everything that the outcome depends on.
        progress: told each epoch.
    """
    history, best = _resume(module, optimizer, checkpoint, f"{stage}/{fingerprint}")
    if not history.epochs:
        history.add({"epoch": 0, "loss": float("nan"), **validate()})
        best = _copy(module)
    while len(history.epochs) <= epochs and len(history.epochs) - 1 - history.best_epoch < patience:
        epoch = len(history.epochs)
        loss = run_epoch(epoch)
        if history.add({"epoch": epoch, "loss": loss, **validate()}):
            best = _copy(module)
        if checkpoint is not None:
            _save(module, optimizer, history, best, checkpoint, f"{stage}/{fingerprint}")
        progress(stage, epoch, epochs)
    done = len(history.epochs) - 1
    if done < epochs:
        progress(stage, done, done)  # stopped early: this stage has no more epochs than that
    module.load_state_dict(best)
    return history


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _save(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    best: dict[str, Tensor],
    path: Path,
    fingerprint: str,
) -> None:
    stored = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    stored |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        stored |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in stored.items()}
    metadata = {"fingerprint": fingerprint, "history": json.dumps(vars(history))}
    tensors.write(path, arrays, metadata)


def _resume(
    module: nn.Module, optimizer: torch.optim.Optimizer, path: Path | None, fingerprint: str
) -> tuple[History, dict[str, Tensor]]:
    if path is None or not path.exists():
        return History(), {}
    with tensors.TensorFile(path) as file:
        if file.metadata.get("fingerprint") != fingerprint:
            return History(), {}
        arrays = {name: torch.from_numpy(file.read_whole(name).copy()) for name in file.names}
        history = History(**json.loads(file.metadata["history"]))
    try:
        module.load_state_dict(_under(arrays, "module."))
    except RuntimeError as error:
        raise DataError(f"{path} does not fit this model", got=str(error), hint="train with --force") from error
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in _under(arrays, "optimizer.").items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return history, _under(arrays, "best.")


def _under(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in arrays.items() if name.startswith(prefix)}
