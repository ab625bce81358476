"""What noise, loss and drift do to a comparison, and what more features bring: tables for the README.

    python tests/bench/sweeps.py robustness --seeds 1
    python tests/bench/sweeps.py frontier --seeds 1
    python tests/bench/sweeps.py statistics --damage FILE --sensor acc

The first two run `edge_cmcl.host.compare` on a stream again and again; finished cells are kept in `--out`, so that a
second call goes on. The third asks which outputs of the universal encoder survive the same damage. The table goes to
stdout and OUT/SWEEP.md, the figures to OUT/SWEEP.json, a plot to OUT/frontier.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import vl_convert
from numpy.typing import NDArray

from edge_cmcl.data import open_pairs
from edge_cmcl.data.corruption import corrupt_file, parse_corruption
from edge_cmcl.device.encoders import BATCH, UniversalEncoder
from edge_cmcl.device.plan import universal_record
from edge_cmcl.device.sessions import open_session
from edge_cmcl.device.universal import DEFAULT_WIDTH, DILATIONS, make_kernels
from edge_cmcl.durable import write_bytes
from edge_cmcl.host.compare import Request, compare
from edge_cmcl.host.graphs import universal_graph
from edge_cmcl.progress import Progress
from edge_cmcl.report.entries import percent
from edge_cmcl.report.results import Comparison
from edge_cmcl.report.summary import spread, summaries

STRATEGIES = ("ours", "vanilla", "joint")
CORRUPTIONS = (
    *("noise=20", "noise=10", "noise=0"),
    *("missing=0.1", "missing=0.3", "missing=0.6"),
    *("drift=0.5", "drift=1", "drift=2"),
)
WIDTHS = (900, 1800, 3600, 7200)


def main() -> None:
    streams = Path(__file__).parent / "streams"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", choices=("robustness", "frontier", "statistics"))
    parser.add_argument("--stream", type=Path, default=streams / "retrieval.toml")
    parser.add_argument("--best", type=Path, default=streams / "retrieval.best.json")
    parser.add_argument("--out", type=Path, default=Path(".bench/retrieval"), help="where cells and tables are kept")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--damage", type=Path, default=Path(".bench/data/utd_mhad/test.safetensors"), help="a pairs file"
    )
    parser.add_argument("--sensor", default="acc", help="of that file")
    parser.add_argument("--jobs", type=int, default=0, help="cells side by side; 0 for one per core")
    options = parser.parse_args()
    request = Request(
        options.stream, options.out / "sweeps", STRATEGIES, options.seeds, best=options.best, jobs=options.jobs
    )
    sweeps = {"robustness": lambda: robustness(request), "frontier": lambda: frontier(request)}
    sweeps["statistics"] = lambda: statistics(options.damage, options.sensor)
    figures, table = sweeps[options.sweep]()
    write_bytes(options.out / f"{options.sweep}.json", json.dumps(figures, indent=1, default=vars).encode())
    write_bytes(options.out / f"{options.sweep}.md", table.encode())
    print(table)


def robustness(request: Request) -> tuple[list[dict[str, Any]], str]:
    """Return the figures and the table of the final mean of each strategy, train and test parts corrupted alike."""
    figures = []
    for text in ("", *CORRUPTIONS):
        corruption = parse_corruption(text) if text else None
        result = compare(replace(request, corruption=corruption), _told(text or "clean"))
        figures.append({"corruption": text or "none", **_final(result)})
    lines = [["corruption", *STRATEGIES], ["---"] * (1 + len(STRATEGIES))]
    lines += [[row["corruption"], *(percent(row[name]) for name in STRATEGIES)] for row in figures]
    return figures, _table(lines)


def frontier(request: Request) -> tuple[list[dict[str, Any]], str]:
    """Return the figures and the table of final mean, BWT and bytes stored by width; writes the plot."""
    figures: list[dict[str, Any]] = []
    for width in WIDTHS:
        result = compare(replace(request, width=width), _told(f"width {width}"))
        for summary in summaries(result):
            if summary.metric == result.headline:
                cells = result.strategies()[summary.strategy]
                stored = spread([cell.stored.bytes for cell in cells]).mean
                row = {"width": width, "strategy": summary.strategy, "final": summary.final}
                cost = {"bytes": stored, "details": cells[0].stored.details}
                figures.append({**row, "bwt": summary.backward_transfer, **cost})
    write_bytes(request.out.parent / "frontier.svg", _plot(figures).encode())
    lines = [["features", "strategy", "final R@10, %", "BWT", "stored, MB"], ["---"] * 5]
    for row in figures:
        scores = (percent(row["final"]), percent(row["bwt"]))
        lines.append([str(row["width"]), row["strategy"], *scores, f"{row['bytes'] / 1e6:.1f}"])
    return figures, _table(lines)


def statistics(file: Path, sensor: str) -> tuple[list[dict[str, Any]], str]:
    """Return how alike each kind of output stays: the median over kernels of the correlation with undamaged windows."""
    kinds = ("share positive", "maximum", "mean absolute")
    clean, centred = _outputs(file, sensor)
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for text in CORRUPTIONS:
            corrupt_file(file, Path(folder) / "damaged.safetensors", parse_corruption(text))
            damaged, _ = _outputs(Path(folder) / "damaged.safetensors", sensor)
            alike = _correlations(clean, damaged)
            medians = {
                f"{kind}, {name}": float(np.median(alike[place][chosen]))
                for place, kind in enumerate(kinds)
                for name, chosen in (("centred", centred), ("not centred", ~centred))
            }
            figures.append({"corruption": text, **medians})
    names = list(figures[0])
    lines = [names, ["---"] * len(names)]
    lines += [[row["corruption"], *(f"{row[name]:.2f}" for name in names[1:])] for row in figures]
    return figures, _table(lines)


def _outputs(file: Path, sensor: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return raw outputs (n, 3, kernels) of `sensor`, and whether each kernel (kernels,) is centred: sums to zero."""
    with open_pairs(file) as pairs:
        record = universal_record(pairs, sensor, DEFAULT_WIDTH)
        encoder = UniversalEncoder(open_session(universal_graph(), "the universal encoder"), sensor, record)
        raw = np.concatenate([encoder(pairs.read(sensor, at, at + BATCH)) for at in range(0, pairs.n, BATCH)])
        weights = make_kernels(sensor, pairs.shape(sensor)[1]).weights
    by_kind = raw.reshape(len(raw), len(DILATIONS), 3, -1).swapaxes(1, 2).reshape(len(raw), 3, -1)
    return by_kind, np.abs(weights.mean(axis=3)).max(axis=2).reshape(-1) < 1e-6


def _correlations(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the correlation over windows of each output (3, kernels); 0 where one of the two does not vary."""
    a, b = (x - x.mean(axis=0, dtype=np.float64) for x in (a, b))
    spread = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
    return np.divide((a * b).sum(axis=0), spread, out=np.zeros_like(spread), where=spread > 0)


def _final(result: Comparison) -> dict[str, Any]:
    return {s.strategy: s.final for s in summaries(result) if s.metric == result.headline}


def _plot(figures: Sequence[dict[str, Any]]) -> str:
    kept = [row for row in figures if row["bytes"] > 0]
    rows = [
        {
            "stored": row["bytes"] / 1e6,
            "final": 100 * row["final"].mean,
            "strategy": row["strategy"],
            "width": row["width"],
        }
        for row in kept
    ]
    encoding = {
        "x": {"field": "stored", "type": "quantitative", "scale": {"type": "log"}, "title": "stored between steps, MB"},
        "y": {"field": "final", "type": "quantitative", "scale": {"zero": False}, "title": "final mean R@10, %"},
        "color": {"field": "strategy", "type": "nominal", "title": None},
        "order": {"field": "width", "type": "quantitative"},
    }
    text = {"mark": {"type": "text", "dy": -10}, "encoding": {"text": {"field": "width", "type": "quantitative"}}}
    line = {"mark": {"type": "line", "point": True}}
    spec = {"data": {"values": rows}, "encoding": encoding, "layer": [line, text], "width": 480, "height": 300}
    return str(vl_convert.vegalite_to_svg(spec))


def _told(what: str) -> Progress:
    def told(stage: str, done: int, total: int) -> None:
        if stage == "compare":
            print(f"{what}: {done}/{total}", file=sys.stderr)

    return told


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
