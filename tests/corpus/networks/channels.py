"""Splits, joins and moves of channels and pixels."""

from __future__ import annotations

import torch
from tests.corpus.blocks import STEM, chain, conv
from tests.corpus.registry import network
from torch import Tensor, nn


@network("channel shuffle (ShuffleNet)")
def channel_shuffle() -> nn.Module:
    return chain(lambda x: x.unflatten(1, (2, STEM // 2)).transpose(1, 2).flatten(1, 2))


@network("chunk, one half through a convolution, joined again")
def chunk() -> nn.Module:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = conv(STEM // 2, STEM // 2)

        def forward(self, x: Tensor) -> Tensor:
            left, right = x.chunk(2, 1)
            return torch.cat([left, self.body(right)], 1)

    return chain(Halves())


@network("split in unequal parts, joined in another order")
def unequal_split() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        one, two, three = x.split([4, 10, 2], 1)
        return torch.cat([three, one, two], 1)

    return chain(forward)


@network("scales one after another (Res2Net)")
def scales() -> nn.Module:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleList(conv(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            first, *others = x.split(4, 1)
            outputs = [first]
            for layer, part in zip(self.body, others, strict=True):
                outputs.append(layer(part + outputs[-1]))
            return torch.cat(outputs, 1)

    return chain(Scales())


@network("every second pixel as channels (Focus)")
def focus() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        return torch.cat([x[..., row::2, column::2] for row in (0, 1) for column in (0, 1)], 1)

    return chain(forward, 4 * STEM)


@network("the image and its mirror image")
def mirrored() -> nn.Module:
    return chain(lambda x: x + x.flip(3))


@network("roll by half a window (Swin)")
def rolled() -> nn.Module:
    return chain(lambda x: x.roll((-2, -2), (2, 3)))


@network("channels chosen by an index")
def indexed() -> nn.Module:
    order = torch.tensor([3, 1, 0, 2, 8, 7, 5, 11])
    return chain(lambda x: x.index_select(1, order), len(order))


@network("maximum and minimum of two halves (maxout)")
def maxout() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        one, two = x.chunk(2, 1)
        return torch.cat([torch.maximum(one, two), torch.minimum(one, two)], 1)

    return chain(forward)


@network("shift of pixels, as a padded slice")
def shifted() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        return x + nn.functional.pad(x[..., :-1], (1, 0)) - nn.functional.pad(x[..., 1:], (0, 1))

    return chain(forward)


@network("parts of a map changed in place")
def in_place() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :4] = x[:, :4] * 2
        x[:, 4:8, ::2] += 0.5
        return x

    return chain(forward)


@network("a product with a matrix of positions (einsum)")
def einsum() -> nn.Module:
    torch.manual_seed(1)
    matrix = torch.randn(STEM, STEM) / STEM**0.5
    return chain(lambda x: torch.einsum("nchw,cd->ndhw", x, matrix))
