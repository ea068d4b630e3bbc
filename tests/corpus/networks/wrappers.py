"""Networks inside the wrappers and hooks of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from tests.corpus.blocks import Head, chain, conv, features
from tests.corpus.registry import network
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@network("DataParallel", exported=False)
def data_parallel() -> nn.Module:
    return nn.DataParallel(chain(nn.Identity()))


@network("`torch.compile`", exported=False)
def compiled() -> Any:
    return torch.compile(chain(nn.Identity()))


@network("a part compiled by TorchScript", exported=False)
def scripted_part() -> nn.Module:
    return nn.Sequential(torch.jit.script(features().eval()), Head(32))


@network("activation checkpointing")
def checkpointed() -> nn.Module:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = features(), Head(32)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(self.body, x, use_reentrant=False))

    return Checkpointed()


@network("autocast inside forward", exported=False)
def autocast() -> nn.Module:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = features(), Head(32)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return self.head(self.body(x))

    return Cast()


@network("a lazy layer, whose size the first call decides", exported=False)
def lazy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(features(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(136))


@network("one layer used twice", exported=False)
def used_twice() -> nn.Module:
    torch.manual_seed(0)
    layer = conv(16, 16)
    return nn.Sequential(conv(3, 16, 2), layer, layer, conv(16, 32, 2), Head(32))


@network("prepared for quantisation-aware training", exported=False)
def quantisation_aware() -> nn.Module:
    from torch.ao import quantization

    body = nn.Sequential(quantization.QuantStub(), chain(nn.Identity()), quantization.DeQuantStub()).train()
    body.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(body)


@network("pruned by a mask", exported=False)
def pruned() -> nn.Module:
    from torch.nn.utils import prune

    layer = nn.Conv2d(16, 16, 3, padding=1)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return chain(layer)


@network("a forward hook that changes the features", exported=False)
def hooked() -> nn.Module:
    body = features()
    body.register_forward_hook(lambda module, inputs, output: output * 1.5)
    return nn.Sequential(body, Head(32))


@network("weights in memory order `channels_last`", exported=False)
def channels_last() -> nn.Module:
    return chain(nn.Identity()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@network("a custom autograd function", exported=False)
def autograd_function() -> nn.Module:
    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return x.round(decimals=1)

        @staticmethod
        def backward(_: Any, *gradients: Tensor) -> Tensor:
            return gradients[0]

    return chain(lambda x: x + 0.1 * Straight.apply(x))
