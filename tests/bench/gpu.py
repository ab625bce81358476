"""What a GPU brings: training of the conv encoder on CUDA against the CPU, and whether the exported graphs agree there.

    python tests/bench/gpu.py --data FOLDER_OF_PREPARED [--threads N] [--skip-cpu]

Trains BorealTC acc - gyro with `conv` on the CPU, on CUDA in float32, and on CUDA with mixed precision (bfloat16);
reports seconds of an encoder epoch (median), and recall of the exported model on the test part. Then runs the exported
encoders, the universal encoder and the training step with onnxruntime's CUDA provider, where it loads, and compares
them with the CPU provider: largest difference of unit embeddings, of what a step returns relative to its largest value,
and milliseconds of both. Prints one JSON object. What is not there is told as "not run".
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
import torch

from edge_cmcl.data import open_pairs
from edge_cmcl.device.evaluate import evaluate
from edge_cmcl.device.universal import make_kernels
from edge_cmcl.host.export import exported_model
from edge_cmcl.host.graphs import STEP_INPUTS, encoder_graph, step_example, step_graph, universal_graph
from edge_cmcl.host.run import load_run
from edge_cmcl.host.train import train

MODALITIES = ("acc", "gyro")
DATA_SET = "borealtc/"
"""Where its files are; `--set` names another one with these modalities."""
CUDA = "CUDAExecutionProvider"
Feeds = Mapping[str, np.ndarray]


def project(train_file: Path, precision: str, epochs: int) -> str:
    """Return the project file of the pair."""
    lines = ['name = "gpu"', "width = 1800"]
    with open_pairs(train_file) as pairs:
        for name in MODALITIES:
            samples, channels = pairs.shape(name)
            rate = pairs.rate_hz[name]
            lines += [f"[modality.{name}]", f"channels = {channels}", f"rate_hz = {rate!r}"]
            lines += [f"window_s = {samples / rate!r}", 'encoder = "conv"']
    lines += ["[[pair]]", f"modalities = {json.dumps(MODALITIES)}", f"train = [{json.dumps(str(train_file))}]"]
    lines += ["[train]", f'precision = "{precision}"', f"epochs = {epochs}", "patience = 1000"]
    return "\n".join(lines) + "\n"


def trained(data: Path, folder: Path, device: str, precision: str, epochs: int) -> dict[str, Any]:
    """Train, export and measure."""
    folder.mkdir()
    (folder / "edge-cmcl.toml").write_text(project(data / f"{DATA_SET}train.safetensors", precision, epochs))
    ticks: list[float] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "train encoders":
            ticks.append(time.monotonic())

    began = time.monotonic()
    run = train(folder / "edge-cmcl.toml", folder / "run", device=device, progress=progress)
    seconds = time.monotonic() - began
    with exported_model(run.folder) as model, open_pairs(data / f"{DATA_SET}test.safetensors") as test:
        (found,) = evaluate(model, test)
    return {
        "device": device,
        "precision": precision,
        "epochs": epochs,
        "epoch_s": round(statistics.median(np.diff(ticks)), 4),
        "total_s": round(seconds, 2),
        "test_recall_at_10": round(100 * found.metrics["recall_at_10"], 2),
        "test_mrr": round(found.metrics["mrr"], 4),
    }


def session(graph: bytes, provider: str, *, tf32: bool) -> ort.InferenceSession:
    """Open `graph` with one provider and nothing to fall back on."""
    options: Any = [(CUDA, {"use_tf32": int(tf32)})] if provider == CUDA else [provider]
    opened = ort.InferenceSession(graph, providers=options)
    if opened.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} does not load")
    return opened


def milliseconds(run: Callable[[], object]) -> float:
    """Return the median time of a call."""
    for _ in range(5):
        run()
    times = []
    for _ in range(30):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return round(1e3 * statistics.median(times), 3)


def unit(features: np.ndarray) -> np.ndarray:
    """Return rows of unit norm."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def compared(graph: bytes, feeds: Feeds, *, embeddings: bool) -> dict[str, Any]:
    """Run `graph` on the CPU and on CUDA (also with TF32); return how far they are apart and how long they take."""
    cpu = session(graph, "CPUExecutionProvider", tf32=False)
    wanted = cpu.run(None, dict(feeds))
    told: dict[str, Any] = {"cpu_ms": milliseconds(lambda: cpu.run(None, dict(feeds)))}
    for tf32 in (False, True):
        cuda = session(graph, CUDA, tf32=tf32)
        found = cuda.run(None, dict(feeds))
        if embeddings:
            away = float(np.abs(unit(found[0]) - unit(wanted[0])).max())
        else:
            away = max(float(np.abs(f - w).max() / np.abs(w).max()) for f, w in zip(found, wanted, strict=True))
        name = "cuda_tf32" if tf32 else "cuda"
        told |= {f"{name}_difference": away, f"{name}_ms": milliseconds(lambda of=cuda: of.run(None, dict(feeds)))}
    return told


def parity(run_folder: Path, data: Path) -> dict[str, Any]:
    """Compare every exported graph between the CPU and the CUDA provider, on real windows."""
    run, found = load_run(run_folder), {}
    with open_pairs(data / f"{DATA_SET}test.safetensors") as test:
        for name, module in run.encoders.items():
            graph = encoder_graph(module, test.shape(name), name)
            for batch in (1, 64):
                found[f"conv {name}, batch {batch}"] = compared(
                    graph, {"windows": test.read(name, 0, batch)}, embeddings=True
                )
        kernels = make_kernels("acc", 3)
        for batch in (1, 64):
            feeds = {"windows": test.read("acc", 0, batch), "weights": kernels.weights, "biases": kernels.biases}
            found[f"universal acc, batch {batch}"] = compared(universal_graph(), feeds, embeddings=True)
    for batch in (64, 512):
        inputs = step_example(partners=1, batch=batch, dimensions=256, directions=128, seed=batch)
        feeds = {name: value.numpy() for name, value in zip(STEP_INPUTS, inputs, strict=True)}
        found[f"step, batch {batch}"] = compared(step_graph(), feeds, embeddings=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", default=DATA_SET, help="for instance sp_sw_har/watch_")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--cpu-epochs", type=int, default=None, help="[default: as many]")
    options = parser.parse_args()
    options.data = options.data.resolve()
    globals()["DATA_SET"] = options.set
    told: dict[str, Any] = {
        "torch": torch.__version__, "onnxruntime": ort.__version__, "providers": ort.get_available_providers(),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "not run",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        kinds = [("cpu", "float32")]
        if torch.cuda.is_available():
            kinds = [("cuda", "float32"), ("cuda", "bfloat16"), *kinds]
        told["training"] = []
        for device, precision in kinds:
            epochs = (options.cpu_epochs or options.epochs) if device == "cpu" else options.epochs
            folder = Path(scratch) / f"{device}-{precision}"
            told["training"].append(trained(options.data, folder, device, precision, epochs))
            print(json.dumps(told["training"][-1]), flush=True)
        try:
            told["parity"] = parity(Path(scratch) / f"{kinds[0][0]}-float32" / "run", options.data)
        except Exception as error:
            told["parity"] = f"not run: {type(error).__name__}: {str(error)[:500]}"
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
