"""The self-test of a generation on this device: every graph opens and runs, golden windows embed as they should.

A digest proves that a bundle arrived as it was made, not that this device can use it: onnxruntime may be too old for a
graph, or a graph may be no graph at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.bundle.contents import read_golden
from edge_cmcl.device.encoders import NO_BLOB, UniversalEncoder
from edge_cmcl.device.golden import TOLERANCES, golden_windows, make_golden
from edge_cmcl.device.model import Model
from edge_cmcl.device.runtime import runtime_of
from edge_cmcl.device.training import random_problem, train
from edge_cmcl.device.universal import WIDTH_UNIT
from edge_cmcl.errors import EdgeCmclError, IntegrityError, ParityError, PlatformError, RefusedError

FLIPPED = 5e-2
"""Largest difference of the one golden window in four in which a count of the universal encoder may be off by one.

Where one of its outputs is within float error of zero, another processor may count it as positive; that has moved
embeddings by up to 8e-3 (host/parity.py). A wrong graph or adapter moves every window."""

_SAMPLES = 64
_ROWS, _DIRECTIONS = 4, 2


def self_test(model: Model) -> None:
    """Run every graph of `model` once, and compare each sensor's golden vectors with what this device computes.

    Raises:
        RefusedError: a graph cannot be opened or run here.
        ParityError: a sensor embeds its golden windows differently.
        DigestError, FormatError: a blob is damaged, or golden vectors do not fit their sensor.
    """
    with _on_this_device("the universal encoder"):
        _run_universal(model)
    with _on_this_device("the training step"):
        _run_step(model)
    for name, record in model.generation.modalities.items():
        if record.kind != "text":
            with _on_this_device(f"the encoder of {name}"):
                _check_sensor(model, name, record)


def _run_universal(model: Model) -> None:
    record = ModalityRecord(
        kind="series", channels=1, encoder="universal", encoder_blob=NO_BLOB, width=WIDTH_UNIT, adapter_blob=NO_BLOB
    )
    encoder = UniversalEncoder(model.universal_session, "self_test", record)
    outputs = encoder(golden_windows("self_test", record, _SAMPLES))
    _check_answer("the universal encoder", outputs, (len(outputs), WIDTH_UNIT))


def _run_step(model: Model) -> None:
    d = model.generation.embedding_dim
    problem = random_problem(_ROWS, d, _DIRECTIONS)
    changes, _ = train(model.step_session, problem, np.arange(_ROWS), lambda epoch, changes: True, epochs=1)
    _check_answer("the training step", changes, (2, d, _DIRECTIONS))


def _check_answer(what: str, found: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if found.shape != shape or not np.isfinite(found).all():
        expected = f"finite numbers of shape {shape}"
        raise RefusedError(
            f"{what} of the bundle answers nonsense on this device", expected=expected, got=str(found)[:80]
        )


def _check_sensor(model: Model, name: str, record: ModalityRecord) -> None:
    encoder = model.make_encoder(name, record)  # and not `model.encoder`, which would keep all of them in memory
    golden = read_golden(model.loaded, name)
    if golden is None:
        return
    found = make_golden(encoder, model.adapter(name), golden.inputs["windows"]).outputs["embeddings"]
    off = np.sort(np.abs(found - golden.outputs["embeddings"]).max(axis=1))
    runtime = runtime_of(record)
    tolerance = TOLERANCES[runtime.precision]
    flipped = len(off) // 4 if runtime.source == "universal" else 0
    same = off[: len(off) - flipped]
    limit = max(FLIPPED, tolerance) if flipped else tolerance
    if not (same.max() <= tolerance and off.max() <= limit):  # NaN is a failure too
        raise ParityError(
            f"{name} answers differently on this device than where the bundle was made",
            expected=f"embeddings of its golden windows within {tolerance:g}",
            got=f"a difference of {off.max():.3g}",
            hint="export the bundle again; if that does not help, report this device and its onnxruntime",
        )


@contextmanager
def _on_this_device(what: str) -> Iterator[None]:
    try:
        yield
    except (IntegrityError, RefusedError, PlatformError, MemoryError):
        raise
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        got = error.got if isinstance(error, EdgeCmclError) else ""
        raise RefusedError(
            f"this device cannot run {what} of the bundle",
            expected="graphs that its onnxruntime opens and runs",
            got=(got or f"{type(error).__name__}: {error}").splitlines()[0][:300],
            hint="export the bundle again; where a graph needs a newer onnxruntime, update it on this device",
        ) from error
