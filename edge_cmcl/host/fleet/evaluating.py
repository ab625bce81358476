"""What the host finds itself: a generation judged on pairs of its own, and remembered beside the devices' word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_cmcl.bundle import Loaded, timestamp
from edge_cmcl.data import open_pairs
from edge_cmcl.device.evaluate import PairMetrics, overall
from edge_cmcl.device.evaluate import evaluate as measure
from edge_cmcl.device.model import Model
from edge_cmcl.host.fleet.fleet import Fleet
from edge_cmcl.host.fleet.state import MAX_MEASURED, Measured
from edge_cmcl.progress import Progress, silent


def evaluate(
    fleet: Fleet, ref: str, files: Sequence[Path], progress: Progress = silent
) -> tuple[Loaded, list[PairMetrics], dict[str, float]]:
    """Measure a generation on pairs files; return it, the metrics of each pair, and their means.

    Args:
        fleet: the fleet.
        ref: as `Fleet.generation`.
        files: pairs files.
        progress: told how far it is.

    Raises:
        ModelError: there is no such generation.
        DataError: a file cannot be used, or has no pair that it knows.
        StoreLockedError, StorageError: the fleet cannot be written.
    """
    loaded = fleet.generation(ref)
    model, found = Model(loaded), list[PairMetrics]()
    for path in files:
        with open_pairs(path) as pairs:
            found += measure(model, pairs, progress)
    now = timestamp()
    findings = {
        (Path(each.file).name, each.modalities): Measured(
            file=Path(each.file).name, modalities=each.modalities, metrics=each.metrics, at=now
        )
        for each in found
    }
    with fleet.changing():
        state = fleet.state()
        older = {(each.file, each.modalities): each for each in state.measured.get(loaded.digest, ())}
        others = {digest: each for digest, each in state.measured.items() if digest != loaded.digest}
        measured = {**others, loaded.digest: tuple({**older, **findings}.values())}
        fleet.save(state.model_copy(update={"measured": dict(list(measured.items())[-MAX_MEASURED:])}))
    return loaded, found, overall(found)
