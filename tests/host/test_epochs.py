from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge_cmcl.errors import DataError
from edge_cmcl.host.epochs import History, fit_epochs


class Script:
    """A model of one number: epoch e sets it to e, and validation reads the score of that epoch off a list."""

    def __init__(self, scores: list[float]) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-9)
        self.scores = scores
        self.ran: list[int] = []
        self.told: list[tuple[str, int, int]] = []

    def fit(self, patience: int = 2, stop_in: int | None = None, **options: Any) -> History:
        def run_epoch(epoch: int) -> float:
            if epoch == stop_in:
                raise KeyboardInterrupt
            self.ran.append(epoch)
            self.optimizer.zero_grad()
            self.module(torch.ones(1, 1)).sum().backward()
            self.optimizer.step()
            with torch.no_grad():
                self.module.weight.fill_(epoch)
            return 1.0 / epoch

        return fit_epochs(
            self.module,
            self.optimizer,
            run_epoch,
            lambda: {"validation_mrr": self.scores[int(self.kept)]},
            epochs=len(self.scores) - 1,
            patience=patience,
            stage="train",
            progress=lambda *told: self.told.append(told),
            **options,
        )

    @property
    def kept(self) -> float:
        return float(self.module.weight.detach())


@pytest.mark.parametrize(
    ("scores", "best", "epochs"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], 4, 4),
        ([0.1, 0.5, 0.4, 0.3, 0.9], 1, 3),
        ([0.5, 0.4, 0.3, 0.9, 0.9], 0, 2),
        ([0.5, 0.5, 0.5, 0.5, 0.5], 0, 2),
        ([0.1, 0.3, 0.2, 0.4, 0.3], 3, 4),
    ],
)
def test_training_keeps_its_best_epoch_the_start_included(scores: list[float], best: int, epochs: int) -> None:
    script = Script(scores)
    history = script.fit(patience=2)
    assert history.best_epoch == best
    assert script.kept == best
    assert script.ran == list(range(1, epochs + 1))
    assert [entry["validation_mrr"] for entry in history.epochs] == scores[: epochs + 1]


def test_progress_counts_epochs_and_an_early_stop_completes_the_stage() -> None:
    script = Script([0.5, 0.4, 0.3, 0.2, 0.1])
    script.fit(patience=2)
    assert script.told == [("train", 1, 4), ("train", 2, 4), ("train", 2, 2)]
    script = Script([0.1, 0.2, 0.3])
    script.fit(patience=2)
    assert script.told == [("train", 1, 2), ("train", 2, 2)]


def test_a_cut_off_training_repeats_only_the_epoch_that_was_cut(tmp_path: Path) -> None:
    checkpoint = tmp_path / "resume.safetensors"
    scores = [0.1, 0.5, 0.2, 0.3, 0.4]
    script = Script(scores)
    with pytest.raises(KeyboardInterrupt):
        script.fit(patience=4, stop_in=3, checkpoint=checkpoint, fingerprint="x")
    again = Script(scores)
    history = again.fit(patience=4, checkpoint=checkpoint, fingerprint="x")
    assert (script.ran, again.ran) == ([1, 2], [3, 4])
    assert [entry["validation_mrr"] for entry in history.epochs] == scores
    assert (history.best_epoch, again.kept) == (1, 1)  # the best epoch was before the cut


@pytest.mark.parametrize("change", ["fingerprint", "stage"])
def test_progress_of_another_training_is_not_continued(tmp_path: Path, change: str) -> None:
    checkpoint = tmp_path / "resume.safetensors"
    Script([0.1, 0.2, 0.3]).fit(checkpoint=checkpoint, fingerprint="x")
    script = Script([0.1, 0.2, 0.3])
    if change == "fingerprint":
        script.fit(checkpoint=checkpoint, fingerprint="y")
        assert script.ran == [1, 2]
    else:
        script.fit(checkpoint=checkpoint, fingerprint="x")
        assert script.ran == []
        assert script.kept == 2


def test_a_checkpoint_that_does_not_fit_or_is_damaged_is_an_error(tmp_path: Path) -> None:
    checkpoint = tmp_path / "resume.safetensors"
    Script([0.1, 0.2, 0.3]).fit(checkpoint=checkpoint, fingerprint="x")
    script = Script([0.1, 0.2, 0.3])
    script.module = nn.Linear(2, 1, bias=False)
    with pytest.raises(DataError, match="does not fit this model"):
        script.fit(checkpoint=checkpoint, fingerprint="x")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    with pytest.raises(DataError, match="cannot read"):
        Script([0.1, 0.2, 0.3]).fit(checkpoint=checkpoint, fingerprint="x")


def test_optimiser_and_batch_statistics_are_restored_exactly(tmp_path: Path) -> None:
    def fit(stop_in: int | None, checkpoint: Path | None) -> list[np.ndarray]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
        done = [0]

        def run_epoch(epoch: int) -> float:
            if epoch == stop_in:
                raise KeyboardInterrupt
            done.append(epoch)
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(epoch))
            loss = module(inputs).square().sum() + module[0].weight.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        fit_epochs(
            module,
            optimizer,
            run_epoch,
            lambda: {"validation_mrr": float(done[-1])},
            epochs=6,
            patience=6,
            stage="train",
            checkpoint=checkpoint,
        )
        return [tensor.detach().numpy() for tensor in module.state_dict().values()]

    checkpoint = tmp_path / "resume.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(4, checkpoint)
    for resumed, whole in zip(fit(None, checkpoint), fit(None, None), strict=True):
        assert np.array_equal(resumed, whole)
