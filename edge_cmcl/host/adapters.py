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
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_cmcl.continual.alignment import PENALTIES, canonical, ridge, unit_scale
from edge_cmcl.continual.metrics import ranks, recall_at
from edge_cmcl.continual.sketch import FrequentDirections, Sketch, principal_rows
from edge_cmcl.device.features import unit
from edge_cmcl.device.judging import MAX_GALLERY, label_scores, pair_scores
from edge_cmcl.device.text import TEXT
from edge_cmcl.host.epochs import History, fit_epochs
from edge_cmcl.host.step import info_nce
from edge_cmcl.progress import Progress, silent
from edge_cmcl.project import TrainTable

MAX_DIRECTIONS = 512

Array = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PairFeatures:
    """One base pair as frozen unit features.

    Attributes:
        modalities: both names; the second may be "text".
        features: (n, width) float32 of each.
        ids: (n,) int64, equal ids are positives.
        training: rows to train on.
        validation: rows to validate on.
        carved: whether validation was cut out of the training data, and joins it for the last fit.
    """

    modalities: tuple[str, str]
    features: tuple[Array, Array]
    ids: Rows
    training: Rows
    validation: Rows
    carved: bool


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
        device: torch device.
        checkpoint: see `fit_epochs`.
        fingerprint: see `fit_epochs`.
        progress: told each epoch.
    """
    sketches, directions = _principal(pairs)
    reduced = [_reduce(pair, directions) for pair in pairs]
    maps, penalties = closed_form(reduced, {n: d.shape[1] for n, d in directions.items()}, dimensions)
    module = _Maps(maps).to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=options.learning_rate)
    placed = [_Placed(pair, device) for pair in reduced]
    history = fit_epochs(
        module,
        optimizer,
        lambda epoch: _run_epoch(module, optimizer, placed, options, epoch),
        lambda: _validate(reduced, _maps(module)),
        epochs=options.epochs,
        patience=options.patience,
        stage="train adapters",
        checkpoint=checkpoint,
        fingerprint=fingerprint,
        progress=progress,
    )
    validation = tuple(_figures(pair, _maps(module)) for pair in reduced)
    if any(pair.carved for pair in pairs):
        whole = [replace(pair, training=_all_rows(pair)) for pair in pairs]
        sketches, directions = _principal(whole)
        reduced = [_reduce(pair, directions) for pair in whole]
        maps, _ = closed_form(reduced, {n: d.shape[1] for n, d in directions.items()}, dimensions, penalties)
        module = _Maps(maps).to(device)
        optimizer = torch.optim.AdamW(module.parameters(), lr=options.learning_rate)
        placed = [_Placed(pair, device) for pair in reduced]
        for epoch in range(1, history.best_epoch + 1):
            _run_epoch(module, optimizer, placed, options, epoch)
            progress("train adapters on all rows", epoch, history.best_epoch)
    weights = {name: map_ @ directions[name] for name, map_ in _maps(module).items()}
    return Fitted(weights, sketches, history, penalties, validation)


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
        scores = {penalty: float(np.mean(_scores(pair, start))) for penalty, start in starts.items()}
        penalties[place] = best = max(scores, key=scores.__getitem__)
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


class _Placed:
    """A pair's training data on the torch device."""

    def __init__(self, pair: PairFeatures, device: str) -> None:
        self.modalities = pair.modalities
        self.features = [torch.from_numpy(side[pair.training]).to(device) for side in pair.features]
        self.ids = torch.from_numpy(pair.ids[pair.training]).to(device)

    def loss(self, maps: nn.ParameterDict, rows: Tensor) -> Tensor:
        a, b = (side[rows] @ maps[n].T for side, n in zip(self.features, self.modalities, strict=True))
        return info_nce(a, b[None], self.ids[rows][None])


def _maps(module: _Maps) -> dict[str, Array]:
    return {name: map_.detach().cpu().numpy() for name, map_ in module.maps.items()}


def _run_epoch(
    module: _Maps, optimizer: torch.optim.Optimizer, pairs: Sequence[_Placed], options: TrainTable, epoch: int
) -> float:
    random = torch.Generator().manual_seed(options.seed * 100_003 + epoch)
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * (1.0 - (epoch - 1) / options.epochs)
    batches = [
        (pair, rows)
        for pair in pairs
        for rows in torch.split(torch.randperm(len(pair.ids), generator=random), options.batch_size)
        if len(rows) > 1
    ]
    total = 0.0
    for index in torch.randperm(len(batches), generator=random).tolist():
        pair, rows = batches[index]
        loss = pair.loss(module.maps, rows.to(pair.ids.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach())
    return total / max(len(batches), 1)


def _validate(pairs: Sequence[PairFeatures], maps: Mapping[str, Array]) -> dict[str, float]:
    found = {"validation_mrr": float(np.mean([np.mean(_scores(pair, maps)) for pair in pairs]))}
    recalls = [_recall(pair, maps) for pair in pairs if pair.modalities[1] != TEXT]
    return found | ({"validation_recall_at_10": float(np.mean(recalls))} if recalls else {})


def _embed(pair: PairFeatures, maps: Mapping[str, Array]) -> list[Array]:
    return [unit(side[pair.validation] @ maps[n].T) for side, n in zip(pair.features, pair.modalities, strict=True)]


def _scores(pair: PairFeatures, maps: Mapping[str, Array]) -> NDArray[np.float64]:
    a, b = _embed(pair, maps)
    if pair.modalities[1] == TEXT:
        labels, rows = np.unique(pair.ids, return_index=True)
        texts = unit(pair.features[1][rows] @ maps[TEXT].T)
        return label_scores(a, texts, np.searchsorted(labels, pair.ids[pair.validation]))
    parts = np.array_split(np.arange(len(a)), max(1, -(-len(a) // MAX_GALLERY)))
    return np.concatenate([pair_scores(a[part], b[part]) for part in parts])


def _figures(pair: PairFeatures, maps: Mapping[str, Array]) -> dict[str, float]:
    """Return recall among at most `MAX_GALLERY` others, mean over all held-out rows, or the accuracy against labels."""
    rows = len(pair.validation)
    if pair.modalities[1] == TEXT:
        return {"rows": rows, "accuracy": float(np.mean(_scores(pair, maps) == 1.0))}
    a, b = _embed(pair, maps)
    parts = np.array_split(np.arange(rows), max(1, -(-rows // MAX_GALLERY)))
    hits = sum(len(part) * _both_ways(a[part], b[part]) for part in parts)
    return {"rows": rows, "recall_at_10": float(hits / rows)}


def _both_ways(a: Array, b: Array) -> float:
    similarity = a @ b.T
    return float(recall_at(ranks(similarity), 10) + recall_at(ranks(similarity.T), 10)) / 2


def _recall(pair: PairFeatures, maps: Mapping[str, Array]) -> float:
    a, b = (side[:MAX_GALLERY] for side in _embed(pair, maps))
    return _both_ways(a, b)


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
