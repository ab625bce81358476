"""Which encoder, and how wide: test recall of a base trained for each pair of the six public data sets alone.

    python tests/bench/encoders.py --data FOLDER_OF_PREPARED --seeds 3 --json

Every cell is one `edge_cmcl.host.train.train`, exported with parity and measured by `edge_cmcl.device.evaluate` on
the test part of the data set. Cells are kept in the file `--out` as they finish, so that a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from edge_cmcl.data import open_pairs
from edge_cmcl.device.evaluate import evaluate
from edge_cmcl.device.model import Model
from edge_cmcl.durable import write_bytes
from edge_cmcl.host.export import exported_model
from edge_cmcl.host.graphs import step_graph, universal_graph
from edge_cmcl.host.train import train

PAIRS = (
    ("utd_mhad", "", "skeleton", "acc"),
    ("utd_mhad", "", "acc", "gyro"),
    ("utd_mhad", "", "skeleton", "depth"),
    ("sisfall", "", "acc", "gyro"),
    ("isl_myo", "", "acc", "emg"),
    ("isl_myo", "", "orientation", "emg"),
    ("sp_sw_har", "watch_", "acc", "gyro"),
    ("sp_sw_har", "phone_", "acc", "gyro"),
    ("borealtc", "", "acc", "gyro"),
    ("borealtc", "", "gyro", "current"),
    ("hydraulic", "", "temperature", "vibration"),
)
"""Data set, prefix of its files, both modalities."""

WIDTHS = (252, 900, 1800, 3600)
CONV_WIDTH = 1800
METRICS = ("recall_at_10", "mrr")


@dataclass(frozen=True)
class Cell:
    """One base to train and measure.

    Attributes:
        dataset: name of the prepared data set.
        prefix: of its files' names.
        modalities: the pair.
        encoder: "universal" or "conv", for both sides.
        width: features of either side.
        seed: chooses the validation fold, the order of batches and the weights of "conv".
        epochs: most epochs of training.
    """

    dataset: str
    prefix: str
    modalities: tuple[str, str]
    encoder: str
    width: int
    seed: int
    epochs: int

    @property
    def key(self) -> str:
        """The name under which the cell's result is kept."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def pair(self) -> str:
        """The row of the table."""
        return f"{self.dataset} {self.prefix.rstrip('_')} {'-'.join(self.modalities)}".replace("  ", " ")

    @property
    def column(self) -> str:
        """The column of the table."""
        return f"{self.encoder} {self.width}"

    def measure(self, data: Path) -> dict[str, Any]:
        """Train, export and measure; return figures of the test part."""
        folder = data / self.dataset
        with tempfile.TemporaryDirectory(prefix="edge-cmcl-encoders-") as scratch:
            project = Path(scratch) / "edge-cmcl.toml"
            project.write_text(self._project(folder / f"{self.prefix}train.safetensors"))
            began = time.monotonic()
            run = train(project, Path(scratch) / "run", device="cpu")
            seconds = time.monotonic() - began
            with exported_model(run.folder) as model, open_pairs(folder / f"{self.prefix}test.safetensors") as test:
                (found,) = evaluate(model, test)
                sizes = _sizes(model)
        return {
            **{name: found.metrics[name] for name in (*METRICS, "n", "chance_recall_at_10", "chance_mrr")},
            **sizes,
            "seconds": seconds,
            "penalties": run.metrics["penalties"],
            "best_epoch": run.metrics["adapters"]["best_epoch"],
            "encoder_epochs": len(run.metrics["encoders"]["epochs"]) - 1 if run.metrics["encoders"] else 0,
        }

    def _project(self, train_file: Path) -> str:
        lines = ['name = "encoders"', f"width = {self.width}"]
        with open_pairs(train_file) as pairs:
            for name in self.modalities:
                samples, *rest = pairs.shape(name)
                shape = f"channels = {rest[0]}" if len(rest) == 1 else f"frame = {rest}"
                rate = pairs.rate_hz[name]
                lines += [f"[modality.{name}]", shape, f"rate_hz = {rate!r}", f"window_s = {samples / rate!r}"]
                lines += [f'encoder = "{self.encoder}"']
        lines += ["[[pair]]", f"modalities = {json.dumps(self.modalities)}", f"train = [{json.dumps(str(train_file))}]"]
        lines += ["[train]", f"seed = {self.seed}", f"epochs = {self.epochs}"]
        return "\n".join(lines) + "\n"


def main() -> None:
    """Run the cells that are not known yet, and print what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data sets, one folder each")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the universal encoder")
    parser.add_argument("--conv-seeds", type=int, default=1, help="seeds of the conv encoder; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=60, help="most epochs of training, for both encoders")
    parser.add_argument("--conv-frames", action="store_true", help="train conv on frames too, which takes long")
    parser.add_argument("--out", type=Path, default=Path("encoders.json"), help="where results are kept")
    parser.add_argument("--json", action="store_true", help="print the results instead of tables")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.out.read_text())["cells"] if options.out.exists() else {}
    cells = list(_cells(options))
    universal_graph(), step_graph()  # exporting them is no cell's work
    for done, cell in enumerate(cells, start=1):
        if cell.key not in results:
            results[cell.key] = cell.measure(options.data)
            _save(options.out, cells, results)
        print(f"{done}/{len(cells)} {cell.pair} {cell.column}: {_brief(results[cell.key])}", file=sys.stderr)
    _save(options.out, cells, results)
    print(json.dumps(_summary(cells, results)) if options.json else _tables(cells, results))


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield the cells, the quick ones first."""
    plans = [("universal", width, seed) for seed in range(options.seeds) for width in WIDTHS]
    plans += [("conv", CONV_WIDTH, seed) for seed in range(options.conv_seeds)]
    for encoder, width, seed in plans:
        for dataset, prefix, a, b in PAIRS:
            if encoder == "universal" or b != "depth" or options.conv_frames:
                yield Cell(dataset, prefix, (a, b), encoder, width, seed, options.epochs)


def _sizes(model: Model) -> dict[str, int]:
    """Return the bytes of both adapters with their sketches, and of graphs that serve these modalities alone."""
    records = model.generation.modalities.values()
    learned = {digest for record in records for digest in (record.adapter_blob, *record.origins)}
    graphs = {record.encoder_blob for record in records if record.encoder == "conv" and record.encoder_blob}
    return {
        "adapter_and_sketch_bytes": sum(model.loaded.blob_size(digest) for digest in learned),
        "encoder_bytes": sum(model.loaded.blob_size(digest) for digest in graphs),
    }


def _save(path: Path, cells: Sequence[Cell], results: dict[str, Any]) -> None:
    kept = {"cells": results, "summary": _summary(cells, results)}
    write_bytes(path, json.dumps(kept, indent=1).encode())
    write_bytes(path.with_suffix(".md"), _tables(cells, results).encode())


def _summary(cells: Sequence[Cell], results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return, per column and pair, mean and standard deviation over the seeds that are done."""
    summary: dict[str, dict[str, Any]] = {}
    for column in dict.fromkeys(cell.column for cell in cells):
        for pair in dict.fromkeys(cell.pair for cell in cells):
            done = [results[c.key] for c in cells if (c.column, c.pair) == (column, pair) and c.key in results]
            if done:
                summary.setdefault(column, {})[pair] = _over_seeds(done)
    return summary


def _over_seeds(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {"seeds": len(done)}
    for name in METRICS:
        values = [result[name] for result in done]
        figures[name] = mean(values)
        figures[f"{name}_sd"] = stdev(values) if len(values) > 1 else None
    for name in ("seconds", "adapter_and_sketch_bytes", "encoder_bytes", "n", "chance_recall_at_10"):
        figures[name] = mean(result[name] for result in done)
    return figures


def _tables(cells: Sequence[Cell], results: dict[str, Any]) -> str:
    summary = _summary(cells, results)
    columns = list(summary)
    pairs = list(dict.fromkeys(cell.pair for cell in cells if any(cell.pair in found for found in summary.values())))
    lines = []
    for metric, title in (("recall_at_10", "R@10, %"), ("mrr", "MRR, %")):
        lines += _row([title, "gallery", *columns]) + _row(["---"] * (2 + len(columns)))
        for pair in pairs:
            found = [summary[column].get(pair) for column in columns]
            gallery = next(int(figures["n"]) for figures in found if figures)
            lines += _row([pair, str(gallery), *(_spread(figures, metric) for figures in found)])
        shared = [pair for pair in pairs if all(pair in summary[column] for column in columns)]
        means = [mean(summary[column][pair][metric] for pair in shared) if shared else math.nan for column in columns]
        lines += _row([f"mean of {len(shared)} pairs in all columns", "", *(f"{100 * m:.1f}" for m in means)])
        lines.append("")
    lines += _row(["cost, mean over pairs", *columns]) + _row(["---"] * (1 + len(columns)))
    costs = (("seconds", "training, s", 1.0), ("adapter_and_sketch_bytes", "adapters and sketches, MB", 1e6))
    for name, title, unit in (*costs, ("encoder_bytes", "own encoder graphs, MB", 1e6)):
        values = [mean(figures[name] for figures in summary[column].values()) / unit for column in columns]
        lines += _row([title, *(f"{value:.1f}" for value in values)])
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


def _spread(figures: dict[str, Any] | None, metric: str) -> str:
    if figures is None:
        return "-"
    spread = figures[f"{metric}_sd"]
    return f"{100 * figures[metric]:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def _brief(result: dict[str, Any]) -> str:
    return f"R@10 {result['recall_at_10']:.3f}, MRR {result['mrr']:.3f}, {result['seconds']:.1f} s"


if __name__ == "__main__":
    main()
