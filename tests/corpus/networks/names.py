"""Names of parameters, buffers and modules that meet names of the graph."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head, features
from tests.corpus.registry import POINTS, network
from torch import Tensor, nn


class Named(nn.Module):
    """Adds a parameter and a buffer with given names to the landmarks; a mean over the map has the exporter's name."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.body, self.head, self.names = features(), Head(32), names
        for number, name in enumerate(names):
            value = 0.01 * torch.rand(1, 2 * POINTS)
            if number % 2:
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, nn.Parameter(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)) + sum(getattr(self, name) for name in self.names)


@network("`input` and `output`", exported=False)
def inputs_and_outputs() -> nn.Module:
    return Named("input", "output")


@network("`landmarks` and `heatmaps`", exported=False)
def landmarks_and_heatmaps() -> nn.Module:
    return Named("landmarks", "heatmaps")


@network("`mean` and `std`, as timm names them", exported=False)
def mean_and_std() -> nn.Module:
    return Named("mean", "std")


@network("`conv2d`, `relu` and `linear`, the exporter's names for values", exported=False)
def values_of_the_exporter() -> nn.Module:
    return Named("conv2d", "relu", "linear")


@network("a module `net` in a module `net`, beside `net2`", exported=False)
def net_in_net() -> nn.Module:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.bias = features(), nn.Parameter(torch.zeros(1, 32, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + self.bias

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.net2, self.bias = Inner(), Head(32), nn.Parameter(0.01 * torch.rand(2 * POINTS))

        def forward(self, x: Tensor) -> Tensor:
            return self.net2(self.net(x)) + self.bias

    return Outer()


@network("names with other letters than ASCII", exported=False)
def other_letters() -> nn.Module:
    return Named("größe", "平均")


@network("a module in a dict under a name with dashes and spaces", exported=False)
def dashes_and_spaces() -> nn.Module:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"stage-1 (stem)": features(), "head/68": Head(32)})

        def forward(self, x: Tensor) -> Tensor:
            for part in self.parts.values():
                x = part(x)
            return x

    return Branches()
