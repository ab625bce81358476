from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from headless import Tab

from edge_cmcl.errors import DataError
from edge_cmcl.report import benchmark_verdict, is_benchmark, is_page, load_benchmark, write_benchmark_page

READY = "document.querySelectorAll('#chart-update svg').length"


def latency(batch: int, median_ms: float, share: float | None = 0.4) -> dict[str, Any]:
    blas = None if share is None else share * median_ms
    times = {"median_ms": median_ms, "p95_ms": 1.5 * median_ms, "p99_ms": 2 * median_ms}
    return {"batch": batch, "calls": 50, **times, "windows_per_s": 900.0, "blas_ms": blas, "share_of_blas": share}


def document(**more: Any) -> dict[str, Any]:
    encoder = {
        "modality": "vibration<b>", "precision": "int8", "provider": "CPUExecutionProvider", "encoder_bytes": 52_000,
        "load_ms": 4.0, "peak_memory_bytes": 90_000_000, "latency": [latency(1, 0.5), latency(32, 9.0, 0.45)],
        "recall_at_10": 0.8,
    }  # fmt: skip
    other = {**encoder, "modality": "camera", "latency": [latency(1, 3.25, 0.7)], "recall_at_10": None}
    return {
        "schema": "edge-cmcl/benchmark/1", "software": "edge-cmcl 1", "onnxruntime": "1.32", "threads": 1,
        "generation": {"name": "machine", "counter": 3}, "encoders": [encoder, other],
        "step": {"batch": 64, "median_ms": 1.0, "blas_ms": 0.4, "share_of_blas": 0.4},
        "update": {"modality": "acoustic", "pairs": 100, "seconds_per_1000_pairs": {"encode": 1.5, "train": 2.0}},
        **more,
    }  # fmt: skip


def written(folder: Path, **more: Any) -> Path:
    path = folder / "cost.json"
    path.write_text(json.dumps(document(**more)))
    return path


def test_a_page_says_what_costs_most_and_what_is_below_half_of_blas(tmp_path: Path) -> None:
    found = load_benchmark(written(tmp_path))
    slowest, below, learning = benchmark_verdict(found)
    assert "camera" in slowest
    assert "3.25 ms" in slowest
    assert "vibration" in below
    assert "camera" not in below
    assert "3.5 s for 1,000 pairs" in learning
    assert len(benchmark_verdict(load_benchmark(written(tmp_path, update=None)))) == 2
    assert benchmark_verdict(load_benchmark(written(tmp_path, encoders=[]))) == ["The generation has no sensor."]


def test_the_page_is_one_of_ours_and_escapes_what_it_quotes(tmp_path: Path) -> None:
    size = write_benchmark_page(load_benchmark(written(tmp_path)), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert (tmp_path / "page.html").stat().st_size == size
    assert is_page(tmp_path / "page.html")
    assert "<b>" not in page.split("<script>")[0]
    assert "Benchmark of machine 3" in page


def test_a_benchmark_is_told_from_other_files(tmp_path: Path) -> None:
    assert is_benchmark(written(tmp_path))
    for text in ("[]", "{}", "no json", '{"schema": "edge-cmcl/results/1"}', ""):
        (tmp_path / "other").write_text(text)
        assert not is_benchmark(tmp_path / "other")


@pytest.mark.parametrize(
    "change", [{"schema": "edge-cmcl/benchmark/2"}, {"encoders": None}, {"step": {}}, {"threads": -1}]
)
def test_a_damaged_benchmark_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        load_benchmark(written(tmp_path, **change))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_both_charts_are_drawn_without_errors(tab: Tab, tmp_path: Path, width: int, dark: bool) -> None:
    write_benchmark_page(load_benchmark(written(tmp_path)), tmp_path / "page.html")
    tab.problems.clear()
    tab.requests.clear()
    tab.open(tmp_path / "page.html", width, dark=dark, ready=READY)
    assert tab.evaluate("document.querySelectorAll('#chart-latency .mark-rect path').length") >= 3
    assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert tab.problems == []
    assert [request.split("/")[-1] for request in tab.requests] == ["page.html"]
