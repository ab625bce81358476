"""Building TensorRT's engines ahead: the first session on a graph takes minutes, later ones read what it kept."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

from edge_cmcl.device.encoders import BATCH
from edge_cmcl.device.golden import golden_windows
from edge_cmcl.device.model import Model
from edge_cmcl.device.providers import (
    TENSORRT_PROVIDER,
    ProviderWarning,
    check_available,
    engine_folder,
    is_built,
    nominal_samples,
)
from edge_cmcl.device.runtime import TENSORRT, runtime_of
from edge_cmcl.durable import make_folder
from edge_cmcl.errors import PlatformError
from edge_cmcl.progress import Progress, silent


@dataclass(frozen=True)
class Built:
    """One sensor's engine.

    Attributes:
        modality: the sensor.
        folder: where the engine is.
        bytes: of everything in it.
        seconds: what building it took; next to nothing where it was there.
        was_there: whether it had been built before.
    """

    modality: str
    folder: str
    bytes: int
    seconds: float
    was_there: bool


def prebuild(model: Model, progress: Progress = silent) -> list[Built]:
    """Build the engine of every sensor that was exported for TensorRT; none for a bundle of another target.

    Raises:
        PlatformError: TensorRT is not here, or does not load.
        StorageError: there is no room for the engines.
    """
    records = {name: model.record(name) for name in model.modalities}
    names = [name for name, record in records.items() if runtime_of(record).target == TENSORRT]
    if names:
        check_available(TENSORRT_PROVIDER)
    found = []
    for done, name in enumerate(names, start=1):
        found.append(_build(model, name))
        progress("build engines", done, len(names))
    return found


def _build(model: Model, name: str) -> Built:
    record = model.record(name)
    digest = record.encoder_blob or ""
    folder, was_there, began = engine_folder(digest), is_built(digest), time.monotonic()
    make_folder(folder)
    windows = golden_windows(name, record, nominal_samples(record))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProviderWarning)  # this is the building that it warns of
        encoder = model.encoder(name)
    if model.provider(name) != TENSORRT_PROVIDER:
        raise PlatformError(
            f"{TENSORRT_PROVIDER} does not load for {name}",
            expected="the TensorRT and CUDA libraries that this onnxruntime was built for",
            got=f"{model.provider(name)} instead",
            hint="install them, or export the bundle with --target cuda",
        )
    for batch in (1, BATCH):
        encoder(windows[:1].repeat(batch, axis=0))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Built(name, str(folder), size, time.monotonic() - began, was_there)
