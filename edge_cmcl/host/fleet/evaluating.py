"""What the host finds itself: a generation judged on pairs of its own, and remembered beside the devices' word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_cmcl.bundle import Loaded, timestamp
from edge_cmcl.data import open_pairs
from edge_cmcl.device.evaluate import PairMetrics, overall
from edge_cmcl.device.evaluate import evaluate as measure
from edge_cmcl.device.judgement import judge
from edge_cmcl.device.model import Model
from edge_cmcl.errors import DataError
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.shared import shared_pairs
from edge_cmcl.host.fleet.state import MAX_FINDINGS, MAX_MEASURED, Measured
from edge_cmcl.progress import Progress, silent

SHARED_BY = "shared by "
"""What `Measured.file` begins with for pairs that a device shares: by its outputs, the host judges itself."""


def evaluate(
    fleet: Fleet, ref: str, files: Sequence[Path], progress: Progress = silent
) -> tuple[Loaded, list[PairMetrics], dict[str, float], list[Measured]]:
    """Measure a generation on pairs files, and on what devices share; return it and what was found.

    Args:
        fleet: the fleet.
        ref: as `Fleet.generation`.
        files: pairs files of the host's own.
        progress: told how far it is.

    Raises:
        ModelError: there is no such generation.
        DataError: a file cannot be used, or has no pair that it knows.
        StoreLockedError, StorageError: the fleet cannot be written.
    """
    loaded = fleet.generation(ref)
    model, found, now = Model(loaded), list[PairMetrics](), timestamp()
    for path in files:
        with open_pairs(path) as pairs:
            found += measure(model, pairs, progress)
    on_shared = list(_on_shared(fleet, model))
    if not found and not on_shared:
        raise DataError(
            "there is nothing to judge by",
            expected="--data FILE, or pairs that a device shares (`sync --share-heldout N`) and this generation knows",
            got="neither",
        )
    own = [
        Measured(file=Path(each.file).name, modalities=each.modalities, metrics=each.metrics, at=now) for each in found
    ]
    findings = {(each.file, each.modalities): each for each in [*own, *on_shared]}
    with fleet.changing(wait_s=60.0):  # what was measured must not be lost to a pull
        state = fleet.state()
        older = {(each.file, each.modalities): each for each in state.measured.get(loaded.digest, ())}
        others = {digest: each for digest, each in state.measured.items() if digest != loaded.digest}
        measured = {**others, loaded.digest: tuple({**older, **findings}.values())[-MAX_FINDINGS:]}
        fleet.save(state.model_copy(update={"measured": dict(list(measured.items())[-MAX_MEASURED:])}))
    shared = [each for each in findings.values() if each.file.startswith(SHARED_BY)]
    return loaded, found, overall(found), shared


def _on_shared(fleet: Fleet, model: Model) -> Iterator[Measured]:
    """Yield what `model` makes of the pairs that devices share."""
    for device, kept in shared_pairs(fleet).items():
        for each in judge(model, kept):
            metrics = {
                "n": float(each.n),
                "gallery": float(each.gallery),
                "mrr": each.mrr,
                "recall_at_1": each.recall_at_1,
                "recall_at_10": each.recall_at_10,
            }
            file = f"{SHARED_BY}{device}: {each.origin.partition(':')[2]}"
            yield Measured(file=file, modalities=each.modalities, metrics=metrics, at=timestamp())
