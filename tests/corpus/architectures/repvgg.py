"""RepVGG, https://arxiv.org/abs/2101.03697, as trained: three branches a block, which deployment may join."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head
from tests.corpus.registry import network
from torch import Tensor, nn


def _branch(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """A 3x3 convolution, a 1x1 convolution and a BatchNorm of the input, summed."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.dense = _branch(inputs, outputs, 3, stride, groups)
        self.point = _branch(inputs, outputs, 1, stride, groups)
        self.identity = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        total = self.dense(x) + self.point(x)
        if self.identity is not None:
            total = total + self.identity(x)
        return torch.relu(total)


@network("RepVGG with its three branches", exported=False, size=(64, 64))
def repvgg() -> nn.Module:
    torch.manual_seed(0)
    blocks: list[nn.Module] = [Block(3, 32, 2)]
    for inputs, outputs, count in ((32, 32, 2), (32, 64, 3), (64, 128, 3)):
        blocks += [Block(inputs if block == 0 else outputs, outputs, 2 - (block > 0)) for block in range(count)]
    return nn.Sequential(*blocks, Block(128, 128, 1, groups=4), Head(128))
