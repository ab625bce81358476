"""The drift watch of a service: raw encoder outputs of the latest windows of each sensor, judged when asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.device.drift import Drift, drift_of
from edge_cmcl.device.model import Model

KEPT = 100
"""Windows of each sensor: at 1800 numbers each, 0.7 MB. The recordings themselves are not kept."""

_Encoder = tuple[object, ...]


@dataclass
class _Ring:
    """The latest outputs of one encoder, in no order; `filled` counts all that it has ever seen."""

    encoder: _Encoder
    outputs: NDArray[np.float32]
    filled: int = 0

    def add(self, raw: NDArray[np.float32]) -> None:
        latest = raw[-KEPT:]
        self.outputs[(self.filled + np.arange(len(latest))) % KEPT] = latest
        self.filled += len(latest)

    def rows(self) -> NDArray[np.float32]:
        return np.array(self.outputs[: self.filled])


class Recent:
    """Keeps what the drift watch looks at; any thread may use it."""

    def __init__(self) -> None:
        self._rings: dict[str, _Ring] = {}
        self._lock = threading.Lock()

    def add(self, name: str, record: ModalityRecord, raw: NDArray[np.float32]) -> None:
        """Take in raw outputs (rows, width) of the encoder of `name`.

        Where another encoder had that name before, what that one gave is forgotten.
        """
        with self._lock:
            ring = self._rings.get(name)
            if ring is None or ring.encoder != _encoder(record):
                ring = _Ring(_encoder(record), np.zeros((KEPT, record.width), np.float32))
                self._rings[name] = ring
            ring.add(raw)

    def drift(self, model: Model) -> list[Drift]:
        """Return for each sensor that was seen whether its latest windows are of the kind that `model` has learned."""
        with self._lock:
            kept = {
                name: ring.rows()
                for name, ring in sorted(self._rings.items())
                if name in model.modalities and ring.encoder == _encoder(model.record(name))
            }
        return [drift_of(model, name, [rows]) for name, rows in kept.items()]


def _encoder(record: ModalityRecord) -> _Encoder:
    """Return what the outputs of an encoder depend on, beside the name of its sensor."""
    frame = tuple(record.frame or ())
    return record.encoder, record.encoder_blob, record.width, record.channels, frame, record.scale
