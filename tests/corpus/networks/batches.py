"""Habits of code about the batch, and control flow."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head, chain, features
from tests.corpus.registry import network
from torch import Tensor, nn


class Body(nn.Module):
    """Computes landmarks from features."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = features(), Head(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@network("view with the batch from the shape", exported=False)
def batch_from_the_shape() -> nn.Module:
    class Viewed(Body):
        def forward(self, x: Tensor) -> Tensor:
            maps = self.body(x)
            count, channels = maps.shape[:2]
            return self.head(maps.view(count * channels, 64).view(count, channels, 8, 8))

    return Viewed()


@network("a loop over the batch", exported=False)
def loop_over_the_batch() -> nn.Module:
    class Looped(Body):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super(Looped, self).forward(x[i : i + 1]) for i in range(x.shape[0])])

    return Looped()


@network("the image and its mirror image in one batch", exported=False)
def mirrored_in_the_batch() -> nn.Module:
    class Mirrored(Body):
        def forward(self, x: Tensor) -> Tensor:
            one, two = super().forward(torch.cat([x, x.flip(3)])).chunk(2)
            return (one + two) / 2

    return Mirrored()


@network("another way for a batch of one", exported=False, alone=True)
def another_way_for_one() -> nn.Module:
    class Other(Body):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + (0.1 if x.shape[0] == 1 else 0.0)

    return Other()


@network("`view(1, -1)`: the network takes one image only", exported=False, alone=True)
def one_image_only() -> nn.Module:
    class One(Body):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).view(1, 32, 8, 8))

    return One()


@network("`squeeze()` of all axes of length one", exported=False)
def squeezed() -> nn.Module:
    class Squeezed(Body):
        def forward(self, x: Tensor) -> Tensor:
            return self.head.dense(nn.functional.adaptive_avg_pool2d(self.body(x), 1).squeeze())

    return Squeezed()


@network("a branch on a shape that is known")
def branch_on_a_shape() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x, 2) if x.shape[-1] > 8 else x

    return chain(forward)


@network("a branch on the pixels", exported=False, alone=True)
def branch_on_pixels() -> nn.Module:
    class Branch(Body):
        def forward(self, x: Tensor) -> Tensor:
            maps = self.body(x)
            return self.head(maps * 2 if maps.mean() > 0.1 else maps)

    return Branch()


@network("dropout and BatchNorm left in training mode", exported=False)
def left_in_training() -> nn.Module:
    class Training(Body):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(nn.functional.dropout(self.body(x), 0.3, training=True))

    return Training()


@network("a second input with a default", exported=False)
def second_input() -> nn.Module:
    class Two(Body):
        def forward(self, x: Tensor, scale: float = 1.5) -> Tensor:
            return self.head(self.body(x) * scale)

    return Two()


@network("a counter that every call changes", exported=False)
def counter() -> nn.Module:
    class Counting(Body):
        def __init__(self) -> None:
            super().__init__()
            self.calls: Tensor
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    return Counting()


@network("the input changed in place", exported=False)
def input_in_place() -> nn.Module:
    class Changed(Body):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5).mul_(2.0))

    return Changed()
