"""What a reduced precision costs, on the six public data sets: recall, size and latency of fp32, fp16 and int8.

    python tests/bench/precision.py --data FOLDER_OF_PREPARED [--sets borealtc,...] [--out precision.json]

For each data set one base of all its pairs with the universal encoder, and for BorealTC one more with `conv`; each is
exported in every precision by the code of `edge-cmcl export`, with a gate that lets everything pass and notes what the
default one would have refused. Recall is that of the exported bundle on the test part, mean over the trained pairs;
latency that of `Model.embed`, encoder and adapter, one thread, median over the sensors' medians. Prints a Markdown
table; `--out` keeps everything as JSON, and a second call goes on where the first was cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np

from edge_cmcl.bundle.transfer import opened
from edge_cmcl.data import open_pairs
from edge_cmcl.device.evaluate import evaluate
from edge_cmcl.device.model import Model
from edge_cmcl.device.runtime import FP32, PRECISIONS
from edge_cmcl.durable import write_bytes
from edge_cmcl.host.export import export
from edge_cmcl.host.precision import GATE, MAX_LOSS, at_precision, chosen_precisions
from edge_cmcl.host.run import Run
from edge_cmcl.host.train import train

SETS = {
    "utd_mhad": (("",), (("skeleton", "acc"), ("acc", "gyro"), ("skeleton", "depth"))),
    "sisfall": (("",), (("acc", "gyro"),)),
    "isl_myo": (("",), (("acc", "emg"), ("orientation", "emg"))),
    "sp_sw_har": (("watch_", "phone_"), (("acc", "gyro"),)),
    "borealtc": (("",), (("acc", "gyro"), ("gyro", "current"))),
    "hydraulic": (("",), (("temperature", "vibration"),)),
}
"""Prefixes of a data set's files, and its pairs: those of the 11-step stream."""

CONV = {"borealtc conv": ("borealtc", (("acc", "gyro"),))}
CONV_EPOCHS = 10
BATCHES = (1, 32)


def files_of(data: Path, name: str, part: str) -> list[Path]:
    """Return the files of one part of a data set."""
    return [data / name / f"{prefix}{part}.safetensors" for prefix in SETS[name][0]]


def project_text(data: Path, name: str, pairs: tuple[tuple[str, str], ...], encoder: str) -> str:
    """Return a project file: the data set's sensors as they are, all training files in every pair."""
    files = files_of(data, name, "train")
    lines = ['name = "precision"']
    with open_pairs(files[0]) as first:
        for sensor in sorted({sensor for pair in pairs for sensor in pair}):
            shape, rate = first.shape(sensor), first.rate_hz.get(sensor, 50.0)
            size = f"channels = {shape[1]}" if len(shape) == 2 else f"frame = [{shape[1]}, {shape[2]}]"
            lines += [f"[modality.{sensor}]", size, f"rate_hz = {rate!r}", f"window_s = {shape[0] / rate!r}"]
            lines += [f"unit = {json.dumps(first.units.get(sensor, ''))}", f'encoder = "{encoder}"']
    for pair in pairs:
        lines += ["[[pair]]", f"modalities = {json.dumps(pair)}", f"train = {json.dumps([str(f) for f in files])}"]
    return "\n".join([*lines, "[train]", f"epochs = {CONV_EPOCHS if encoder == 'conv' else 60}"])


def measured(run: Run, precision: str, tests: list[Path], pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Export `run` in a precision and measure the bundle."""
    new, encoders = at_precision(run, chosen_precisions(run, [precision]), max_loss=100.0)
    wanted = {frozenset(pair) for pair in pairs}
    with tempfile.TemporaryDirectory() as scratch:
        told = export(new, Path(scratch) / "bundle.tar", encoders=encoders)
        with opened(Path(scratch) / "bundle.tar") as loaded:
            model, found = Model(loaded, threads=1), []
            for path in tests:
                with open_pairs(path) as test:
                    found += [f for f in evaluate(model, test) if frozenset(f.modalities) in wanted]
                    times = {batch: [latency(model, n, test.read(n, 0, batch)) for n in encoders] for batch in BATCHES}
    gate = new.metrics.get(GATE)
    return {
        "precision": precision,
        "recall_at_10": 100 * statistics.mean(f.metrics["recall_at_10"] for f in found),
        "lost_held_out": max((row["lost"] for row in gate["pairs"]), default=0.0) if gate else 0.0,
        "encoder_bytes": sum(len(each.graph) for each in encoders.values()),
        "bundle_bytes": told["bytes"],
        **{f"ms_batch_{batch}": statistics.median(values) for batch, values in times.items()},
    }


def latency(model: Model, name: str, windows: np.ndarray) -> float:
    """Return the median time of one call, in ms."""
    for _ in range(3):
        model.embed(name, windows)
    times = []
    for _ in range(40):
        began = time.perf_counter()
        model.embed(name, windows)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the results as Markdown, one row for each data set and precision."""
    lines = [
        "| base | precision | test R@10, % | lost held out | gate | encoders, kB | batch 1, ms | batch 32, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        for row in rows:
            verdict = "-" if row["precision"] == FP32 else "refused" if row["lost_held_out"] > MAX_LOSS else "passed"
            lines.append(
                f"| {name} | {row['precision']} | {row['recall_at_10']:.1f} | {row['lost_held_out']:+.1f} | {verdict} "
                f"| {row['encoder_bytes'] / 1e3:.0f} | {row['ms_batch_1']:.2f} | {row['ms_batch_32']:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default=",".join([*SETS, *CONV]))
    parser.add_argument("--out", type=Path, default=Path(".bench/precision.json"))
    options = parser.parse_args()
    data = options.data.resolve()
    results: dict[str, list[dict[str, Any]]] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for label in options.sets.split(","):
        if label in results:
            continue
        name, pairs = CONV.get(label, (label, SETS.get(label, ((), ()))[1]))
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            encoder = "conv" if label in CONV else "universal"
            (folder / "edge-cmcl.toml").write_text(project_text(data, name, pairs, encoder))
            run = train(folder, folder / "run", device="cpu")
            tests = files_of(data, name, "test")
            results[label] = [measured(run, precision, tests, pairs) for precision in PRECISIONS]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(options.out, json.dumps(results, indent=1).encode())
        print(table({label: results[label]}), flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
