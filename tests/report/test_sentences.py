from __future__ import annotations

from typing import Any

import pytest
from report_samples import document, parsed

from edge_cmcl.report import Comparison, verdict
from edge_cmcl.report.entries import percent, seconds_text, signed, size_text
from edge_cmcl.report.sentences import best_continual, lead
from edge_cmcl.report.summary import Spread


def with_finals(finals: dict[str, list[float]]) -> Comparison:
    """A stream of one step whose R@10 with each seed is given by strategy."""
    seeds = len(next(iter(finals.values())))
    value = document(list(finals), seeds=seeds, steps=1)
    for cell in value["cells"]:
        score = finals[cell["strategy"]][cell["seed"]]
        cell["matrices"] = {metric: [[score]] for metric in cell["matrices"]}
    return parsed(value)


def test_the_best_continual_strategy_is_named_and_set_against_joint() -> None:
    first, _ = verdict(with_finals({"joint": [0.5, 0.5], "ours": [0.44, 0.46], "vanilla": [0.1, 0.1]}))
    assert "edge-cmcl ends with a mean R@10 of 45.0 ± 1.4 %" in first
    assert "the highest of the 2 continual strategies" in first
    assert "90.0% of what Joint reaches" in first


def test_a_reference_is_never_the_best() -> None:
    found = best_continual(with_finals({"joint": [0.9], "individual": [0.8], "vanilla": [0.1]}), "recall_at_10")
    assert found is not None
    assert found.strategy == "vanilla"
    assert best_continual(with_finals({"joint": [0.9]}), "recall_at_10") is None
    assert verdict(with_finals({"joint": [0.9]})) == []


def test_ours_is_clearly_ahead_of_all_when_every_difference_exceeds_two_deviations() -> None:
    _, second = verdict(with_finals({"ours": [0.50, 0.52], "gem": [0.40, 0.42]}))
    assert second == (
        "edge-cmcl is ahead of every other continual strategy in R@10 by more than two standard deviations."
    )


def test_where_ours_is_not_clearly_ahead_the_strategy_and_the_figures_are_named() -> None:
    # 0.51 - 0.48 = 3 points; both deviations are 1.41 points, so 2 sqrt(1.41^2 + 1.41^2) = 4 points are needed.
    _, second = verdict(with_finals({"ours": [0.50, 0.52], "gem": [0.47, 0.49], "ewc": [0.1, 0.1]}))
    assert "not ahead of 1 of 2 other continual strategies" in second
    assert "GEM (+3.0 points, more than 4.0 needed)" in second
    assert "EWC" not in second


def test_where_another_is_best_ours_is_said_to_be_behind() -> None:
    first, second = verdict(with_finals({"ours": [0.30, 0.30], "gem": [0.40, 0.40]}))
    assert first.startswith("GEM ends with")
    assert "GEM (-10.0 points, more than 0.0 needed)" in second


def test_with_one_seed_nothing_is_claimed() -> None:
    _, second = verdict(with_finals({"ours": [0.9], "gem": [0.1]}))
    assert "cannot be said" in second


def test_accuracy_has_sentences_of_its_own() -> None:
    value: dict[str, Any] = document(["ours", "gem"], seeds=2, steps=1)
    value["stream"]["steps"][0]["modalities"] = ["acc", "text"]
    for cell in value["cells"]:
        cell["matrices"] = {"accuracy": [[0.9 if cell["strategy"] == "ours" else 0.2]], "map": [[0.5]]}
    comparison = parsed(value)
    assert comparison.headline == "accuracy"
    assert [sentence for sentence in verdict(comparison) if "accuracy" in sentence] == verdict(comparison)


def test_a_lead_needs_two_deviations_of_the_difference() -> None:
    assert not lead(Spread(0.5, 0.03, 3), Spread(0.4, 0.04, 3)).clear, "exactly two are not more than two"
    assert lead(Spread(0.51, 0.03, 3), Spread(0.4, 0.04, 3)).clear
    assert not lead(Spread(0.9, None, 1), Spread(0.1, 0.0, 3)).clear


@pytest.mark.parametrize(
    ("found", "plain", "with_sign"),
    [
        (None, "-", "-"),
        (Spread(0.4637, 0.0052, 3), "46.4 ± 0.5", "+46.4 ± 0.5"),
        (Spread(-0.041, None, 1), "-4.1", "-4.1"),
        (Spread(-0.0001, 0.0, 2), "0.0 ± 0.0", "+0.0 ± 0.0"),
    ],
)
def test_shares_are_shown_in_percent(found: Spread | None, plain: str, with_sign: str) -> None:
    assert (percent(found), signed(found)) == (plain, with_sign)


def test_sizes_and_times_have_units_that_fit() -> None:
    assert [size_text(n) for n in (0, 999, 1000, 999_600, 2_240_000, 151e6, 25.3e9)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.0 MB",
        "2.2 MB",
        "151 MB",
        "25.3 GB",
    ]
    assert [seconds_text(s) for s in (0.04, 8.24, 9.96, 119, 750)] == ["0.0 s", "8.2 s", "10 s", "119 s", "12.5 min"]
