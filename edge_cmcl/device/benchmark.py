"""What a bundle costs on this machine, before it is deployed: size, time, memory, energy, recall, and an update."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_cmcl.bundle import Loaded
from edge_cmcl.bundle.transfer import export_layout
from edge_cmcl.data import Pairs
from edge_cmcl.device.evaluate import PairMetrics, evaluate
from edge_cmcl.device.golden import golden_windows
from edge_cmcl.device.learner import update
from edge_cmcl.device.memory import peak_memory_bytes, reset_peak_memory
from edge_cmcl.device.model import Model
from edge_cmcl.device.power import PowerMeter
from edge_cmcl.device.providers import nominal_samples
from edge_cmcl.device.roofline import blas_seconds, encoder_products, operations, step_products
from edge_cmcl.device.runtime import runtime_of
from edge_cmcl.device.store import install, open_store
from edge_cmcl.device.text import TEXT
from edge_cmcl.device.training import BATCH_SIZE, random_problem, train
from edge_cmcl.progress import Progress, silent
from edge_cmcl.version import SOFTWARE

SCHEMA = "edge-cmcl/benchmark/1"
BATCHES = (1, 32)
_LEAST, _MOST, _WARM_UP = 20, 2000, 3
_DIRECTIONS = 128


@dataclass(frozen=True)
class Latency:
    """Times of one call, in ms, and how close it comes to BLAS.

    Attributes:
        batch: windows in a call.
        calls: how many were timed.
        median_ms, p95_ms, p99_ms: of one call.
        windows_per_s: throughput.
        blas_ms: what plain BLAS takes for the same products; None where a bundle does not name them.
        share_of_blas: `blas_ms` / `median_ms`: 1 is the limit of this machine.
        watts: mean power meanwhile, None where the board does not report it.
        joules_per_window: the same, for one window.
    """

    batch: int
    calls: int
    median_ms: float
    p95_ms: float
    p99_ms: float
    windows_per_s: float
    blas_ms: float | None
    share_of_blas: float | None
    watts: float | None
    joules_per_window: float | None


@dataclass(frozen=True)
class EncoderBenchmark:
    """What one sensor costs: windows to embeddings, encoder and adapter together.

    Attributes:
        modality: the sensor.
        precision, encoder, provider: how and by what it runs.
        encoder_bytes: of its graph; the universal one is shared.
        adapter_bytes: of W and the statistics.
        load_ms: reading, verifying and opening the graph.
        peak_memory_bytes: largest resident size of the process meanwhile; None where the kernel does not tell.
        latency: for each of `BATCHES`.
        recall_at_10: mean over the pairs of the data with this sensor, None without data.
    """

    modality: str
    precision: str
    encoder: str
    provider: str
    encoder_bytes: int
    adapter_bytes: int
    load_ms: float
    peak_memory_bytes: int | None
    latency: list[Latency]
    recall_at_10: float | None


def benchmark(
    loaded: Loaded,
    *,
    pairs: Pairs | None = None,
    learn: str = "",
    threads: int = 0,
    providers: Sequence[str] | None = None,
    seconds: float = 1.0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure every sensor of a generation, its training step, and with `pairs` an update.

    Args:
        loaded: a bundle's or store's generation; it is not changed.
        pairs: recall is measured on them.
        learn: a sensor of `pairs` that a copy of the generation learns, to time an update; "" for none.
        threads: CPU threads of one operator; 0 for one per core.
        providers: execution providers instead of the target's.
        seconds: to measure each batch size for.
        progress: told each sensor.

    Returns:
        JSON types; the schema is `SCHEMA`.

    Raises:
        DataError: `pairs` has no pair that the generation knows, or cannot teach `learn`.
        ModelError: a graph cannot be used here.
    """
    names = [name for name in sorted(loaded.generation.modalities) if name != TEXT]
    model = Model(loaded, threads=threads, providers=providers)
    found = evaluate(model, pairs, progress) if pairs is not None else []
    encoders = []
    for done, name in enumerate(names, start=1):
        encoders.append(_encoder(loaded, name, threads, providers, seconds, found))
        progress("benchmark", done, len(names))
    return {
        "schema": SCHEMA,
        "software": SOFTWARE,
        "onnxruntime": ort.__version__,
        "threads": threads,
        "generation": {"digest": loaded.digest, "counter": loaded.generation.counter, "name": loaded.generation.name},
        "encoders": [asdict(each) for each in encoders],
        "step": _step(model, seconds),
        "pairs": [each.as_json() for each in found],
        "update": _update(loaded, pairs, learn, threads, progress) if pairs is not None and learn else None,
    }


def _encoder(
    loaded: Loaded,
    name: str,
    threads: int,
    providers: Sequence[str] | None,
    seconds: float,
    found: Sequence[PairMetrics],
) -> EncoderBenchmark:
    record = loaded.generation.modalities[name]
    known = reset_peak_memory()
    model = Model(loaded, threads=threads, providers=providers)  # opened anew: loading is part of what it costs
    began = time.perf_counter()
    model.encoder(name), model.adapter(name)
    load_ms = 1e3 * (time.perf_counter() - began)
    windows = golden_windows(name, record, nominal_samples(record))
    latency = []
    for batch in BATCHES:
        blas = blas_seconds(products, batch) if (products := encoder_products(record)) else None
        several = np.resize(windows, (batch, *windows.shape[1:]))
        latency.append(_latency(lambda w=several: model.embed(name, w), batch, seconds, blas))  # type: ignore[misc]
    recalls = [f.metrics["recall_at_10"] for f in found if name in f.modalities and "recall_at_10" in f.metrics]
    return EncoderBenchmark(
        modality=name,
        precision=runtime_of(record).precision,
        encoder=runtime_of(record).source,
        provider=model.provider(name),
        encoder_bytes=loaded.blob_size(record.encoder_blob or ""),
        adapter_bytes=loaded.blob_size(record.adapter_blob),
        load_ms=load_ms,
        peak_memory_bytes=peak_memory_bytes() if known else None,
        latency=latency,
        recall_at_10=float(np.mean(recalls)) if recalls else None,
    )


def _latency(call: Callable[[], object], batch: int, seconds: float, blas: float | None) -> Latency:
    meter, times = _timed(call, seconds)
    median, p95, p99 = (1e3 * float(np.percentile(times, q)) for q in (50, 95, 99))
    power = meter.read()
    return Latency(
        batch=batch,
        calls=len(times),
        median_ms=median,
        p95_ms=p95,
        p99_ms=p99,
        windows_per_s=batch * len(times) / float(times.sum()),
        blas_ms=None if blas is None else 1e3 * blas,
        share_of_blas=None if blas is None else 1e3 * blas / median,
        watts=power.watts if power else None,
        joules_per_window=power.watts * float(times.mean()) / batch if power else None,
    )


def _timed(call: Callable[[], object], seconds: float) -> tuple[PowerMeter, NDArray[np.float64]]:
    """Return the meter that ran meanwhile, and the seconds of each call."""
    for _ in range(_WARM_UP):
        call()
    meter, times, until = PowerMeter(), list[float](), time.monotonic() + seconds
    while len(times) < _LEAST or (time.monotonic() < until and len(times) < _MOST):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
        if len(times) % _LEAST == 0:
            meter.sample()
    return meter, np.array(times)


def _step(model: Model, seconds: float) -> dict[str, Any]:
    """Return the time of one training step, through the loop that trains on the device, and of its products alone."""
    d, rows = model.generation.embedding_dim, np.arange(BATCH_SIZE)
    problem = random_problem(BATCH_SIZE, d, _DIRECTIONS)
    # One step at a time: of a whole epoch, every preemption by others would be in the time.
    step = partial(train, model.step_session, problem, rows, lambda number, changes: True, epochs=1)
    _, times = _timed(step, seconds)
    products = step_products(BATCH_SIZE, d, _DIRECTIONS)
    median, blas = 1e3 * float(np.median(times)), 1e3 * blas_seconds(products)
    return {
        "batch": BATCH_SIZE,
        "median_ms": median,
        "blas_ms": blas,
        "share_of_blas": blas / median,
        "operations": operations(products),
    }


def _update(loaded: Loaded, pairs: Pairs, learn: str, threads: int, progress: Progress) -> dict[str, Any]:
    """Let a copy of the generation learn a sensor, and return seconds per 1,000 pairs by stage."""
    with tempfile.TemporaryDirectory(prefix="edge-cmcl-benchmark-") as folder:
        bundle, place = Path(folder) / "bundle", Path(folder) / "store"
        export_layout(loaded.layout, loaded.digest, bundle)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is measured, and not kept
            install(bundle, place, allow_unsigned=True)
            report = update(open_store(place), pairs, learn, force=True, threads=threads, progress=progress)
    return {
        "modality": learn,
        "partners": list(report.partners),
        "pairs": report.pairs,
        "epochs": report.epochs,
        "seconds": report.seconds,
        "seconds_per_1000_pairs": {name: 1e3 * value / report.pairs for name, value in report.seconds.items()},
        "peak_memory_bytes": report.peak_memory_bytes,
    }
