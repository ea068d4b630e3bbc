"""EfficientNet-lite: inverted residuals with ReLU6 and without gates, for fixed-point hardware."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head
from tests.corpus.registry import network
from torch import Tensor, nn


def _layer(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs), *([nn.ReLU6()] if act else [])]


class Inverted(nn.Module):
    """Expansion, depthwise convolution and projection, added to the input if the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        expand = _layer(inputs, wide, 1) if expansion > 1 else []
        self.body = nn.Sequential(
            *expand, *_layer(wide, wide, kernel, stride, wide), *_layer(wide, outputs, 1, act=False)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


STAGES = ((16, 3, 1, 1, 1), (24, 3, 2, 6, 2), (40, 5, 2, 6, 2), (80, 3, 2, 6, 2), (112, 5, 1, 6, 1))
"""Channels, kernel, stride, expansion and number of blocks of each stage."""


@network("EfficientNet-lite", exported=False, size=(64, 64))
def efficientnet_lite() -> nn.Module:
    torch.manual_seed(0)
    layers, inputs = _layer(3, 32, 3, 2), 32
    for outputs, kernel, stride, expansion, count in STAGES:
        for block in range(count):
            layers.append(Inverted(inputs, outputs, kernel, stride if block == 0 else 1, expansion))
            inputs = outputs
    return nn.Sequential(*layers, *_layer(inputs, 256, 1), Head(256))
