"""A run in reduced precision: encoders converted, everything after them fitted again, and held-out pairs asked.

Adapters, statistics and sketches of the base belong to the features of the encoder that ships: they are fitted anew on
what the converted one gives, by the code that trained the base. What the device learns later joins them unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.data.splits import evenly
from edge_cmcl.device.features import standardise
from edge_cmcl.device.runtime import CPU, FP32, PRECISIONS, TARGETS
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import ModelError, ParityError, ProjectError, UsageError
from edge_cmcl.host.adapters import Choice
from edge_cmcl.host.base_data import PairData, load_pairs
from edge_cmcl.host.base_fit import fit_base, fitted_rows, statistics_of_rows
from edge_cmcl.host.calibration import KEY as CALIBRATION
from edge_cmcl.host.encoding import RawOutputs, TorchEncoder, frozen_encoders
from edge_cmcl.host.prepared import Prepared, prepared
from edge_cmcl.host.quantise import CALIBRATION_WINDOWS
from edge_cmcl.host.run import PROJECT_FOLDER, Run
from edge_cmcl.host.train import fingerprint
from edge_cmcl.progress import Progress, silent
from edge_cmcl.project import FILE_NAME, load_project

MAX_LOSS = 0.5
"""Points of R@10, or of accuracy against labels, that held-out pairs may lose by default."""

GATE = "precision"
"""Of a run's metrics, and so of a bundle's: what held-out pairs said of a reduced precision."""

Array = NDArray[np.float32]


def chosen_precisions(run: Run, wanted: Sequence[str]) -> dict[str, str]:
    """Return the precision of each sensor of `run`.

    Args:
        run: a finished run.
        wanted: "int8" for all sensors, or "NAME=int8" for one; the later counts.

    Raises:
        UsageError: a precision or a sensor is not known.
    """
    sensors = sorted(set(run.adapters) - {TEXT})
    found = dict.fromkeys(sensors, FP32)
    for text in wanted:
        name, _, precision = text.rpartition("=")
        if precision not in PRECISIONS or (name and name not in sensors):
            raise UsageError(
                f"--precision {text} names no precision of this run",
                expected=f"[NAME=]{'|'.join(PRECISIONS)}, NAME one of {', '.join(sensors)}",
                got=text,
            )
        found.update({name: precision} if name else dict.fromkeys(sensors, precision))
    return found


def checked_target(target: str) -> str:
    """Return `target`.

    Raises:
        UsageError: it is none.
    """
    if target not in TARGETS:
        raise UsageError("--target names no target", expected=", ".join(TARGETS), got=target)
    return target


def export_id(run: Run, precisions: Mapping[str, str]) -> str:
    """Return the id of what is exported: the run's, and a digest of the precisions where one is reduced.

    Its sketches are not those of the run: an origin of the same name would count as the same.
    """
    if set(precisions.values()) <= {FP32}:
        return run.run_id
    text = ",".join(f"{name}={precision}" for name, precision in sorted(precisions.items()))
    return f"{run.run_id}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def at_precision(
    run: Run,
    precisions: Mapping[str, str],
    target: str = CPU,
    *,
    max_loss: float = MAX_LOSS,
    project: Path | None = None,
    progress: Progress = silent,
) -> tuple[Run, dict[str, Prepared]]:
    """Return `run` as it is to be exported, and its encoders; refuse where held-out pairs lose too much.

    Args:
        run: a finished run.
        precisions: of each sensor.
        target: one of `runtime.TARGETS`.
        max_loss: points that a pair may lose.
        project: where the project file is, by default where it was when the run was trained.
        progress: told each stage.

    Raises:
        ParityError: a pair loses more than `max_loss`.
        ModelError: the run's data are not there as they were, or an encoder cannot be converted.
    """
    if set(precisions.values()) <= {FP32}:
        return run, {name: prepared(run, name, FP32, target, _no_windows) for name in precisions}
    pairs = _pairs(run, project)
    encoders = {}
    for done, (name, precision) in enumerate(precisions.items(), start=1):
        encoders[name] = prepared(run, name, precision, target, lambda name=name: _windows(pairs, name))  # type: ignore[misc]
        progress("convert", done, len(precisions))
    scales = {name: table.scale for name, table in run.project.modality.items()}
    raw = RawOutputs({name: each.encoder for name, each in encoders.items()}, scales, progress)
    _check_numbers(precisions, pairs, raw)
    fit = fit_base(run.project, pairs, raw, choice=_choice(run), progress=progress)
    rows = compared(run, pairs, fit.fitted.validation)
    told = {"of": dict(precisions), "pairs": rows, "cosine": _cosines(run, precisions, pairs, raw)}
    _check(rows, max_loss)
    metrics = {**run.metrics, CALIBRATION: fit.calibration, GATE: told}
    new = replace(
        run, run_id=export_id(run, precisions), adapters=fit.adapters, sketches=fit.fitted.sketches, metrics=metrics
    )
    return new, encoders


def _check_numbers(precisions: Mapping[str, str], pairs: Sequence[PairData], raw: RawOutputs) -> None:
    """Refuse an encoder that overflows: float16 ends at 65504, and squares of int16 audio are far beyond."""
    for pair in pairs:
        for side, name in enumerate(pair.modalities):
            if name != TEXT and not np.isfinite(raw.outputs(pair, side)).all():
                raise ParityError(
                    f"the encoder of {name} answers NaN or infinity in {precisions[name]}",
                    expected="finite features of every window of its training data",
                    got="a number beyond what the precision holds",
                    hint=f"nothing was written; keep it in float32 (--precision {name}=fp32), or scale its input",
                )


def _choice(run: Run) -> Choice:
    """Return what training chose: with the same penalties and epochs, what differs is the encoder and not luck."""
    return Choice(tuple(run.metrics["penalties"]), int(run.metrics["adapters"]["best_epoch"]))


def compared(run: Run, pairs: Sequence[PairData], found: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return per pair what its held-out rows said of the run, what they say now, and the points lost.

    Raises:
        ModelError: the run is of an older edge-cmcl, which did not note it.
    """
    rows = []
    for pair, trained, now in zip(pairs, run.metrics["pairs"], found, strict=True):
        before = trained.get("validation")
        if before is None:
            raise ModelError(
                f"{run.folder} does not say how good it was on held-out pairs",
                expected="a run of this edge-cmcl",
                got="an older one",
                hint="train it again with --force",
            )
        measure = "accuracy" if pair.modalities[1] == TEXT else "recall_at_10"
        points = [100.0 * float(figures[measure]) for figures in (before, now)]
        if not np.isfinite(points[1]):
            points[1] = 0.0
        told = {"pair": pair.name, "measure": measure, "rows": int(now["rows"]), "fp32": points[0], "now": points[1]}
        rows.append({**told, "lost": points[0] - points[1]})
    return rows


def _check(rows: Sequence[Mapping[str, Any]], max_loss: float) -> None:
    """Refuse where a pair loses more than `max_loss` points."""
    over = [row for row in rows if not row["lost"] <= max_loss]
    if not over:
        return
    worst = max(over, key=lambda row: float(row["lost"]))
    names = {"recall_at_10": "R@10", "accuracy": "accuracy"}
    raise ParityError(
        f"the reduced precision costs {worst['pair']} {worst['lost']:.2f} points of {names[worst['measure']]}",
        expected=f"at most {max_loss:g} (--max-loss)",
        got="; ".join(
            f"{row['pair']}: {row['fp32']:.2f} in fp32, {row['now']:.2f} now, of {row['rows']} held-out pairs, "
            f"each {100 / row['rows']:.2f} points"
            for row in over
        ),
        hint="nothing was written; keep a sensor of that pair in fp32 or fp16 (--precision NAME=fp16)",
    )


def _pairs(run: Run, project: Path | None) -> list[PairData]:
    """Return the pairs that `run` was trained on.

    Raises:
        ModelError: they are not there, or not as they were.
    """
    place = project or _project_of(run)
    hint = "name the project that the run was trained from (--project), or train it again with --force"
    try:
        if place is None:
            raise ModelError("its project is not where it was", expected=FILE_NAME, got="none there or above the run")
        found = load_project(place).with_seed(run.metrics["seed"])
        pairs = load_pairs(found, found.train.seed)
    except (ProjectError, ModelError) as error:
        raise ModelError(
            f"the data of {run.folder} are needed for a reduced precision: {error.message}",
            expected=error.expected,
            got=error.got,
            hint=hint,
        ) from error
    if fingerprint(found, pairs) != run.run_id:
        raise ModelError(
            f"the project at {place} is not what {run.folder} was trained from",
            expected="the same project file, data and version of edge-cmcl",
            got="others",
            hint=hint,
        )
    return pairs


def _project_of(run: Run) -> Path | None:
    """Return the folder of the project of `run`: where it was, or above the run where both were moved, or None."""
    known = [Path(run.metrics[PROJECT_FOLDER])] if PROJECT_FOLDER in run.metrics else []
    places = [*known, *run.folder.resolve().parents[:2]]
    return next((place for place in places if (place / FILE_NAME).is_file()), None)


def _windows(pairs: Sequence[PairData], name: str) -> Array:
    """Return windows (n, T, ...) of a sensor in recorded units, from the rows that its adapter is fitted on."""
    for pair in pairs:
        if name in pair.modalities:
            side = pair.modalities.index(name)
            rows = fitted_rows(pair)
            return _read(pair, side, rows[evenly(len(rows), CALIBRATION_WINDOWS)])
    raise ModelError(f"no pair has {name}", expected="a trained sensor", got=name)


def _read(pair: PairData, side: int, rows: NDArray[np.int64]) -> Array:
    """Return the windows of rows of a pair, counted over its parts; those of the first length only."""
    ends = np.cumsum([len(part.rows) for part in pair.parts])
    found = []
    for part, first, last in zip(pair.parts, np.r_[0, ends[:-1]], ends, strict=True):
        chosen = part.rows[rows[(rows >= first) & (rows < last)] - first]
        if len(chosen):
            found.append(np.stack([part.pairs.read(part.tensors[side], row, row + 1)[0] for row in chosen.tolist()]))
    return np.concatenate([windows for windows in found if windows.shape[1:] == found[0].shape[1:]])


def _no_windows() -> Array:
    raise AssertionError("float32 needs no windows")


def _cosines(run: Run, precisions: Mapping[str, str], pairs: Sequence[PairData], raw: RawOutputs) -> dict[str, float]:
    """Return per converted sensor the mean cosine of its features before and after, each under its own statistics."""
    encoders, records = frozen_encoders(run.project)
    exact = encoders | {n: TorchEncoder(m, records[n].width, records[n].scale) for n, m in run.encoders.items()}
    found = {}
    for name, precision in precisions.items():
        pair = next(pair for pair in pairs if name in pair.modalities)
        if precision == FP32:
            continue
        side = pair.modalities.index(name)
        rows = pair.validation[:CALIBRATION_WINDOWS]
        before, after = exact[name](_read(pair, side, rows)), raw.outputs(pair, side)[rows]
        n = min(len(before), len(after))
        ours, theirs = (standardise(raws, statistics_of_rows(name, raws)) for raws in (before[:n], after[:n]))
        found[name] = float((ours * theirs).sum(axis=1).mean())
    return found
