"""ShuffleNet V2, https://arxiv.org/abs/1807.11164: split, depthwise convolutions, join and shuffle of channels."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head
from tests.corpus.registry import network
from torch import Tensor, nn


def _pointwise(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


class Unit(nn.Module):
    """One unit; with stride 2 both branches are computed, with stride 1 the left half passes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        right = inputs if stride == 2 else half
        self.left = nn.Sequential(*_depthwise(inputs, 2), *_pointwise(inputs, half)) if stride == 2 else None
        self.right = nn.Sequential(*_pointwise(right, half), *_depthwise(half, stride), *_pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        if self.left is None:
            left, right = x.chunk(2, 1)
        else:
            left, right = self.left(x), x
        joined = torch.cat([left, self.right(right)], 1)
        count, channels, height, width = joined.shape
        return (
            joined.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, channels, height, width)
        )


@network("ShuffleNet V2", exported=False, size=(64, 64))
def shufflenet_v2() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [
        nn.Conv2d(3, 24, 3, 2, 1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 24
    for outputs, count in ((48, 4), (96, 4), (192, 2)):
        layers += [Unit(inputs if unit == 0 else outputs, outputs, 2 if unit == 0 else 1) for unit in range(count)]
        inputs = outputs
    return nn.Sequential(*layers, *_pointwise(inputs, 256), Head(256))
