"""ConvNeXt, https://arxiv.org/abs/2201.03545: depthwise 7x7, LayerNorm over channels, dense layers, layer scale."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head
from tests.corpus.registry import network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """One residual block, with dense layers on the last axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inner = self.gamma * self.narrow(F.gelu(self.wide(inner)))
        return x + inner.permute(0, 3, 1, 2)


@network("ConvNeXt-tiny, narrow", exported=False, size=(64, 64))
def convnext() -> nn.Module:
    torch.manual_seed(0)
    widths = (32, 64, 128)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), LayerNorm2d(widths[0], eps=1e-6)]
    for stage, channels in enumerate(widths):
        if stage:
            layers += [LayerNorm2d(widths[stage - 1], eps=1e-6), nn.Conv2d(widths[stage - 1], channels, 2, 2)]
        layers += [Block(channels) for _ in range(2)]
    return nn.Sequential(*layers, LayerNorm2d(widths[-1], eps=1e-6), Head(widths[-1]))
