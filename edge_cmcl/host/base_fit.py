"""Adapters, statistics and sketches of a base on frozen encoders: the end of training, and of a reduced precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle.payloads import Adapter
from edge_cmcl.device.features import RunningStatistics, Statistics, standardise
from edge_cmcl.device.text import TEXT
from edge_cmcl.host.adapters import Choice, Fitted, fit_adapters
from edge_cmcl.host.base_data import PairData, Rows
from edge_cmcl.host.calibration import calibrate_base
from edge_cmcl.host.encoding import RawOutputs
from edge_cmcl.host.pair_features import PairFeatures
from edge_cmcl.progress import Progress, silent
from edge_cmcl.project import Project

Array = NDArray[np.float32]


@dataclass(frozen=True)
class BaseFit:
    """A base on frozen encoders.

    Attributes:
        adapters: per modality, "text" included where labels were learned.
        fitted: weights, sketches, history and what held-out pairs say.
        calibration: see `calibrate_base`.
    """

    adapters: dict[str, Adapter]
    fitted: Fitted
    calibration: dict[str, dict[str, Any]]


def fit_base(
    project: Project,
    pairs: Sequence[PairData],
    raw: RawOutputs,
    *,
    choice: Choice | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    fingerprint: str = "",
    progress: Progress = silent,
) -> BaseFit:
    """Fit statistics, adapters and sketches to what the encoders of `raw` say of `pairs`.

    Args:
        project: the project; it says how long and how fast to train.
        pairs: its pairs.
        raw: outputs of its encoders.
        choice: see `adapters.fit_adapters`.
        device: torch device.
        checkpoint: see `epochs.fit_epochs`.
        fingerprint: see `epochs.fit_epochs`.
        progress: told each stage.

    Raises:
        DataError: the data do not fit an encoder.
    """
    statistics, features = _features(pairs, raw)
    fitted = fit_adapters(
        features, project.embedding_dim, project.train,
        choice=choice, device=device, checkpoint=checkpoint, fingerprint=fingerprint, progress=progress,
    )  # fmt: skip
    adapters = {name: _adapter(name, weight, statistics) for name, weight in fitted.weights.items()}
    return BaseFit(adapters, fitted, calibrate_base(pairs, raw.outputs, fitted_rows))


def fitted_rows(pair: PairData) -> Rows:
    """Return the rows that the last fit uses: validation that was cut out of the training files joins them again."""
    return np.sort(np.concatenate([pair.training, pair.validation])) if pair.carved else pair.training


def statistics_of_rows(modality: str, outputs: Array) -> Statistics:
    """Return the statistics of raw encoder outputs (n, width); those of text leave features as they are."""
    if modality == TEXT:
        return Statistics(np.zeros(outputs.shape[1], np.float32), np.ones(outputs.shape[1], np.float32))
    running = RunningStatistics(outputs.shape[1])
    running.update(outputs)
    return running.statistics()


def _features(pairs: Sequence[PairData], raw: RawOutputs) -> tuple[dict[str, Statistics], list[PairFeatures]]:
    """Return the frozen features of every pair, and each modality's statistics over all rows it is fitted on."""
    running: dict[str, RunningStatistics] = {}
    for pair in pairs:
        for side, name in enumerate(pair.modalities):
            outputs = raw.outputs(pair, side)
            running.setdefault(name, RunningStatistics(outputs.shape[1])).update(outputs[fitted_rows(pair)])
    statistics = {name: found.statistics() for name, found in running.items() if name != TEXT}

    def features(pair: PairData, side: int) -> Array:
        outputs = raw.outputs(pair, side)
        name = pair.modalities[side]
        return outputs if name == TEXT else standardise(outputs, statistics[name])

    return statistics, [
        PairFeatures(
            pair.modalities,
            (features(pair, 0), features(pair, 1)),
            pair.ids,
            pair.training,
            pair.validation,
            pair.carved,
        )
        for pair in pairs
    ]


def _adapter(name: str, weight: Array, statistics: Mapping[str, Statistics]) -> Adapter:
    if name == TEXT:
        return Adapter(weight)
    return Adapter(weight, statistics[name].mean, statistics[name].std)
