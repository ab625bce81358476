"""The run folder that `train` writes and `export` reads: checkpoint, metrics, and a copy of the project.

RUN/edge-cmcl.toml            the project as it was trained
RUN/checkpoint.safetensors    adapters, statistics, sketches, trained encoders
RUN/encoders/NAME.onnx        encoders of the user's own, as they were
RUN/metrics.json              history and figures; written last, so a run that has it is complete
RUN/resume-*.safetensors      progress of a run that was cut off
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_cmcl import tensors
from edge_cmcl.bundle.payloads import Adapter
from edge_cmcl.continual.sketch import Sketch
from edge_cmcl.durable import make_folder, replacing, storage_errors, sync_folder
from edge_cmcl.errors import DataError, ModelError
from edge_cmcl.host.conv import make_encoder
from edge_cmcl.project import TEXT, Project, load_project

FORMAT = "edge-cmcl/run"
VERSION = "1"
CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.json"
PROJECT = "edge-cmcl.toml"
PROJECT_FOLDER = "project_folder"
"""Of the metrics: where the project was; its data are needed again for a reduced precision. It never leaves the run."""


@dataclass(frozen=True)
class Run:
    """A trained base.

    Attributes:
        folder: the run folder.
        project: as trained.
        run_id: digest of everything that the outcome depends on; names the base's origins.
        adapters: per modality, "text" included where labels were learned.
        sketches: per modality, of its training features.
        encoders: trained encoders by modality.
        labels: label names of text.
        metrics: what `metrics.json` holds: when, where, how long, and the history.
    """

    folder: Path
    project: Project
    run_id: str
    adapters: dict[str, Adapter]
    sketches: dict[str, Sketch]
    encoders: dict[str, nn.Module]
    labels: tuple[str, ...]
    metrics: dict[str, Any]

    @property
    def created(self) -> str:
        """When training ended, ISO 8601 in UTC."""
        return str(self.metrics["created"])

    def encoder_file(self, modality: str) -> Path:
        """Return where the run keeps a user's own encoder."""
        return encoder_file(self.folder, modality)


def encoder_file(folder: Path, modality: str) -> Path:
    """Return where the run in `folder` keeps a user's own encoder of `modality`."""
    return folder / "encoders" / f"{modality}.onnx"


def is_complete(folder: Path) -> bool:
    """Return whether `folder` holds a finished run."""
    return (folder / METRICS).is_file()


def save_run(run: Run, files: Mapping[Path, bytes] | None = None) -> None:
    """Write a finished run durably; one that was there is replaced only when all of the new one is on the disk.

    Files take their places with `metrics.json` gone, and that comes last: what looks complete is of one run.

    Args:
        run: the run.
        files: what else it keeps, by path: its copy of the project, encoders of the user's own.

    Raises:
        StorageError: the file system refused; a run that was there is as it was.
    """
    stored: dict[str, NDArray[Any]] = {}
    for name, adapter in run.adapters.items():
        stored[f"adapter.{name}.weight"] = adapter.weight
        if adapter.mean is not None and adapter.std is not None:
            stored |= {f"adapter.{name}.mean": adapter.mean, f"adapter.{name}.std": adapter.std}
    for name, sketch in run.sketches.items():
        stored[f"sketch.{name}.rows"] = sketch.rows
        stored[f"sketch.{name}.figures"] = np.array([sketch.n, sketch.trace, sketch.delta], dtype=np.float64)
    for name, encoder in run.encoders.items():
        stored |= {f"encoder.{name}.{key}": value.detach().numpy() for key, value in encoder.state_dict().items()}
    described = {"run_id": run.run_id, "labels": json.dumps(list(run.labels))}
    parts = {
        run.folder / METRICS: json.dumps(run.metrics, indent=2, allow_nan=False).encode(),
        run.folder / CHECKPOINT: tensors.to_bytes(stored, {"format": FORMAT, "version": VERSION, **described}),
        **(files or {}),
    }
    with ExitStack() as stack:  # left in reverse, so that the metrics take their place last
        for path, data in parts.items():
            make_folder(path.parent)
            file = stack.enter_context(replacing(path))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with storage_errors(run.folder):
            (run.folder / METRICS).unlink(missing_ok=True)
            sync_folder(run.folder)


def load_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        ModelError: `folder` is not one, or is damaged, or its checkpoint does not fit its project.
        ProjectError: its copy of the project is damaged.
    """
    if not is_complete(folder):
        raise ModelError(
            f"{folder} is not a finished run",
            expected=f"a folder with {METRICS}, made by `edge-cmcl train`",
            got="an unfinished run" if (folder / PROJECT).exists() else "another folder, or none",
            hint="run `edge-cmcl train` again: it continues where it stopped",
        )
    project = load_project(folder / PROJECT)
    stored, described = _read_checkpoint(folder / CHECKPOINT)
    try:
        metrics = json.loads((folder / METRICS).read_bytes())
        return Run(
            folder=folder,
            project=project.with_seed(metrics["seed"]),
            run_id=described["run_id"],
            adapters=_adapters(project, stored),
            sketches=_sketches(project, stored),
            encoders=_encoders(project, stored),
            labels=tuple(json.loads(described["labels"])),
            metrics=metrics,
        )
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder} does not hold one whole run", got=str(error), hint="train it again with --force"
        ) from error


def _read_checkpoint(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    try:
        file = tensors.TensorFile(path)
    except DataError as error:
        hint = "train it again with --force"
        raise ModelError(error.message, expected=error.expected, got=error.got, hint=hint) from error
    with file:
        if file.metadata.get("format") != FORMAT or file.metadata.get("version") != VERSION:
            raise ModelError(
                f"{path} is not a checkpoint that this edge-cmcl reads",
                expected=f"{FORMAT} {VERSION}",
                got=f"{file.metadata.get('format')} {file.metadata.get('version')}",
            )
        return {name: file.read_whole(name) for name in file.names}, file.metadata


def _adapters(project: Project, stored: Mapping[str, NDArray[Any]]) -> dict[str, Adapter]:
    parts = {name: ("weight",) if name == TEXT else ("weight", "mean", "std") for name in _learned(project)}
    found = {name: Adapter(*(stored[f"adapter.{name}.{part}"] for part in kinds)) for name, kinds in parts.items()}
    for name, adapter in found.items():
        own_width = name == TEXT or project.encoder_path(name) is not None
        wanted = (project.embedding_dim, adapter.weight.shape[-1] if own_width else project.width)
        if adapter.weight.shape != wanted:
            raise ValueError(f"the adapter of {name} has shape {adapter.weight.shape}, the project says {wanted}")
    return found


def _sketches(project: Project, stored: Mapping[str, NDArray[Any]]) -> dict[str, Sketch]:
    found = {}
    for name in _learned(project):
        n, trace, delta = stored[f"sketch.{name}.figures"]
        found[name] = Sketch(stored[f"sketch.{name}.rows"], int(n), float(trace), float(delta))
    return found


def _learned(project: Project) -> set[str]:
    """Return the modalities that training gives an adapter, "text" included where a pair has it."""
    return {name for pair in project.pair for name in pair.modalities}


def _encoders(project: Project, stored: Mapping[str, NDArray[Any]]) -> dict[str, nn.Module]:
    encoders = {}
    for name, table in project.modality.items():
        if table.encoder == "conv":
            encoder = make_encoder(table.window_shape, project.width)
            prefix = f"encoder.{name}."
            state = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in stored.items() if k.startswith(prefix)}
            encoder.load_state_dict(state)
            encoders[name] = encoder.eval()
    return encoders
