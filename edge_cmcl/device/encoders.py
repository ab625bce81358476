"""Frozen encoders as the device runs them: windows in, raw wide outputs out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.data.pairs_format import MIN_SAMPLES
from edge_cmcl.device.sessions import input_shape
from edge_cmcl.device.universal import MAX_CELLS, make_kernels, pool_frames
from edge_cmcl.errors import DataError, ModelError

NO_BLOB = "sha256:" + 64 * "0"
"""Stands for a blob that a record will name once it is written."""

BATCH = 64
"""Windows that go through an encoder at once, whatever the caller hands in: memory stays bounded."""

Windows = NDArray[np.float32]


class Encoder(Protocol):
    """One modality's encoder.

    Attributes:
        width: outputs per window.
    """

    width: int

    def __call__(self, windows: Windows) -> NDArray[np.float32]:
        """Return raw outputs (n, width) of `windows` (n, T, C) or (n, T, H, W) in recorded units."""


class UniversalEncoder:
    """The universal encoder of one modality; the graph is shared, the kernels are the modality's own.

    Args:
        session: the bundle's universal graph.
        modality: its name, which seeds the kernels.
        record: its channels or frame, scale and width.
    """

    def __init__(self, session: ort.InferenceSession, modality: str, record: ModalityRecord) -> None:
        self.width = record.width
        self._session = session
        self._modality = modality
        self._record = record
        self._kernels = make_kernels(modality, series_channels(record), record.width)

    def __call__(self, windows: Windows) -> NDArray[np.float32]:
        """Return raw features (n, width); see `Encoder`."""
        check_windows(self._modality, self._record, windows)
        kernels = self._kernels.for_length(windows.shape[1])
        outputs = [np.zeros((0, self.width), np.float32)]
        for batch in _batches(windows, self._record.scale):
            series = pool_frames(batch) if self._record.frame else batch
            feeds = {"windows": series, "weights": kernels.weights, "biases": kernels.biases}
            outputs.append(self._session.run(["features"], feeds)[0])
        return np.concatenate(outputs)


def series_channels(record: ModalityRecord) -> int:
    """Return how many channels the universal encoder sees: those of a series, or the cells of pooled frames."""
    if record.frame is None:
        return record.channels or 0
    return math.prod(min(side, MAX_CELLS) for side in record.frame)


class GraphEncoder:
    """A trained or user-made encoder: any graph with the input "windows" and one output (n, width).

    Args:
        session: its graph.
        modality: its name, for errors.
        record: its channels or frame, scale and width.

    Raises:
        ModelError: the graph's input does not fit the modality.
    """

    def __init__(self, session: ort.InferenceSession, modality: str, record: ModalityRecord) -> None:
        self.width = record.width
        self._session = session
        self._modality = modality
        self._record = record
        check_graph(session, modality, record)

    def __call__(self, windows: Windows) -> NDArray[np.float32]:
        """Return raw outputs (n, width); see `Encoder`."""
        check_windows(self._modality, self._record, windows)
        outputs = [np.zeros((0, self.width), np.float32)]
        for batch in _batches(windows, self._record.scale):
            (output,) = self._session.run(None, {"windows": batch})
            if output.shape != (len(batch), self.width):
                raise ModelError(
                    f"the encoder of {self._modality} answers in another shape",
                    expected=f"({len(batch)}, {self.width})",
                    got=str(output.shape),
                )
            outputs.append(output)
        return np.concatenate(outputs)


def check_graph(session: ort.InferenceSession, modality: str, record: ModalityRecord) -> None:
    """Check that a graph takes (n, T, C) or (n, T, H, W) windows of `modality` and gives one output (n, width).

    Raises:
        ModelError: it does not.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    wanted: list[int | None] = [None, None, *(record.frame or (record.channels,))]
    shape = input_shape(session, "windows")
    fits = len(shape) == len(wanted) and all(
        not isinstance(have, int) or want is None or have == want for have, want in zip(shape, wanted, strict=True)
    )
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not fits or isinstance(shape[0], int):
        raise ModelError(
            f"the encoder of {modality} takes another input",
            expected=f"one float32 input windows with shape {_describe(wanted)}",
            got=", ".join(f"{value.type} {value.name} {_describe(value.shape)}" for value in inputs),
            hint="export it with a dynamic batch, or correct channels or frame of the modality",
        )
    width = outputs[0].shape[-1] if len(outputs) == 1 and len(outputs[0].shape) == 2 else None
    if width is None or (isinstance(width, int) and width != record.width):
        raise ModelError(
            f"the encoder of {modality} gives another output",
            expected=f"one output with shape (n, {record.width})",
            got=", ".join(f"{value.name} {_describe(value.shape)}" for value in outputs),
        )


def check_windows(modality: str, record: ModalityRecord, windows: Windows) -> None:
    """Check shape and values of `windows` against what `modality` takes.

    Raises:
        DataError: they do not fit, or hold NaN or infinity.
    """
    wanted = tuple(record.frame) if record.frame else (record.channels,)
    if windows.ndim != 2 + len(wanted) or windows.shape[2:] != wanted or windows.shape[1] < MIN_SAMPLES:
        raise DataError(
            f"windows of {modality} have another shape than the modality was declared with",
            expected=f"(windows, at least {MIN_SAMPLES} samples, {', '.join(map(str, wanted))})",
            got=str(windows.shape),
            hint="use the channels and their order that the modality was learned with",
        )
    if not np.isfinite(windows).all():
        raise DataError(
            f"windows of {modality} hold NaN or infinity",
            expected="finite numbers",
            hint="repair gaps with `edge-cmcl data import`",
        )


def _batches(windows: Windows, scale: float) -> Iterator[Windows]:
    for start in range(0, len(windows), BATCH):
        batch = np.ascontiguousarray(windows[start : start + BATCH], dtype=np.float32)
        yield batch if scale == 1.0 else batch / np.float32(scale)


def _describe(shape: list[int | None] | list[int | str | None]) -> str:
    return "(" + ", ".join("any" if not isinstance(size, int) else str(size) for size in shape) + ")"
