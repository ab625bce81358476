"""From T x T matrices to the figures of a table: mean and deviation over seeds; and the matrices as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.continual import metrics
from edge_cmcl.durable import make_folder, write_bytes
from edge_cmcl.report.results import Cell, Comparison, Matrix

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Mean over seeds.

    Attributes:
        mean: of `seeds` values.
        std: sample standard deviation (n - 1), None for one seed: it says nothing about the spread.
        seeds: how many.
    """

    mean: float
    std: float | None
    seeds: int


@dataclass(frozen=True)
class Summary:
    """One strategy by one metric, shares between 0 and 1.

    Attributes:
        strategy: its name.
        metric: one of `results.METRICS`.
        final: mean over the pairs after the last step.
        backward_transfer: final minus just learned, mean over the pairs learned before the last step.
        forgetting: best before the last step minus final, over the same pairs.
        plasticity: mean over the pairs of the score when just learned.

    The last three are None where a strategy could not be judged when each pair was learned, as joint training.
    """

    strategy: str
    metric: str
    final: Spread
    backward_transfer: Spread | None
    forgetting: Spread | None
    plasticity: Spread | None


def summaries(comparison: Comparison) -> list[Summary]:
    """Return one summary per strategy and metric, in the order of `Comparison.strategies` and `results.METRICS`."""
    return [
        _summary(name, metric, [scores(cell.matrices[metric]) for cell in cells])
        for name, cells in comparison.strategies().items()
        for metric in comparison.metrics
    ]


def scores(matrix: Matrix) -> Scores:
    """Return `matrix` (T, T) as float64 with NaN for null."""
    return np.array(matrix, dtype=np.float64)


def mean_over_seeds(cells: Sequence[Cell], metric: str) -> Scores:
    """Return the (T, T) mean of the cells' matrices; NaN where any of them has no score."""
    return np.asarray(np.mean([scores(cell.matrices[metric]) for cell in cells], axis=0))


def spread(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation of `values`."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation, len(values))


def _summary(strategy: str, metric: str, matrices: Sequence[Scores]) -> Summary:
    judged = all(_judged_when_learned(matrix) for matrix in matrices)

    def over_seeds(measure: Callable[[Scores], float], among: slice) -> Spread:
        return spread([_over_pairs(measure, matrix, among) for matrix in matrices])

    every, before_last = slice(None), slice(0, -1)
    return Summary(
        strategy,
        metric,
        over_seeds(metrics.final_average, every),
        over_seeds(metrics.backward_transfer, before_last) if judged else None,
        over_seeds(metrics.forgetting, before_last) if judged else None,
        over_seeds(metrics.plasticity, every) if judged else None,
    )


def _over_pairs(measure: Callable[[Scores], float], matrix: Scores, among: slice) -> float:
    """Return `measure`, a mean over the pairs in `among`, over those alone that have this metric.

    The last row has a score for exactly those. Other columns are filled with 0, which adds nothing to the sum that
    the mean divides, and the mean is brought back to the pairs that count. Nothing above the diagonal is read.
    """
    counted = ~np.isnan(matrix[-1, among])
    if not counted.any():
        return 0.0
    return measure(np.nan_to_num(matrix, nan=0.0)) * len(counted) / int(counted.sum())


def _judged_when_learned(matrix: Scores) -> bool:
    pairs = np.flatnonzero(~np.isnan(matrix[-1]))
    return not any(np.isnan(matrix[pair:, pair]).any() for pair in pairs)


def write_csv(comparison: Comparison, folder: Path | str) -> list[Path]:
    """Write each matrix to STRATEGY.seedN.METRIC.csv in `folder`, made if it is missing; return the files.

    One row per step with its name first, one column per pair; shares between 0 and 1, empty where there is no score.

    Raises:
        StorageError: the file system refused.
    """
    folder = Path(folder)
    make_folder(folder)
    names = [step.name for step in comparison.stream.steps]
    written = []
    for cells in comparison.strategies().values():
        for cell in cells:
            for metric in comparison.metrics:
                path = folder / f"{cell.strategy}.seed{cell.seed}.{metric}.csv"
                write_bytes(path, _csv(names, cell.matrices[metric]).encode())
                written.append(path)
    return written


def _csv(names: Sequence[str], matrix: Matrix) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["after", *names])
    for name, row in zip(names, matrix, strict=True):
        writer.writerow([name, *("" if score is None else repr(score) for score in row)])
    return text.getvalue()
