"""Trained encoders: 1-D convolutions over a series, and 2-D ones over frames followed by the same over time.

Both end in a wide output, the mean and the maximum over time of width / 2 channels, because width is what buys memory
in continual learning (design.md section 2). Group normalisation keeps them independent of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_CHANNELS = (64, 128, 256)
_FRAME_CHANNELS = (16, 32, 64)
_GROUPS = 8


class SeriesEncoder(nn.Module):
    """Windows (B, T, C) to features (B, width); any T of at least 16.

    Args:
        channels: C.
        width: even number of features.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for count in _CHANNELS:
            layers += [
                nn.Conv1d(before, count, kernel_size=7, padding=3, stride=2),
                nn.GroupNorm(_GROUPS, count),
                nn.GELU(),
            ]
            before = count
        self.layers = nn.Sequential(*layers)
        self.widen = nn.Conv1d(before, width // 2, kernel_size=1)

    def forward(self, windows: Tensor) -> Tensor:
        """Return features (B, width) of `windows` (B, T, C)."""
        outputs = self.widen(self.layers(windows.transpose(1, 2)))
        return torch.cat([outputs.mean(2), outputs.amax(2)], 1)


class FramesEncoder(nn.Module):
    """Windows (B, T, H, W) to features (B, width): a small 2-D network per frame, then `SeriesEncoder` over time.

    Args:
        width: even number of features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for count in _FRAME_CHANNELS:
            layers += [
                nn.Conv2d(before, count, kernel_size=3, padding=1, stride=2),
                nn.GroupNorm(_GROUPS, count),
                nn.GELU(),
            ]
            before = count
        self.layers = nn.Sequential(*layers)
        self.over_time = SeriesEncoder(2 * before, width)

    def forward(self, windows: Tensor) -> Tensor:
        """Return features (B, width) of `windows` (B, T, H, W)."""
        batch, samples, height, width = windows.shape
        maps = self.layers(windows.reshape(batch * samples, 1, height, width))
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return torch.as_tensor(self.over_time(pooled.reshape(batch, samples, -1)))


def make_encoder(window_shape: Sequence[int], width: int) -> nn.Module:
    """Return an untrained encoder for windows of shape (T, C) or (T, H, W)."""
    return SeriesEncoder(window_shape[1], width) if len(window_shape) == 2 else FramesEncoder(width)
