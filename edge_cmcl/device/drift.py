"""The drift watch: whether recent windows of a sensor are still of the kind that was learned (continual/drift.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.continual.drift import FALSE_ALARMS, outside, residuals, threshold_for
from edge_cmcl.data import Pairs
from edge_cmcl.device.calibration import Recording, calibrated, read_calibration
from edge_cmcl.device.encode import EncodedModality
from edge_cmcl.device.encoders import BATCH
from edge_cmcl.device.features import standard_scores
from edge_cmcl.device.fits import check_fit, check_holds, chosen_sensors
from edge_cmcl.device.members import guard
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.next_generation import origin_id
from edge_cmcl.device.plan import Plan
from edge_cmcl.device.text import TEXT
from edge_cmcl.errors import UsageError
from edge_cmcl.progress import Progress, silent

ENOUGH = 10
"""Fewer windows may prove a drift, but their silence proves nothing: they are too few to be called normal."""

NORMAL, DRIFTED, TOO_FEW, NOT_CALIBRATED = "normal", "drifted", "too few", "not calibrated"


@dataclass(frozen=True)
class Drift:
    """Recent windows of one sensor, against what was learned.

    Attributes:
        modality: the sensor.
        windows: how many windows there are.
        outside: energy of their mean feature outside everything learned, as a share of a normal window's energy; may be
            above 1. None without windows.
        threshold: the largest that is normal for so many windows; None where it was not calibrated.
        beyond: share of the windows that are beyond the threshold of a single window; `false_alarms` is normal.
        energy: mean energy of the windows' features, 1 for those that the statistics are of.
        false_alarms: share of normal windows, and of normal files, that are called drifted.
        verdict: "normal", "drifted", "too few" or "not calibrated".
    """

    modality: str
    windows: int
    outside: float | None
    threshold: float | None
    beyond: float | None
    energy: float | None
    false_alarms: float
    verdict: str

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return vars(self).copy()


def drift(model: Model, pairs: Pairs, modalities: Sequence[str] = (), progress: Progress = silent) -> list[Drift]:
    """Tell for each sensor of a file of recent windows whether they are of the kind that `model` has learned.

    Labels and partners are not needed: each sensor is judged by itself.

    Args:
        model: the generation.
        pairs: the recent windows.
        modalities: sensors to judge; by default every one of the file that the generation knows.
        progress: told each batch.

    Raises:
        DataError: the file has none of them, or does not fit one.
        ModelError: a named one is unknown.
        UsageError: "text" is named.
    """
    chosen = chosen_sensors(pairs, modalities, model.modalities)
    if TEXT in chosen:
        raise UsageError("labels do not drift", expected="a sensor", got=TEXT)
    for name in chosen:
        check_fit(pairs, name, name, model.record(name))
        check_holds(pairs, name)
    return [drift_of(model, name, _outputs(model, pairs, name, progress)) for name in chosen]


def drift_of(model: Model, name: str, outputs: Iterable[NDArray[np.float32]]) -> Drift:
    """Tell of recent windows of one sensor whether they are of the kind that `model` has learned.

    Args:
        model: the generation.
        name: a sensor of it.
        outputs: batches of its encoder's raw outputs (rows, width) for them.
    """
    sums, singles, energies = _streamed(model, name, outputs)
    n = len(singles)
    found = read_calibration(model.record(name))
    false_alarms = found.false_alarms if found else FALSE_ALARMS
    if n == 0:
        return Drift(name, 0, None, None, None, None, false_alarms, TOO_FEW)
    share = outside(sums / n)
    threshold = threshold_for(found.thresholds, n) if found else None
    single = threshold_for(found.thresholds, 1) if found else None
    return Drift(
        modality=name,
        windows=n,
        outside=share,
        threshold=threshold,
        beyond=float((singles > single).mean()) if single is not None else None,
        energy=float(energies.mean()),
        false_alarms=false_alarms,
        verdict=_verdict(share, threshold, n),
    )


def _verdict(share: float, threshold: float | None, n: int) -> str:
    if threshold is None:
        return NOT_CALIBRATED
    if not share <= threshold:
        return DRIFTED
    return NORMAL if n >= ENOUGH else TOO_FEW


def _outputs(model: Model, pairs: Pairs, name: str, progress: Progress) -> Iterator[NDArray[np.float32]]:
    """Yield the encoder's raw outputs of the valid windows of a file, a batch at a time."""
    valid = pairs.valid(name)
    for start in range(0, pairs.n, BATCH):
        stop = min(start + BATCH, pairs.n)
        yield model.encoder(name)(pairs.read(name, start, stop)[valid[start:stop]])
        progress(f"watch {name}", stop, pairs.n)


def _streamed(
    model: Model, name: str, outputs: Iterable[NDArray[np.float32]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum (width,) of the windows' residuals, and of each its energy outside and its whole energy."""
    statistics = statistics_of(model.adapter(name))
    width = len(statistics.mean)
    held = guard(model.origins(name), width)
    sums, singles, energies = np.zeros(width), [np.zeros(0)], [np.zeros(0)]
    for raw in outputs:
        scores = standard_scores(raw, statistics)
        rest = residuals(scores, held)
        sums += rest.sum(axis=0, dtype=np.float64)
        singles.append(np.square(rest, dtype=np.float64).mean(axis=1))
        energies.append(np.square(scores, dtype=np.float64).mean(axis=1))
    return sums, np.concatenate(singles), np.concatenate(energies)


def calibrated_record(
    model: Model, plan: Plan, pairs: Pairs, name: str, encoded: EncodedModality, device: str
) -> ModalityRecord:
    """Return the record of a member of an update with what is normal of it in this recording.

    A recording that was learned before tells nothing: its windows are within what is known already.

    Args:
        model: the generation before the update.
        plan: the update.
        pairs: its recording.
        name: the member.
        encoded: its raw outputs.
        device: the device's id.
    """
    record = plan.records[name]
    if name == TEXT or plan.learned_before is not None:
        return record
    rows = np.flatnonzero(encoded.learned)
    recording = Recording(
        np.asarray(encoded.raw[rows]),
        plan.groups[rows] if plan.groups is not None else None,
        pairs.time[rows] if pairs.time is not None else None,
        pairs.longest_window_s([name]),
    )
    known = name not in plan.new
    return calibrated(
        record,
        model.origins(name) if known else (),
        origin_id(device, plan.members, plan.task),
        recording,
        statistics_of(model.adapter(name)) if known else None,
        renewed=name in model.renewed,
    )
