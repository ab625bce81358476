"""`edge-cmcl compare`: every strategy and seed on one stream, side by side, resumable, into one result file.

OUT/comparison.json         the result (report/RESULTS.md)
OUT/matrices/*.csv          its matrices, one file each
OUT/cells/*.json            finished cells, named by everything they depend on: what is there is not computed again
OUT/cache/                  raw features by content, and corrupted recordings
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edge_cmcl.data import file_digest
from edge_cmcl.data.corruption import Corruption, corrupt_file
from edge_cmcl.device.memory import peak_memory_bytes
from edge_cmcl.durable import make_folder, write_bytes
from edge_cmcl.errors import UsageError
from edge_cmcl.host.compare import best
from edge_cmcl.host.compare.cell import run
from edge_cmcl.host.compare.document import assemble
from edge_cmcl.host.compare.features import StreamData, load_data
from edge_cmcl.host.compare.stream import Stream, load_stream
from edge_cmcl.host.strategies import STRATEGIES, Settings
from edge_cmcl.progress import Progress, silent
from edge_cmcl.report.results import FILE_NAME, Comparison, save
from edge_cmcl.report.summary import write_csv
from edge_cmcl.version import SOFTWARE

CELLS, CACHE, MATRICES = "cells", "cache", "matrices"


@dataclass(frozen=True)
class Task:
    """One cell to compute, in a process of its own.

    Attributes:
        stream: the stream.
        cache: folder of raw features.
        strategy: name.
        settings: of the strategy.
        validation: judge on validation pairs cut out of the training parts instead of the test parts.
        path: where the cell is kept.
    """

    stream: Stream
    cache: Path
    strategy: str
    settings: Settings
    validation: bool
    path: Path


@dataclass(frozen=True)
class Request:
    """What to compare.

    Attributes:
        stream: the stream file.
        out: folder of the result.
        strategies: names; empty for all.
        seeds: how many, from 0.
        epochs: per step, for the strategies that train by epochs.
        best: best-config file of `search`, or None for the defaults.
        corruption: what is done to the windows, or None.
        corrupted_parts: "train", "test" or both.
        jobs: cells computed side by side; 0 for one per core.
        width: features per window instead of the stream's.
        command: for the result.
    """

    stream: Path
    out: Path
    strategies: tuple[str, ...] = ()
    seeds: int = 3
    epochs: int = 20
    best: Path | None = None
    corruption: Corruption | None = None
    corrupted_parts: tuple[str, ...] = ("train", "test")
    jobs: int = 0
    width: int | None = None
    command: tuple[str, ...] = ()

    def prepare(self, progress: Progress) -> tuple[Stream, StreamData]:
        """Check everything before any training: the stream, every file, the strategies' names; encode all windows.

        Raises:
            UsageError: a strategy is unknown.
            ProjectError, DataError: the stream or one of its files cannot be used.
        """
        unknown = sorted(set(self.strategies) - set(STRATEGIES))
        if unknown:
            raise UsageError("no such strategy", expected=f"some of {', '.join(STRATEGIES)}", got=", ".join(unknown))
        stream = load_stream(self.stream)
        if self.width is not None:
            stream = stream.with_width(self.width)
        if self.corruption is not None:
            stream = _corrupted(stream, self.corruption, self.corrupted_parts, self.out / CACHE, progress)
        return stream, load_data(stream, self.out / CACHE, progress)

    @property
    def names(self) -> tuple[str, ...]:
        """The strategies in the order of tables."""
        return tuple(name for name in STRATEGIES if name in self.strategies or not self.strategies)


def compare(request: Request, progress: Progress = silent) -> Comparison:
    """Compute what is missing and return the whole result, which is written to `request.out`.

    Raises:
        UsageError, ProjectError, DataError: see `Request.prepare`; nothing was trained.
        StorageError: the result cannot be written.
    """
    make_folder(request.out)
    stream, data = request.prepare(progress)
    chosen = best.load(request.best) if request.best else {}
    base = Settings(dimensions=stream.embedding_dim, epochs=request.epochs)
    settings = {name: base.with_(**chosen.get(name, {})) for name in request.names}
    content = digests(stream)
    tasks = [
        make_task(stream, content, request.out, name, replace(settings[name], seed=seed))
        for seed in range(request.seeds)
        for name in request.names
    ]
    cells = compute(tasks, request.jobs, progress)
    order = sorted(cells, key=lambda cell: (request.names.index(cell["strategy"]), cell["seed"]))
    seeds = tuple(range(request.seeds))
    command = request.command or ("edge-cmcl", "compare", str(request.stream), "--out", str(request.out))
    result = assemble(command, stream, data, request.epochs, seeds, _described(request), order)
    save(result, request.out / FILE_NAME)
    write_csv(result, request.out / MATRICES)
    return result


def _described(request: Request) -> dict[str, Any] | None:
    if request.corruption is None:
        return None
    noise, missing, drift = vars(request.corruption).values()
    return {
        "noise_snr_db": noise,
        "missing_fraction": missing,
        "drift_rate": drift,
        "parts": sorted(request.corrupted_parts, reverse=True),
    }


def make_task(
    stream: Stream, content: Sequence[str], out: Path, name: str, settings: Settings, *, validation: bool = False
) -> Task:
    """Return a task whose path names everything that its outcome depends on; `content` is that of `digests`."""
    parts = [
        SOFTWARE,
        [step.name for step in stream.step],
        [step.modalities for step in stream.step],
        stream.width,
        list(content),
        name,
        asdict(settings),
        validation,
    ]
    text = json.dumps(parts, sort_keys=True, default=str)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = out / CELLS / f"{name}-{settings.seed}-{key}.json"
    return Task(stream, out / CACHE, name, settings, validation, path)


def digests(stream: Stream) -> list[str]:
    """Return the digest of each file that `stream` names, step by step."""
    files = [stream.path(file) for step in stream.step for file in step.files]
    found = {file: file_digest(file) for file in dict.fromkeys(files)}
    return [found[file] for file in files]


def compute(tasks: Sequence[Task], jobs: int, progress: Progress) -> list[dict[str, Any]]:
    """Compute the cells that are not there yet, each on one core in a fresh process, and return all in order."""
    for task in tasks:
        make_folder(task.path.parent)
    waiting = [task for task in tasks if not task.path.exists()]
    done = len(tasks) - len(waiting)
    progress("compare", done, len(tasks))
    if waiting:
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = "1"
        cores = len(os.sched_getaffinity(0))
        # A fresh process per cell, so that its peak memory is its own, forked from a server that has torch loaded.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with context.Pool(jobs or cores, maxtasksperchild=1) as pool:
            for _ in pool.imap_unordered(work, waiting):
                done += 1
                progress("compare", done, len(tasks))
    return [json.loads(task.path.read_bytes()) for task in tasks]


def work(task: Task) -> None:
    """Compute one cell and write it."""
    torch.set_num_threads(1)
    data = load_data(task.stream, task.cache)
    if task.validation:
        data = data.for_search()
    with closing(STRATEGIES[task.strategy](task.settings)) as strategy:
        began = time.perf_counter()
        judged = run(strategy, data)
        seconds = time.perf_counter() - began
        stored, certificates = strategy.stored(), strategy.certificates()
    kept = ("dimensions",) if strategy.reads_files else ("dimensions", "epochs", "learning_rate", "start")
    settings = {name: getattr(task.settings, name) for name in kept}
    cell = {
        "strategy": strategy.name,
        "title": strategy.title,
        "source": strategy.source,
        "kind": strategy.kind,
        "seed": task.settings.seed,
        "settings": {**settings, **{name: strategy.own(name) for name in strategy.grid}},
        "matrices": judged.matrices,
        "seconds": {"total": round(seconds, 3), "steps": judged.step_seconds},
        "peak_memory_bytes": peak_memory_bytes(),
        "stored": {
            "bytes": stored.bytes,
            "raw_samples": stored.raw_samples,
            "details": dict(stored.details),
            "bytes_by_step": judged.stored_by_step,
        },
        "certificate": None if certificates is None else [record.model_dump() for record in certificates],
    }
    write_bytes(task.path, json.dumps(cell).encode())


def _corrupted(stream: Stream, corruption: Corruption, parts: Sequence[str], cache: Path, progress: Progress) -> Stream:
    """Return `stream` with damaged copies of its files in `cache`."""
    make_folder(cache)
    files: dict[str, Path] = {}
    damaged = {getattr(step, part) for step in stream.step for part in parts}
    for done, file in enumerate(sorted(damaged), start=1):
        key = hashlib.sha256(f"{file_digest(stream.path(file))}/{corruption.name}".encode()).hexdigest()[:16]
        files[file] = (cache / f"corrupted-{key}.safetensors").absolute()
        if not files[file].exists():
            corrupt_file(stream.path(file), files[file], corruption)
        progress(f"corrupt {corruption.name}", done, len(damaged))
    return stream.with_files(files)
