"""Base adapters on frozen features: closed-form start, then symmetric InfoNCE over all base pairs (CMCL, equation 1).

Everything happens in the modalities' leading principal directions, where a few hundred numbers per window hold all
that the training data can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edge_cmcl.continual.alignment import PENALTIES, canonical, ridge, unit_scale
from edge_cmcl.continual.sketch import FrequentDirections, Sketch, principal_rows
from edge_cmcl.device.features import unit
from edge_cmcl.host.epochs import History, fit_epochs
from edge_cmcl.host.pair_features import Array, PairFeatures, Rows, figures, scores, validate
from edge_cmcl.host.step import info_nce
from edge_cmcl.progress import Progress, silent
from edge_cmcl.project import TrainTable

MAX_DIRECTIONS = 512


@dataclass(frozen=True)
class Fitted:
    """The base's adapters.

    Attributes:
        weights: per modality W (d, width) float32.
        sketches: per modality the second moment of its training features.
        history: of the InfoNCE training.
        penalties: ridge penalty per pair, in the order of the pairs and in units of the mean eigenvalue; None where
            both sides were known from other pairs, so that the pair chose none.
        validation: per pair, in their order, what its held-out rows say of adapters that have not seen them: `rows` and
            `recall_at_10`, or for labels `accuracy`.
    """

    weights: dict[str, Array]
    sketches: dict[str, Sketch]
    history: History
    penalties: tuple[float | None, ...]
    validation: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Choice:
    """What validation chose.

    Attributes:
        penalties: see `Fitted`.
        epochs: after the closed-form start.
    """

    penalties: tuple[float | None, ...]
    epochs: int


class _Maps(nn.Module):
    """Adapters in reduced coordinates, one (d, r) matrix per modality."""

    def __init__(self, maps: Mapping[str, Array]) -> None:
        super().__init__()
        self.maps = nn.ParameterDict({name: nn.Parameter(torch.from_numpy(map_)) for name, map_ in maps.items()})


def fit_adapters(
    pairs: Sequence[PairFeatures],
    dimensions: int,
    options: TrainTable,
    *,
    choice: Choice | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    fingerprint: str = "",
    progress: Progress = silent,
) -> Fitted:
    """Fit one adapter per modality to all `pairs`.

    Penalties and epochs are chosen by validation. Where validation was cut out of the training data, a last fit with
    those choices uses all of it.

    Args:
        pairs: the base pairs, in the project's order.
        dimensions: d.
        options: the project's `[train]` table.
        choice: penalties and epochs to take instead of choosing; the history is empty then.
        device: torch device.
        checkpoint: see `fit_epochs`.
        fingerprint: see `fit_epochs`.
        progress: told each epoch.
    """
    placed = _Placed(pairs, dimensions, options, device, choice.penalties if choice else None)
    if choice is None:
        history = fit_epochs(
            placed.module,
            placed.optimizer,
            lambda epoch: _run_epoch(placed, options, epoch),
            lambda: validate(placed.reduced, placed.maps),
            epochs=options.epochs,
            patience=options.patience,
            stage="train adapters",
            checkpoint=checkpoint,
            fingerprint=fingerprint,
            progress=progress,
        )
        choice = Choice(placed.penalties, history.best_epoch)
    else:
        history = History()
        _run_epochs(placed, options, choice.epochs, "train adapters", progress)
    validation = tuple(figures(pair, placed.maps) for pair in placed.reduced)
    if any(pair.carved for pair in pairs):
        whole = [replace(pair, training=_all_rows(pair)) for pair in pairs]
        placed = _Placed(whole, dimensions, options, device, choice.penalties)
        _run_epochs(placed, options, choice.epochs, "train adapters on all rows", progress)
    weights = {name: map_ @ placed.directions[name] for name, map_ in placed.maps.items()}
    return Fitted(weights, placed.sketches, history, choice.penalties, validation)


class _Placed:
    """All pairs in reduced coordinates on the torch device, and the maps at their closed-form start."""

    def __init__(
        self,
        pairs: Sequence[PairFeatures],
        dimensions: int,
        options: TrainTable,
        device: str,
        penalties: Sequence[float | None] | None,
    ) -> None:
        self.sketches, self.directions = _principal(pairs)
        self.reduced = [_reduce(pair, self.directions) for pair in pairs]
        widths = {name: directions.shape[1] for name, directions in self.directions.items()}
        maps, self.penalties = closed_form(self.reduced, widths, dimensions, penalties)
        self.module = _Maps(maps).to(device)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=options.learning_rate)
        self.pairs = [_PlacedPair(pair, device) for pair in self.reduced]

    @property
    def maps(self) -> dict[str, Array]:
        """The maps now."""
        return {name: map_.detach().cpu().numpy() for name, map_ in self.module.maps.items()}


def closed_form(
    pairs: Sequence[PairFeatures],
    widths: Mapping[str, int],
    dimensions: int,
    chosen: Sequence[float | None] | None = None,
) -> tuple[dict[str, Array], tuple[float | None, ...]]:
    """Return a start for every modality's map and the penalty chosen for each pair by validation MRR.

    The first pair starts from its canonical correlations; a pair with one side known adds the other by ridge; a pair
    with both sides known adds nothing.

    Args:
        pairs: features in reduced coordinates.
        widths: per modality the width before reduction, which scales the penalty.
        dimensions: d.
        chosen: penalties to take instead of choosing.
    """
    maps: dict[str, Array] = {}
    penalties: list[float | None] = [None] * len(pairs)
    for place in _reachable_order(pairs):
        pair = pairs[place]
        if set(pair.modalities) <= set(maps):
            continue
        kept = None if chosen is None else chosen[place]
        starts = {p: maps | _start_pair(pair, maps, widths, p, dimensions) for p in ([kept] if kept else PENALTIES)}
        found = {penalty: float(np.mean(scores(pair, start))) for penalty, start in starts.items()}
        penalties[place] = best = max(found, key=found.__getitem__)
        maps = starts[best]
    return maps, tuple(penalties)


def _start_pair(
    pair: PairFeatures, known: Mapping[str, Array], widths: Mapping[str, int], penalty: float, dimensions: int
) -> dict[str, Array]:
    rows = pair.training
    sides = dict(zip(pair.modalities, pair.features, strict=True))
    fresh = [name for name in pair.modalities if name not in known]
    if len(fresh) == 2:
        a, b = (side[rows] for side in pair.features)
        strength = penalty * len(rows) / max(widths[name] for name in fresh)
        found = dict(zip(fresh, canonical(a, b, strength, dimensions), strict=True))
    else:
        strength = penalty * len(rows) / min(widths[name] for name in pair.modalities)
        found = {}
        for name in fresh:
            (other,) = (n for n in pair.modalities if n != name)
            found[name] = ridge(sides[name][rows], unit(sides[other][rows] @ known[other].T), strength)
    return {name: unit_scale(map_, sides[name][rows]).astype(np.float32) for name, map_ in found.items()}


def _reachable_order(pairs: Sequence[PairFeatures]) -> list[int]:
    """Return places in `pairs`, ordered so that each has a known side, where the pair graph is connected."""
    waiting, order, known = list(range(len(pairs))), list[int](), set[str]()
    while waiting:
        place = next((p for p in waiting if known & set(pairs[p].modalities)), waiting[0])
        waiting.remove(place)
        order.append(place)
        known |= set(pairs[place].modalities)
    return order


class _PlacedPair:
    """A pair's training data on the torch device."""

    def __init__(self, pair: PairFeatures, device: str) -> None:
        self.modalities = pair.modalities
        self.features = [torch.from_numpy(side[pair.training]).to(device) for side in pair.features]
        self.ids = torch.from_numpy(pair.ids[pair.training]).to(device)

    def loss(self, maps: nn.ParameterDict, rows: Tensor) -> Tensor:
        a, b = (side[rows] @ maps[n].T for side, n in zip(self.features, self.modalities, strict=True))
        return info_nce(a, b[None], self.ids[rows][None])


def _run_epochs(placed: _Placed, options: TrainTable, epochs: int, stage: str, progress: Progress) -> None:
    for epoch in range(1, epochs + 1):
        _run_epoch(placed, options, epoch)
        progress(stage, epoch, epochs)


def _run_epoch(placed: _Placed, options: TrainTable, epoch: int) -> float:
    random = torch.Generator().manual_seed(options.seed * 100_003 + epoch)
    for group in placed.optimizer.param_groups:
        group["lr"] = options.learning_rate * (1.0 - (epoch - 1) / options.epochs)
    batches = [
        (pair, rows)
        for pair in placed.pairs
        for rows in torch.split(torch.randperm(len(pair.ids), generator=random), options.batch_size)
        if len(rows) > 1
    ]
    total = 0.0
    for index in torch.randperm(len(batches), generator=random).tolist():
        pair, rows = batches[index]
        loss = pair.loss(placed.module.maps, rows.to(pair.ids.device))
        placed.optimizer.zero_grad()
        loss.backward()
        placed.optimizer.step()
        total += float(loss.detach())
    return total / max(len(batches), 1)


def _principal(pairs: Sequence[PairFeatures]) -> tuple[dict[str, Sketch], dict[str, Array]]:
    running: dict[str, FrequentDirections] = {}
    for pair in pairs:
        for name, side in zip(pair.modalities, pair.features, strict=True):
            running.setdefault(name, FrequentDirections(side.shape[1])).update(side[pair.training])
    directions = {n: principal_rows(r.rows)[1][:MAX_DIRECTIONS].astype(np.float32) for n, r in running.items()}
    return {name: rows.sketch() for name, rows in running.items()}, directions


def _reduce(pair: PairFeatures, directions: Mapping[str, Array]) -> PairFeatures:
    a, b = (side @ directions[name].T for side, name in zip(pair.features, pair.modalities, strict=True))
    return replace(pair, features=(a, b))


def _all_rows(pair: PairFeatures) -> Rows:
    return np.sort(np.concatenate([pair.training, pair.validation])) if pair.carved else pair.training
