"""The universal encoder as a torch module, from which its ONNX graph is exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_cmcl.device.universal import DILATIONS, LENGTH


class UniversalEncoder(nn.Module):
    """Random convolutional features; the kernels are inputs, so one graph serves every series modality."""

    def forward(self, windows: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
        """Return features (B, 12 * K) of `windows` (B, T, C), `weights` (4, K, C, 7) and `biases` (4, K), all float32.

        Per dilation the features are K shares of positive outputs, K maxima and K mean absolute outputs.
        """
        series = windows.transpose(1, 2)
        features = []
        for row, dilation in enumerate(DILATIONS):
            reach = dilation * (LENGTH // 2)
            outputs = functional.conv1d(series, weights[row], biases[row], padding=reach, dilation=dilation)
            features += [(outputs > 0).to(outputs.dtype).mean(2), outputs.amax(2), outputs.abs().mean(2)]
        return torch.cat(features, 1)
