"""Parts that the networks of the corpus share: a stem, a construct in the middle, convolutions, and a head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tests.corpus.registry import POINTS
from torch import Tensor, nn

STEM = 16
"""Number of channels that a construct receives, with half the height and width of the input."""


class Function(nn.Module):
    """A function without weights as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Head(nn.Module):
    """Mean over the map and a dense layer to (N, 2L) fractions of the input around 0.5."""

    def __init__(self, channels: int, outputs: int = 2 * POINTS) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, outputs)
        nn.init.normal_(self.dense.weight, std=0.3 / channels**0.5)
        nn.init.uniform_(self.dense.bias, 0.3, 0.7)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x.mean((2, 3)))


def conv(inputs: int, outputs: int, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Returns a 3x3 convolution with BatchNorm and an activation."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), act())


def chain(
    middle: nn.Module | Callable[[Tensor], Tensor], outputs: int = STEM, act: type[nn.Module] = nn.ReLU
) -> nn.Module:
    """Returns a stem, the construct, two convolutions and a head.

    Args:
        middle: The construct: takes (N, 16, 16, 16), returns (N, outputs, h, w).
        outputs: Number of channels that the construct returns.
        act: Activation of the stem.
    """
    torch.manual_seed(0)
    construct = middle if isinstance(middle, nn.Module) else Function(middle)
    return nn.Sequential(conv(3, STEM, 2, act), construct, conv(outputs, 32, 2), conv(32, 32), Head(32))


def features(channels: int = 32) -> nn.Sequential:
    """Returns two convolutions: (N, 3, 32, 32) to (N, channels, 8, 8)."""
    torch.manual_seed(0)
    return nn.Sequential(conv(3, STEM, 2), conv(STEM, channels, 2))
