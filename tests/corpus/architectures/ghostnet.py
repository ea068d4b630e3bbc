"""GhostNet, https://arxiv.org/abs/1911.11907: half of the channels come from cheap depthwise convolutions."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head, conv
from tests.corpus.registry import network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Ghost(nn.Module):
    """Computes half of the channels, and derives the other half from them."""

    def __init__(self, inputs: int, outputs: int, act: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        last = [nn.ReLU()] if act else []
        self.main = nn.Sequential(nn.Conv2d(inputs, half, 1, bias=False), nn.BatchNorm2d(half), *last)
        cheap = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.cheap = nn.Sequential(cheap, nn.BatchNorm2d(half), *last)

    def forward(self, x: Tensor) -> Tensor:
        main = self.main(x)
        return torch.cat([main, self.cheap(main)], 1)


class Squeeze(nn.Module):
    """Gates channels by a hard sigmoid of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.relu6(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))) + 3) / 6


class Bottleneck(nn.Module):
    """Ghost modules around a depthwise convolution, added to the input or to a projection of the input."""

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.body = nn.Sequential(
            Ghost(inputs, wide),
            *([depthwise, nn.BatchNorm2d(wide)] if stride == 2 else []),
            *([Squeeze(wide)] if squeeze else []),
            Ghost(wide, outputs, act=False),
        )
        spatial = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        project = nn.Conv2d(inputs, outputs, 1, bias=False)
        layers = [spatial, nn.BatchNorm2d(inputs), project, nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


BLOCKS = (
    (16, 16, 1, False),
    (48, 24, 2, False),
    (72, 24, 1, False),
    (72, 40, 2, True),
    (120, 40, 1, True),
    (240, 80, 2, False),
)
"""Inner channels, outputs, stride and gate of each block."""


@network("GhostNet", exported=False, size=(64, 64))
def ghostnet() -> nn.Module:
    torch.manual_seed(0)
    layers, inputs = [conv(3, 16, 2)], 16
    body: list[nn.Module] = [*layers]
    for wide, outputs, stride, squeeze in BLOCKS:
        body.append(Bottleneck(inputs, wide, outputs, stride, squeeze))
        inputs = outputs
    return nn.Sequential(*body, conv(inputs, 160), Head(160))
