"""One self-contained HTML page of a benchmark, in the manner of the comparison's (`page`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_cmcl.durable import write_bytes
from edge_cmcl.report import charts
from edge_cmcl.report.benchmark import Benchmark, EncoderRow, LatencyRow
from edge_cmcl.report.entries import size_text
from edge_cmcl.report.page import fill

Spec = dict[str, Any]


def write_benchmark_page(found: Benchmark, path: Path | str) -> int:
    """Write the page of `found` to `path`, durably, and return its size in bytes.

    Raises:
        MissingExtraError: Jinja2 or vl-convert-python is not installed.
        StorageError: the file system refused.
    """
    page = fill(
        "benchmark.html.j2",
        {"size": size_text, "share": share_text},
        found=found,
        sentences=benchmark_verdict(found),
        data={"config": charts.CONFIG, "charts": _charts(found)},
    ).encode()
    write_bytes(Path(path), page)
    return len(page)


def benchmark_verdict(found: Benchmark) -> list[str]:
    """Return what the benchmark says, in sentences."""
    if not found.encoders:
        return ["The generation has no sensor."]
    alone = [(each, min(each.latency, key=lambda row: row.batch)) for each in found.encoders if each.latency]
    if not alone:
        return ["Nothing was timed."]
    slowest, one = max(alone, key=lambda timed: timed[1].median_ms)
    told = [
        f"The slowest sensor is {slowest.modality} ({slowest.precision}): a window takes {one.median_ms:.2f} ms, "
        f"1 in 100 more than {one.p99_ms:.2f} ms."
    ]
    below = [each.modality for each in found.encoders if (_best_share(each) or 1.0) < 0.5]
    if below:
        told.append(f"Below half of what BLAS does with the same products: {', '.join(below)}.")
    if found.update:
        total = sum(found.update.seconds_per_1000_pairs.values())
        told.append(f"Learning {found.update.modality} takes {total:.1f} s for 1,000 pairs.")
    return told


def share_text(share: float | None) -> str:
    """Return a share of 1 as a percentage."""
    return "-" if share is None else f"{100 * share:.0f} %"


def _best_share(each: EncoderRow) -> float | None:
    shares = [one.share_of_blas for one in each.latency if one.share_of_blas is not None]
    return max(shares, default=None)


def _charts(found: Benchmark) -> dict[str, Spec]:
    rows = [_drawn(each, one) for each in found.encoders for one in each.latency]
    drawn = {"latency": _latency(rows)}
    if found.update:
        stages = [{"stage": name, "seconds": value} for name, value in found.update.seconds_per_1000_pairs.items()]
        drawn["update"] = _stages(stages)
    return drawn


def _drawn(each: EncoderRow, one: LatencyRow) -> dict[str, Any]:
    per = 1.0 / one.batch
    return {
        "sensor": f"{each.modality}, {each.precision}",
        "batch": f"batch {one.batch}",
        "median": one.median_ms * per,
        "p99": one.p99_ms * per,
        "blas": None if one.blas_ms is None else one.blas_ms * per,
    }


def _latency(rows: list[dict[str, Any]]) -> Spec:
    """Milliseconds a window, median to p99 by sensor and batch, and a tick where BLAS alone would be."""
    y = {"field": "batch", "type": "nominal", "title": None, "axis": {"domain": False, "ticks": False}}
    x = {"type": "quantitative", "title": "ms a window: median, to p99; | BLAS alone"}
    tooltip = [{"field": name, "format": ".3f"} for name in ("median", "p99", "blas")]
    return {
        "data": {"values": rows},
        "facet": {"row": {"field": "sensor", "type": "nominal", "title": None, "header": {"labelAngle": 0}}},
        "spec": {
            "width": 420,
            "height": {"step": 22},
            "layer": [
                {
                    "mark": {"type": "bar", "color": charts.PALETTE[0], "tooltip": True},
                    "encoding": {"y": y, "x": {**x, "field": "median"}, "tooltip": tooltip},
                },
                {
                    "mark": {"type": "rule", "color": "var(--text)"},
                    "encoding": {"y": y, "x": {**x, "field": "median"}, "x2": {"field": "p99"}},
                },
                {
                    "mark": {"type": "tick", "color": charts.OURS_COLOUR, "thickness": 3},
                    "encoding": {"y": y, "x": {**x, "field": "blas"}},
                },
            ],
        },
    }


def _stages(rows: list[dict[str, Any]]) -> Spec:
    """Seconds of an update by stage, for 1,000 pairs."""
    return {
        "data": {"values": rows},
        "width": 420,
        "height": {"step": 22},
        "mark": {"type": "bar", "color": charts.PALETTE[0], "tooltip": True},
        "encoding": {
            "y": {"field": "stage", "type": "nominal", "title": None, "sort": None},
            "x": {"field": "seconds", "type": "quantitative", "title": "s for 1,000 pairs"},
        },
    }
