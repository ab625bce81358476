"""A torch or Hugging Face backbone as an encoder of the user's own: wrapped to take windows, exported, and compared.

`host/USER_ENCODERS.md` has worked examples. The file that `export_backbone` writes is what `encoder = "onnx:PATH"` of
the project file takes; the backbone stays frozen, as every encoder does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_cmcl.device.sessions import open_session
from edge_cmcl.durable import write_bytes
from edge_cmcl.errors import ModelError, ParityError
from edge_cmcl.host.graphs import encoder_graph

TOLERANCE = 1e-3
"""Largest difference allowed between torch and the exported graph, relative to the largest output."""

_BATCHES = (1, 3)


class FrameBackbone(nn.Module):
    """An image network over each frame of a window: (B, T, H, W) to (B, 2 F), mean and maximum over time.

    Args:
        network: takes (N, channels, *size) and gives (N, F), (N, tokens, F) or a Hugging Face output.
        size: height and width that it wants; frames are resized to it.
        channels: that it wants; each gets the same values.
        mean: of its training images, by channel, in the units of frame / scale.
        std: the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        size: tuple[int, int],
        channels: int = 3,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.network, self.size, self.channels = network, size, channels
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, windows: Tensor) -> Tensor:
        """Return features (B, 2 F) of `windows` (B, T, H, W)."""
        batch, samples, height, width = windows.shape
        images = windows.reshape(batch * samples, 1, height, width)
        images = functional.interpolate(images, self.size, mode="bilinear", align_corners=False)
        images = (images.expand(-1, self.channels, -1, -1) - self.mean) / self.std
        features = _pooled(_tensor_of(self.network(images)))
        return _mean_and_max(features.reshape(batch, samples, -1))


class SignalBackbone(nn.Module):
    """A network over a whole series, for instance raw audio: (B, T, C) to (B, F), or (B, 2 F) where it answers in time.

    Args:
        network: gives (B, F), (B, t, F) or a Hugging Face output.
        layout: what it takes: "BT" (one channel), "BCT" or "BTC".
    """

    def __init__(self, network: nn.Module, layout: str = "BT") -> None:
        super().__init__()
        if layout not in ("BT", "BCT", "BTC"):
            raise ModelError(f"there is no layout {layout!r}", expected="BT, BCT or BTC", got=layout)
        self.network, self.layout = network, layout

    def forward(self, windows: Tensor) -> Tensor:
        """Return features (B, width) of `windows` (B, T, C)."""
        series = windows.transpose(1, 2) if self.layout == "BCT" else windows
        found = _tensor_of(self.network(series[:, :, 0] if self.layout == "BT" else series))
        return found if found.ndim == 2 else _mean_and_max(found)


def export_backbone(
    backbone: nn.Module, window_shape: Sequence[int], path: Path | str, *, free_length: bool = False
) -> float:
    """Write `backbone` as an ONNX encoder to `path`; return the largest difference from torch, relative.

    Args:
        backbone: takes float32 windows (B, *window_shape) in the modality's scale and gives (B, width).
        window_shape: (T, C) or (T, H, W) of one window.
        path: the file to write; an older one is replaced.
        free_length: let it take windows of other lengths, too; most backbones with positions cannot.

    Raises:
        ModelError: it gives something else than (B, width), or torch cannot export it.
        ParityError: the graph answers differently from torch; nothing is written.
        StorageError: the file system refused.
    """
    backbone = backbone.eval()
    windows = torch.randn(max(_BATCHES), *window_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = backbone(windows)
    if not isinstance(wanted, Tensor) or wanted.ndim != 2 or len(wanted) != len(windows):
        got = tuple(wanted.shape) if isinstance(wanted, Tensor) else type(wanted).__name__
        raise ModelError("the backbone gives no features", expected=f"({len(windows)}, width)", got=str(got))
    try:
        graph = encoder_graph(backbone, window_shape, Path(path).stem, free_length=free_length)
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(
            "torch cannot export this backbone",
            expected="operators that ONNX has, and no branches on values",
            got=str(error).splitlines()[0],
            hint="export it with its own tools; any file with the input windows will do (host/USER_ENCODERS.md)",
        ) from error
    worst = _difference(graph, windows.numpy(), wanted.numpy())
    if not worst <= TOLERANCE:  # NaN is a failure too
        raise ParityError(
            "the exported backbone answers differently from torch",
            expected=f"within {TOLERANCE:g} of the largest output",
            got=f"{worst:.3g}",
            hint="nothing was written; layers that depend on the batch (batch norm in training) are a common reason",
        )
    write_bytes(Path(path), graph)
    return worst


def _difference(graph: bytes, windows: np.ndarray, wanted: np.ndarray) -> float:
    session, worst = open_session(graph, "the backbone"), 0.0
    for batch in _BATCHES:
        (found,) = session.run(None, {"windows": windows[:batch]})
        worst = max(worst, float(np.abs(found - wanted[:batch]).max() / np.abs(wanted).max()))
    return worst


def _tensor_of(output: object) -> Tensor:
    """Return the features of what a network answers: a tensor, or a Hugging Face model's output."""
    for name in ("pooler_output", "last_hidden_state", "logits"):
        found = getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    if isinstance(output, Tensor):
        return output
    raise ModelError("the network gives no features", expected="a tensor", got=type(output).__name__)


def _pooled(features: Tensor) -> Tensor:
    """Return (N, F) of (N, F), (N, tokens, F), or maps (N, F, h, w)."""
    if features.ndim == 4:
        return features.mean((2, 3))
    return features.mean(1) if features.ndim == 3 else features


def _mean_and_max(series: Tensor) -> Tensor:
    return torch.cat([series.mean(1), series.amax(1)], 1)
