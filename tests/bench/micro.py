"""What micro models lose against the full model on real sensors (edge_cmcl/device/micro.py), as a markdown table.

    python tests/bench/micro.py --data FOLDER_OF_PREPARED [--seeds 3] [--json]

A base of two sensors and the labels is trained for each data set and seed; then each sensor's micro model, of every
width and precision, takes the sensor's place. R@10 against the other sensor's full embeddings, MRR and accuracy by the
nearest label, in %, on test subjects or sessions; mean over the seeds, for R@10 with the deviation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from edge_cmcl.cli.blob_commands import models
from edge_cmcl.data import Pairs, open_pairs
from edge_cmcl.device.micro import fit_micro
from edge_cmcl.device.micro_loss import Loss, loss_on_pairs
from edge_cmcl.device.model import Model
from edge_cmcl.host.export import exported_model
from edge_cmcl.host.graphs import step_graph, universal_graph
from edge_cmcl.host.train import train
from firmware_bridge.blob import PRECISIONS, write
from firmware_bridge.micro import embed, unit

DATASETS = {"utd_mhad": ("acc", "gyro"), "isl_myo": ("acc", "emg")}
WIDTHS = (120, 252, 504)

Cells = dict[str, dict[str, Any]]


def project(train_file: Path, sensors: tuple[str, str], seed: int) -> str:
    """Return the project of a base that knows both sensors and the labels."""
    lines = ['name = "micro"']
    with open_pairs(train_file) as pairs:
        for name in sensors:
            samples, channels = pairs.shape(name)
            rate = pairs.rate_hz[name]
            lines += [f"[modality.{name}]", f"channels = {channels}", f"rate_hz = {rate!r}"]
            lines += [f"window_s = {samples / rate!r}"]
    for pair in (sensors, *((name, "text") for name in sensors)):
        lines += ["[[pair]]", f"modalities = {json.dumps(pair)}", f"train = [{json.dumps(str(train_file))}]"]
    return "\n".join([*lines, "[train]", f"seed = {seed}", ""])


def measure(model: Model, sensor: str, test: Pairs) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the figures of each column for one sensor: the full model, then every micro model."""
    for width in WIDTHS:
        fit = fit_micro(model, sensor, width)
        for precision in PRECISIONS:
            _, made = models(model, fit, precision)
            losses = loss_on_pairs(model, fit, test, lambda windows, made=made: unit(embed(made, windows)))
            if (width, precision) == (WIDTHS[0], PRECISIONS[0]):
                yield "full", figures(losses, "full")
            yield f"{width} {precision}", {**figures(losses, "micro"), "bytes": len(write(made))}


def figures(losses: Sequence[Loss], side: str) -> dict[str, Any]:
    """Return R@10, MRR and accuracy in % of one side of all losses of one sensor."""
    found = [getattr(loss, side) for loss in losses]
    return {
        key: 100 * next(metrics[key] for metrics in found if key in metrics)
        for key in ("recall_at_10", "mrr", "accuracy")
    }


def base(data: Path, seed: int, sensors: tuple[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Train one base and yield sensor, column and figures."""
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-micro-") as scratch:
        file = Path(scratch) / "edge-cmcl.toml"
        file.write_text(project((data / "train.safetensors").resolve(), sensors, seed))
        run = train(file, Path(scratch) / "run", device="cpu")
        with exported_model(run.folder) as model, open_pairs(data / "test.safetensors") as test:
            for sensor in sensors:
                for column, found in measure(model, sensor, test):
                    yield sensor, column, found


def table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Return the figures as markdown, a row for each sensor and figure."""
    columns = list(next(iter(found.values())))
    lines = [f"| sensor, figure in % | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for sensor, cells in found.items():
        for key, name in (("recall_at_10", "R@10"), ("mrr", "MRR"), ("accuracy", "label accuracy")):
            values = [[each[key] for each in cells[column]] for column in columns]
            lines.append(f"| {sensor}, {name} | {' | '.join(spread(each, key) for each in values)} |")
    sizes = [max((each.get("bytes", 0) for cells in found.values() for each in cells[c]), default=0) for c in columns]
    lines.append(f"| largest blob, kB | {' | '.join(f'{size / 1000:.0f}' if size else '-' for size in sizes)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], key: str) -> str:
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 and key == "recall_at_10" else ""
    return f"{mean(values):.1f}{deviation}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data sets (`make data`)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print every seed's figures instead of the table")
    options = parser.parse_args(arguments)
    universal_graph(), step_graph()  # exporting them is no base's work
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for dataset, sensors in DATASETS.items():
        for seed in range(options.seeds):
            for sensor, column, each in base(options.data / dataset, seed, sensors):
                row = found.setdefault(f"{dataset} {sensor}", {})
                row.setdefault(column, []).append(each)
    print(json.dumps(found, indent=1) if options.json else table(found))


if __name__ == "__main__":
    main()
