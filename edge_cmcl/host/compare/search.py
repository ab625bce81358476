"""`edge-cmcl search`: the same small search for every strategy, on validation data only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_cmcl.durable import make_folder
from edge_cmcl.host.compare import best
from edge_cmcl.host.compare.comparison import Request, Task, compute, digests, make_task
from edge_cmcl.host.strategies import Settings
from edge_cmcl.progress import Progress, silent


def search(request: Request, path: Path, progress: Progress = silent) -> dict[str, dict[str, Any]]:
    """Search hyper-parameters with seed 0 and write the best-config file `path`; return the best by strategy.

    Raises:
        UsageError, ProjectError, DataError: see `Request.prepare`; nothing was trained.
        StorageError: the files cannot be written.
    """
    make_folder(request.out)
    stream, _ = request.prepare(progress)
    base = Settings(dimensions=stream.embedding_dim, epochs=request.epochs)

    content = digests(stream)

    def tasks(name: str, settings: list[Settings]) -> list[Task]:
        return [make_task(stream, content, request.out, name, each, validation=True) for each in settings]

    first = {name: tasks(name, best.first_round(name, base)) for name in request.names}
    tried = _scored(first, request.jobs, progress)
    second = {}
    for name, found in tried.items():
        leader = max(found, key=lambda pair: pair[1])[0].settings if found else None
        second[name] = tasks(name, best.second_round(name, leader)) if leader else []
    more = _scored(second, request.jobs, progress)
    return best.save(path, {name: [*tried[name], *more[name]] for name in request.names})


def _scored(tasks: dict[str, list[Task]], jobs: int, progress: Progress) -> dict[str, list[tuple[Task, float]]]:
    flat = [task for name in tasks for task in tasks[name]]
    scores = iter([best.score(cell) for cell in compute(flat, jobs, progress)])
    return {name: [(task, next(scores)) for task in tasks[name]] for name in tasks}
