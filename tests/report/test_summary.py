from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from report_samples import document, parsed

from edge_cmcl.report import Comparison, summaries, write_csv
from edge_cmcl.report.summary import Spread, Summary

Matrix = list[list[float | None]]

FIRST: Matrix = [[0.5, None, 0.1], [0.6, 0.8, 0.1], [0.3, 0.7, 0.9]]
SECOND: Matrix = [[0.7, None, 0.1], [0.4, 0.6, 0.1], [0.5, 0.5, 0.7]]


def with_matrices(*matrices: Matrix, metric: str = "recall_at_10") -> Comparison:
    """One strategy, a seed per matrix; all its metrics are alike."""
    value = document(["vanilla"], seeds=len(matrices), steps=len(matrices[0]))
    for cell, matrix in zip(value["cells"], matrices, strict=True):
        cell["matrices"] = dict.fromkeys(cell["matrices"], matrix)
    return parsed(value)


def only(comparison: Comparison, metric: str = "recall_at_10") -> Summary:
    (found,) = [summary for summary in summaries(comparison) if summary.metric == metric]
    return found


def spread_of(mean: float, std: float | None, seeds: int) -> Any:
    return pytest.approx((mean, std, seeds)) if std is not None else (pytest.approx(mean), None, seeds)


def values(found: Spread | None) -> tuple[float, float | None, int]:
    assert found is not None
    return found.mean, found.std, found.seeds


def test_one_seed_gives_the_figures_of_its_matrix_and_no_deviation() -> None:
    found = only(with_matrices(FIRST))
    assert values(found.final) == spread_of((0.3 + 0.7 + 0.9) / 3, None, 1)
    assert values(found.backward_transfer) == spread_of(((0.3 - 0.5) + (0.7 - 0.8)) / 2, None, 1)
    assert values(found.forgetting) == spread_of(((0.6 - 0.3) + (0.8 - 0.7)) / 2, None, 1)
    assert values(found.plasticity) == spread_of((0.5 + 0.8 + 0.9) / 3, None, 1)


def test_several_seeds_give_mean_and_sample_deviation() -> None:
    found = only(with_matrices(FIRST, SECOND))
    a, b = 1.9 / 3, 1.7 / 3
    assert values(found.final) == spread_of((a + b) / 2, abs(a - b) / 2**0.5, 2)
    assert values(found.backward_transfer) == spread_of((-0.15 + -0.15) / 2, 0.0, 2)


def test_a_strategy_judged_at_the_end_only_has_a_final_mean_and_nothing_else() -> None:
    nothing: list[float | None] = [None, None, None]
    found = only(with_matrices([nothing, nothing, [0.3, 0.7, 0.9]]))
    assert values(found.final) == spread_of(1.9 / 3, None, 1)
    assert (found.backward_transfer, found.forgetting, found.plasticity) == (None, None, None)


def test_a_stream_of_one_step_has_nothing_to_forget() -> None:
    found = only(with_matrices([[0.4]]))
    assert (found.final.mean, found.plasticity) == (0.4, Spread(0.4, None, 1))
    assert (found.backward_transfer, found.forgetting) == (Spread(0.0, None, 1), Spread(0.0, None, 1))


def mixed(text_first: bool) -> Comparison:
    """Three steps of which one, the first or the last, is against labels."""
    value = document(["vanilla"], seeds=1, steps=3)
    text = 0 if text_first else 2
    value["stream"]["steps"][text]["modalities"][1] = "text"

    def columns(keep_text: bool) -> Matrix:
        return [[x if (i == text) == keep_text else None for i, x in enumerate(row)] for row in FIRST]

    names = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr")
    value["cells"][0]["matrices"] = {**{n: columns(False) for n in names}, "accuracy": columns(True)}
    value["cells"][0]["matrices"]["map"] = columns(True)
    return parsed(value)


def test_in_a_mixed_stream_each_metric_counts_its_own_pairs_alone() -> None:
    comparison = mixed(text_first=True)
    assert comparison.metrics == ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "accuracy", "map")
    recall, accuracy = only(comparison), only(comparison, "accuracy")
    assert values(recall.final) == spread_of((0.7 + 0.9) / 2, None, 1)
    assert values(recall.backward_transfer) == spread_of(0.7 - 0.8, None, 1)
    assert values(recall.plasticity) == spread_of((0.8 + 0.9) / 2, None, 1)
    assert values(accuracy.final) == spread_of(0.3, None, 1)
    assert values(accuracy.backward_transfer) == spread_of(0.3 - 0.5, None, 1)
    assert values(accuracy.forgetting) == spread_of(0.6 - 0.3, None, 1)


def test_in_a_mixed_stream_the_last_pair_is_the_last_of_the_stream() -> None:
    comparison = mixed(text_first=False)
    assert values(only(comparison).backward_transfer) == spread_of(-0.15, None, 1)
    assert values(only(comparison, "accuracy").backward_transfer) == spread_of(0.0, None, 1)


def test_summaries_stand_by_strategy_then_metric() -> None:
    found = [(s.strategy, s.metric) for s in summaries(parsed(document(["vanilla", "ours"], steps=2)))]
    metrics = ["recall_at_1", "recall_at_5", "recall_at_10", "mrr"]
    assert found == [(strategy, metric) for strategy in ("vanilla", "ours") for metric in metrics]


def test_every_matrix_becomes_a_csv_file_with_headers(tmp_path: Path) -> None:
    written = write_csv(with_matrices(FIRST, SECOND), tmp_path / "new" / "csv")
    assert len(written) == 2 * 4
    assert sorted(written) == sorted((tmp_path / "new" / "csv").iterdir())
    with (tmp_path / "new" / "csv" / "vanilla.seed0.recall_at_10.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    names = ["utd-skeleton-acc", "utd-acc-gyro", "utd-skeleton-depth"]
    assert rows[0] == ["after", *names]
    assert rows[1:] == [
        [names[0], "0.5", "", "0.1"],
        [names[1], "0.6", "0.8", "0.1"],
        [names[2], "0.3", "0.7", "0.9"],
    ]
