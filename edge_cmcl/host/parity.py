"""Proof that what was exported answers as torch does, through the encoder classes that ship on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.device.encoders import Encoder, series_channels
from edge_cmcl.device.features import standardise, unit
from edge_cmcl.device.golden import golden_windows
from edge_cmcl.device.model import Model, statistics_of
from edge_cmcl.device.runtime import FP16, FP32, INT8, INT8_DYNAMIC, runtime_of
from edge_cmcl.device.universal import DILATIONS, STATISTICS, make_kernels, pool_frames
from edge_cmcl.errors import ParityError
from edge_cmcl.host.graphs import STEP_INPUTS, step_example
from edge_cmcl.host.step import training_step
from edge_cmcl.host.universal_graph import UniversalEncoder

BATCHES = (1, 7, 64)
TOLERANCE = 1e-4
"""Largest difference allowed between unit embeddings of torch and of the device."""

TOLERANCES = {FP32: TOLERANCE, FP16: 5e-3, INT8: 2e-2, INT8_DYNAMIC: np.inf}
"""The same by precision. A converted encoder is compared with itself, one window at a time: how far it is from its
source is for held-out pairs to judge (`precision`). Dynamic int8, whose range is that of the batch, has no limit."""

_FLIPS = 1e-4
"""Share of the universal encoder's counts that may differ by one. One in 40,000 is seen now and then, where an output
is within float error of zero; a single one has moved embeddings of real models by up to 8e-3."""

STEP_BATCHES = (5, 64, 200)
STEP_TOLERANCE = 1e-3
"""Largest difference allowed between what the step returns, relative to its largest value. The inputs stand in the
middle of a training run: Adam's first steps divide tiny gradients by themselves, and differ where those are noise."""

Array = NDArray[np.float32]


class UniversalReference:
    """The universal encoder in torch, with the interface of the device's encoders."""

    def __init__(self, modality: str, record: ModalityRecord) -> None:
        self.width = record.width
        self._record = record
        self._kernels = make_kernels(modality, series_channels(record), record.width)

    def __call__(self, windows: Array) -> Array:
        """Return raw features (n, width)."""
        scaled = windows / np.float32(self._record.scale)
        series = pool_frames(scaled) if self._record.frame else scaled
        kernels = self._kernels.for_length(windows.shape[1])
        with torch.no_grad():
            inputs = (torch.from_numpy(array) for array in (series, kernels.weights, kernels.biases))
            return np.asarray(UniversalEncoder()(*inputs).numpy())

    def settle(self, found: Array, wanted: Array, samples: int) -> Array:
        """Return raw features `found` with the shares of `wanted` where the two differ by one positive output.

        Where more of them do than rounding explains, `found` comes back as it is.
        """
        shape = (len(found), len(DILATIONS), STATISTICS, -1)
        shares, theirs = (features.reshape(shape)[:, :, 0] for features in (found, wanted))
        flipped = np.isclose(np.abs(shares - theirs) * samples, 1.0, atol=0.01)
        if flipped.sum() > max(1.0, _FLIPS * flipped.size):
            return found
        settled = found.reshape(shape).copy()
        settled[:, :, 0] = np.where(flipped, theirs, shares)
        return np.asarray(settled.reshape(found.shape))


class OneByOne:
    """An encoder that gets one window at a time: what a user's own graph must agree with at any batch size."""

    def __init__(self, encoder: Encoder) -> None:
        self.width = encoder.width
        self._encoder = encoder

    def __call__(self, windows: Array) -> Array:
        """Return raw outputs (n, width)."""
        return np.concatenate([self._encoder(windows[row : row + 1]) for row in range(len(windows))])


def check_embeddings(model: Model, modality: str, reference: Encoder, samples: int) -> float:
    """Compare embeddings of the exported `modality` with `reference`, its source, and return the largest difference.

    Raises:
        ParityError: they differ by more than `TOLERANCES` allow, at some batch size.
    """
    tolerance = TOLERANCES[runtime_of(model.record(modality)).precision]
    golden = golden_windows(modality, model.record(modality), samples)
    windows = np.concatenate([golden] * (max(BATCHES) // len(golden)))
    windows += 0.05 * np.random.default_rng(0).standard_normal(windows.shape, dtype=np.float32)
    worst = 0.0
    for batch in BATCHES:
        found, wanted = model.encoder(modality)(windows[:batch]), reference(windows[:batch])
        if isinstance(reference, UniversalReference):
            found = reference.settle(found, wanted, samples)
        difference = float(np.abs(_embed(model, modality, found) - _embed(model, modality, wanted)).max())
        if not difference <= tolerance:  # NaN is a failure too
            raise ParityError(
                f"the exported encoder of {modality} answers differently from its source at batch {batch}",
                expected=f"embeddings within {tolerance:g}",
                got=f"a difference of {difference:.3g}",
                hint="nothing was written; please report this model",
            )
        worst = max(worst, difference)
    return worst


def _embed(model: Model, modality: str, raw: Array) -> Array:
    adapter = model.adapter(modality)
    return unit(standardise(raw, statistics_of(adapter)) @ adapter.weight.T)


def check_step(session: ort.InferenceSession) -> float:
    """Compare the exported training step with torch at several batch sizes; return the largest relative difference.

    Raises:
        ParityError: gradient moments differ by more than `STEP_TOLERANCE`.
    """
    worst = 0.0
    for batch in STEP_BATCHES:
        inputs = step_example(partners=2, batch=batch, dimensions=64, directions=32, seed=batch)
        feeds = {name: value.numpy() for name, value in zip(STEP_INPUTS, inputs, strict=True)}
        found: list[Any] = session.run(None, feeds)
        wanted = training_step(*inputs)
        names = ("changes", "first moment", "second moment", "loss")
        for name, ours, theirs in zip(names, found, wanted, strict=True):
            difference = float(np.abs(ours - theirs.numpy()).max() / np.abs(theirs.numpy()).max())
            worst = max(worst, difference)
            if not difference <= STEP_TOLERANCE:
                raise ParityError(
                    f"the exported training step answers differently from torch at batch {batch}",
                    expected=f"{name} within {STEP_TOLERANCE:g} of its largest value",
                    got=f"a difference of {difference:.3g}",
                    hint="nothing was written; please report the versions of torch and onnxscript",
                )
    return worst
