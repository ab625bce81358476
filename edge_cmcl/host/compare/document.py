"""The result document of a comparison, put together from its cells (report/RESULTS.md)."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_cmcl.bundle import timestamp
from edge_cmcl.host.compare.features import StreamData
from edge_cmcl.host.compare.stream import Stream
from edge_cmcl.report.results import SCHEMA, Comparison


def assemble(
    command: Sequence[str],
    stream: Stream,
    data: StreamData,
    epochs: int,
    seeds: Sequence[int],
    corruption: dict[str, Any] | None,
    cells: Sequence[dict[str, Any]],
) -> Comparison:
    """Return the validated result of `cells`, in the order given."""
    packages = {name.replace("-", "_"): version(name) for name in ("edge-cmcl", "numpy", "torch", "onnxruntime")}
    document = {
        "schema": SCHEMA,
        "created": timestamp(),
        "command": list(command),
        "versions": {"python": platform.python_version(), **packages},
        "machine": machine(),
        "stream": {"name": stream.name, "steps": _steps(data)},
        "settings": {
            "width": stream.width,
            "embedding_dim": stream.embedding_dim,
            "epochs": epochs,
            "seeds": list(seeds),
        },
        "corruption": corruption,
        "cells": list(cells),
    }
    return Comparison.model_validate_json(json.dumps(document))


def machine() -> dict[str, Any]:
    """Return what times depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _steps(data: StreamData) -> list[dict[str, Any]]:
    steps = []
    for step, test in zip(data.steps, data.tests, strict=True):
        gallery = len(test.b)
        steps.append(
            {
                "name": step.name,
                "modalities": step.modalities,
                "train_rows": len(step),
                "test_rows": len(test.a),
                "gallery": gallery,
                "chance": 1.0 / gallery if test.labels is not None else min(1.0, 10 / gallery),
            }
        )
    return steps
