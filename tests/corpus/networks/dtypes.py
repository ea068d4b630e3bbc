"""Types of numbers: half and double networks, integers, masks, and complex numbers."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head, chain, features
from tests.corpus.registry import network
from torch import Tensor, nn


@network("a network in float16", exported=False, slack=300)
def half() -> nn.Module:
    return chain(nn.Identity()).half()


@network("a network in bfloat16", exported=False, slack=3000)
def bfloat16() -> nn.Module:
    return chain(nn.Identity()).bfloat16()


@network("a network in float64", exported=False)
def double() -> nn.Module:
    return chain(nn.Identity()).double()


@network("one part in float64")
def double_inside() -> nn.Module:
    return chain(lambda x: (x.double() / 3).float())


@network("one part in float16, as autocast leaves it")
def half_inside() -> nn.Module:
    return chain(lambda x: x.half().float())


@network("an output in float16", exported=False, slack=100)
def half_output() -> nn.Module:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(features(), Head(32))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).half()

    return Half()


@network("masks: where, masked fill and comparisons")
def masks() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        high = x > x.mean((2, 3), keepdim=True)
        return torch.where(high, x, torch.zeros_like(x)).masked_fill(x > 1.5, 1.5) + 0.1 * high.float()

    return chain(forward)


@network("integers: positions, remainders and a table of embeddings")
def integers() -> nn.Module:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            places = torch.arange(x.shape[3]) % 8
            return x + 0.1 * self.table(places).T[None, :, None]

    return chain(Positions())


@network("statistics: variance, quantile by sorting, log-sum-exp")
def statistics() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        flat = x.flatten(2)
        median = flat.sort(-1)[0][..., flat.shape[-1] // 2]
        extra = flat.var(-1, unbiased=True) + median - 0.1 * flat.logsumexp(-1)
        return x + extra[..., None, None]

    return chain(forward)


@network("the median operator")
def median() -> nn.Module:
    return chain(lambda x: x + x.flatten(2).median(-1)[0][..., None, None])


@network("magnitudes of a Fourier transform")
def fourier() -> nn.Module:
    return chain(lambda x: torch.fft.rfft2(x).abs()[..., :8] / 16)


@network("trigonometric functions and powers")
def trigonometry() -> nn.Module:
    return chain(lambda x: torch.sin(x) + torch.cos(2 * x) * x.abs().pow(0.5) + torch.atan2(x, x + 2))
