"""A small network of this project: inverted residuals (Sandler et al. 2018, https://arxiv.org/abs/1801.04381).

The head is linear. The shipped weights were trained on drawn faces alone (`weights/train_drawn68.py`, `docs/drawn.md`).
With these weights a machine without downloads can run every function of lmconv. ReLU throughout and no
squeeze-and-excitation gate keep activation ranges narrow, so int8 changes the landmarks little.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmconv.types import Backbone, landmark_spec

SIZE = 64


def _layer(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


class Block(nn.Module):
    """1x1 expansion, 3x3 depthwise and 1x1 projection; adds the input if input and output have the same shape."""

    def __init__(self, channels: int, out: int, *, stride: int = 1, expand: int = 2) -> None:
        super().__init__()
        hidden = channels * expand
        self.residual = stride == 1 and channels == out
        self.layers = nn.Sequential(
            *_layer(channels, hidden, 1),
            nn.ReLU(),
            *_layer(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.ReLU(),
            *_layer(hidden, out, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, out, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class Drawn68(nn.Module):
    """Maps (N, 3, 64, 64) float32 to (N, 2 * landmarks) float32: x0, y0, x1, … as fractions of the input."""

    def __init__(self, landmarks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_layer(3, 24, 3, stride=2), nn.ReLU())
        self.trunk = nn.Sequential(
            Block(24, 32, stride=2, expand=1),
            Block(32, 32),
            Block(32, 48, stride=2),
            Block(48, 48),
            Block(48, 48),
            Block(48, 80, stride=2, expand=3),
            Block(80, 80, expand=3),
        )
        self.neck = nn.Sequential(*_layer(80, 64, 1), nn.ReLU())
        self.head = nn.Linear(64 * (SIZE // 16) ** 2, 2 * landmarks)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the landmarks; the class docstring states the shapes."""
        y: Tensor = self.head(torch.flatten(self.neck(self.trunk(self.stem(x))), 1))
        return y


plugin = Backbone(
    spec=landmark_spec("drawn68", "drawn68", size=(SIZE, SIZE), landmarks=68),
    build=Drawn68,
    summary="small network of this project; weights trained on drawn faces ship with lmconv",
)
