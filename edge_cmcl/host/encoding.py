"""Frozen encoders on the host, run through the very classes that ship on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_cmcl.bundle import ModalityRecord
from edge_cmcl.device.encoders import NO_BLOB, Encoder, GraphEncoder, UniversalEncoder
from edge_cmcl.device.sessions import open_session
from edge_cmcl.device.text import TEXT, WIDTH, label_features
from edge_cmcl.errors import DataError, ModelError
from edge_cmcl.host.base_data import PairData
from edge_cmcl.host.graphs import check_graph_file, universal_graph
from edge_cmcl.progress import Progress, silent
from edge_cmcl.project import Project

BATCH = 256

Array = NDArray[np.float32]


def modality_record(project: Project, modality: str, width: int | None = None) -> ModalityRecord:
    """Return what a bundle says of `modality`, its blobs still missing."""
    if modality == TEXT:
        return ModalityRecord(kind="text", encoder="text", width=WIDTH, adapter_blob=NO_BLOB)
    table = project.modality[modality]
    return ModalityRecord(
        kind="frames" if table.frame else "series",
        channels=table.channels,
        frame=table.frame,
        rate_hz=table.rate_hz,
        window_s=table.window_s,
        unit=table.unit,
        scale=table.scale,
        encoder="onnx" if table.encoder.startswith("onnx:") else table.encoder,  # type: ignore[arg-type]
        encoder_blob=NO_BLOB,
        width=width or project.width,
        adapter_blob=NO_BLOB,
    )


def user_encoder(project: Project, modality: str, path: Path) -> tuple[bytes, ModalityRecord]:
    """Read, check and try the ONNX file at `path`, the user's own encoder of `modality`.

    Raises:
        ModelError: it cannot be read, is no valid ONNX file, or does not take and give what it should.
    """
    name = f"{path} (encoder of {modality})"
    try:
        graph = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {name}", expected="an ONNX file", got=error.strerror or str(error)) from error
    check_graph_file(graph, name)
    session = open_session(graph, name)
    shape = session.get_outputs()[0].shape
    width = shape[-1] if len(shape) == 2 and isinstance(shape[-1], int) else None
    if width is None:
        raise ModelError(f"{name} has no fixed output width", expected="an output (n, width)", got=str(shape))
    record = modality_record(project, modality, width)
    encoder = GraphEncoder(session, modality, record)
    windows = np.zeros((2, *project.modality[modality].window_shape), np.float32)
    try:
        encoder(windows)
    except ModelError:
        raise
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        raise ModelError(
            f"{name} fails on windows as [modality.{modality}] declares them",
            expected=f"an answer to windows of shape {windows.shape}",
            got=str(error).splitlines()[0],
        ) from error
    return graph, record


def frozen_encoders(project: Project) -> tuple[dict[str, Encoder], dict[str, ModalityRecord]]:
    """Return the encoders of all modalities that are not trained, and the records of all modalities."""
    encoders: dict[str, Encoder] = {}
    records: dict[str, ModalityRecord] = {}
    shared = None
    for modality, table in project.modality.items():
        records[modality] = modality_record(project, modality)
        if table.encoder == "universal":
            shared = shared or open_session(universal_graph(), "the universal encoder")
            encoders[modality] = UniversalEncoder(shared, modality, records[modality])
        elif path := project.encoder_path(modality):
            graph, records[modality] = user_encoder(project, modality, path)
            encoders[modality] = GraphEncoder(open_session(graph, modality), modality, records[modality])
    return encoders, records


@dataclass
class RawOutputs:
    """Raw encoder outputs and windows of project pairs, each file and modality encoded once.

    Attributes:
        encoders: by modality, frozen.
        scales: by modality, what its encoder sees as 1.
        progress: told each file.
    """

    encoders: Mapping[str, Encoder]
    scales: Mapping[str, float]
    progress: Progress = silent
    _cache: dict[tuple[Path, str, str], Array] = field(default_factory=dict)

    def outputs(self, pair: PairData, side: int) -> Array:
        """Return raw outputs (n, width) of one side of `pair`, over all its parts; label features for text."""
        modality = pair.modalities[side]
        if modality == TEXT:
            return label_features(pair.labels)[pair.ids]
        return np.concatenate([self._encoded(modality, part.pairs.path, pair, side)[part.rows] for part in pair.parts])

    def windows(self, pair: PairData, side: int) -> Array:
        """Return the windows of one side of `pair` as its encoder sees them, (n, T, ...).

        Raises:
            DataError: its files have windows of different lengths, which cannot be trained on together.
        """
        scale = np.float32(self.scales[pair.modalities[side]])
        lengths = {part.pairs.path: part.pairs.shape(part.tensors[side])[0] for part in pair.parts}
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"the files of pair {pair.name} have windows of {pair.modalities[side]} of different lengths",
                expected="one length for a modality whose encoder is trained",
                got=", ".join(f"{path}: {length} samples" for path, length in lengths.items()),
                hint="window them alike, or use the universal encoder, which takes any length",
            )
        return np.concatenate([part.pairs.read(part.tensors[side])[part.rows] / scale for part in pair.parts])

    def _encoded(self, modality: str, path: Path, pair: PairData, side: int) -> Array:
        part = next(part for part in pair.parts if part.pairs.path == path)
        key = (path, part.tensors[side], modality)
        if key not in self._cache:
            encoder, tensor, n = self.encoders[modality], part.tensors[side], part.pairs.n
            chunks = []
            for start in range(0, n, BATCH):
                chunks.append(encoder(part.pairs.read(tensor, start, min(start + BATCH, n))))
                self.progress(f"encode {modality}", min(start + BATCH, n), n)
            self._cache[key] = np.concatenate(chunks)
        return self._cache[key]


class TorchEncoder:
    """A trained encoder in torch, with the interface of the device's encoders.

    Args:
        module: takes windows in the encoder's scale.
        width: outputs per window.
        scale: what the encoder sees as 1.
    """

    def __init__(self, module: nn.Module, width: int, scale: float, device: str = "cpu") -> None:
        self.width = width
        self._module = module.to(device).eval()
        self._scale = scale
        self._device = device

    def __call__(self, windows: Array) -> Array:
        """Return raw outputs (n, width)."""
        outputs = [np.zeros((0, self.width), np.float32)]
        with torch.no_grad():
            for start in range(0, len(windows), BATCH):
                batch = torch.from_numpy(windows[start : start + BATCH] / np.float32(self._scale))
                outputs.append(self._module(batch.to(self._device)).float().cpu().numpy())
        return np.concatenate(outputs)
