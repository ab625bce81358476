"""Base training: encoders first where any are trained, then adapters on frozen features."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_cmcl.bundle import timestamp
from edge_cmcl.continual.metrics import chance_mrr
from edge_cmcl.device.encoders import Encoder
from edge_cmcl.device.features import standardise
from edge_cmcl.device.judging import MAX_GALLERY
from edge_cmcl.device.text import TEXT
from edge_cmcl.durable import make_folder, write_bytes
from edge_cmcl.errors import UsageError
from edge_cmcl.host.adapters import Fitted
from edge_cmcl.host.base_data import PairData, load_pairs
from edge_cmcl.host.base_fit import fit_base, fitted_rows, statistics_of_rows
from edge_cmcl.host.calibration import KEY as CALIBRATION
from edge_cmcl.host.conv import make_encoder
from edge_cmcl.host.encoding import RawOutputs, TorchEncoder, frozen_encoders
from edge_cmcl.host.epochs import History
from edge_cmcl.host.pretrain import PairInputs, train_encoders
from edge_cmcl.host.run import PROJECT, PROJECT_FOLDER, Run, encoder_file, is_complete, save_run
from edge_cmcl.progress import Progress, silent
from edge_cmcl.project import FILE_NAME, Project, load_project
from edge_cmcl.version import SOFTWARE

ENCODERS_RESUME = "resume-encoders.safetensors"
ADAPTERS_RESUME = "resume-adapters.safetensors"

Array = NDArray[np.float32]


def train(
    project_file: Path,
    folder: Path,
    *,
    device: str = "auto",
    seed: int | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Run:
    """Train the base of a project and write its run folder. A run that was cut off continues where it stopped.

    A finished run in that folder stays what it is until the new one is complete.

    Args:
        project_file: the project file, or the folder that holds it.
        folder: the run folder.
        device: torch device; "auto" takes CUDA where there is one.
        seed: instead of the project's.
        force: replace a finished run, and start a cut-off one afresh.
        progress: told each stage.

    Raises:
        ProjectError, DataError, ModelError: the project or its data cannot be used.
        UsageError: `device` is not there, or the run is finished already.
        StorageError: the run cannot be written.
    """
    began = time.monotonic()
    project = load_project(project_file)
    if seed is not None:
        project = project.with_seed(seed)
    device = pick_device(device)
    _check_unfinished(folder, force)
    pairs = load_pairs(project, project.train.seed)
    run_id = fingerprint(project, pairs)
    encoders, records = frozen_encoders(project)
    files = _begin(folder, project, project_file, force)
    raw = RawOutputs(encoders, {name: table.scale for name, table in project.modality.items()}, progress)
    trained, encoder_history = _train_encoders(project, pairs, raw, device, folder, run_id, progress)
    every: dict[str, Encoder] = {
        **encoders,
        **{n: TorchEncoder(m, records[n].width, records[n].scale, device) for n, m in trained.items()},
    }
    raw = replace(raw, encoders=every)
    fit = fit_base(
        project, pairs, raw,
        device=device, checkpoint=folder / ADAPTERS_RESUME, fingerprint=run_id, progress=progress,
    )  # fmt: skip
    run = Run(
        folder=folder,
        project=project,
        run_id=run_id,
        adapters=fit.adapters,
        sketches=fit.fitted.sketches,
        encoders={name: module.to("cpu") for name, module in trained.items()},
        labels=tuple(dict.fromkeys(label for pair in pairs for label in pair.labels)),
        metrics={
            **_metrics(project, pairs, fit.fitted, encoder_history, device, time.monotonic() - began),
            CALIBRATION: fit.calibration,
        },
    )
    save_run(run, files)
    _forget_progress(folder)
    return run


def pick_device(wanted: str) -> str:
    """Return the torch device to train on.

    Raises:
        UsageError: it is not there.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        got = wanted if "device type" in str(error) else str(error).splitlines()[0]  # that one lists all 21 types
        raise UsageError(f"torch has no device {wanted!r} here", expected="auto, cpu or cuda", got=got) from error
    return wanted


def fingerprint(project: Project, pairs: list[PairData]) -> str:
    """Return a digest of everything that the outcome of training depends on: project, data, software."""
    digest = hashlib.sha256(f"{SOFTWARE}\n{project.model_dump_json()}\n".encode())
    files = {part.pairs.path for pair in pairs for part in pair.parts}
    files |= {path for name in project.modality if (path := project.encoder_path(name))}
    for path in sorted(files):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:32]


def _check_unfinished(folder: Path, force: bool) -> None:
    replacing = any((folder / progress).exists() for progress in (ENCODERS_RESUME, ADAPTERS_RESUME))
    if is_complete(folder) and not replacing and not force:
        raise UsageError(
            f"{folder} holds a finished run",
            expected="a new run folder",
            hint="--force replaces it, --run names another",
        )


def _begin(folder: Path, project: Project, project_file: Path, force: bool) -> dict[Path, bytes]:
    """Return what the run will keep of its sources as they are now, by path."""
    make_folder(folder)
    if force:
        _forget_progress(folder)
    source = project_file / FILE_NAME if project_file.is_dir() else project_file
    files = {folder / PROJECT: source.read_bytes()}
    if not is_complete(folder):
        write_bytes(folder / PROJECT, files[folder / PROJECT])  # says what the folder is going to be
    paths = {name: project.encoder_path(name) for name in project.modality}
    return files | {encoder_file(folder, name): path.read_bytes() for name, path in paths.items() if path}


def _forget_progress(folder: Path) -> None:
    for leftover in (ENCODERS_RESUME, ADAPTERS_RESUME):
        (folder / leftover).unlink(missing_ok=True)


def _train_encoders(
    project: Project,
    pairs: list[PairData],
    raw: RawOutputs,
    device: str,
    folder: Path,
    run_id: str,
    progress: Progress,
) -> tuple[dict[str, nn.Module], History | None]:
    names = [name for name, table in project.modality.items() if table.encoder == "conv"]
    if not names:
        return {}, None
    torch.manual_seed(project.train.seed)
    encoders = {name: make_encoder(project.modality[name].window_shape, project.width) for name in names}
    inputs = []
    widths: dict[str, int] = dict.fromkeys(names, project.width)
    for pair in pairs:
        if not set(names).isdisjoint(pair.modalities):
            sides = [_side(pair, side, names, raw) for side in (0, 1)]
            widths |= {n: s.shape[1] for n, s in zip(pair.modalities, sides, strict=True) if n not in names}
            inputs.append(PairInputs(pair.modalities, (sides[0], sides[1]), pair.ids, pair.training, pair.validation))
    history = train_encoders(
        encoders, widths, inputs, project.embedding_dim, project.train,
        device=device, checkpoint=folder / ENCODERS_RESUME, fingerprint=run_id, progress=progress,
    )  # fmt: skip
    return encoders, history


def _side(pair: PairData, side: int, trained: Sequence[str], raw: RawOutputs) -> Array:
    """Return windows of a trained side, unit features of a frozen one, standardised over the training rows."""
    if pair.modalities[side] in trained:
        return raw.windows(pair, side)
    outputs = raw.outputs(pair, side)
    return standardise(outputs, statistics_of_rows(pair.modalities[side], outputs[fitted_rows(pair)]))


def _metrics(
    project: Project,
    pairs: Sequence[PairData],
    fitted: Fitted,
    encoder_history: History | None,
    device: str,
    seconds: float,
) -> dict[str, Any]:
    return {
        "software": SOFTWARE,
        "created": timestamp(),
        PROJECT_FOLDER: str(project.folder.resolve()),
        "device": device,
        "seed": project.train.seed,
        "seconds": round(seconds, 2),
        "pairs": [
            {
                "pair": pair.name,
                "training_rows": len(pair.training),
                "validation_rows": len(pair.validation),
                "fitted_rows": len(fitted_rows(pair)),
                "validation_from": "training files" if pair.carved else "validation files",
                "chance_mrr": chance_mrr(_gallery(pair)),
                "validation": figures,
            }
            for pair, figures in zip(pairs, fitted.validation, strict=True)
        ],
        "penalties": list(fitted.penalties),
        "adapters": _history(fitted.history),
        "encoders": _history(encoder_history) if encoder_history else None,
    }


def _gallery(pair: PairData) -> int:
    """Return among how many candidates a validation row is ranked (see `adapters`)."""
    if pair.modalities[1] == TEXT:
        return len(np.unique(pair.ids))
    rows = len(pair.validation)
    return round(rows / max(1, -(-rows // MAX_GALLERY)))


def _history(history: History) -> dict[str, Any]:
    epochs = [{key: None if math.isnan(value) else value for key, value in epoch.items()} for epoch in history.epochs]
    return {"best_epoch": history.best_epoch, "epochs": epochs}
