"""Landmarks from maps and vectors, decoded inside the network."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head, conv, features
from tests.corpus.registry import POINTS, network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

MAP = 8
"""Height and width of the maps."""


class Maps(nn.Module):
    """One map a landmark, scaled so that a softmax has a clear peak."""

    def __init__(self, channels: int = POINTS) -> None:
        super().__init__()
        self.body, self.maps = features(), nn.Conv2d(32, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return 6 * self.maps(self.body(x))


@network("mean position under a softmax (soft-argmax)")
def soft_argmax() -> nn.Module:
    class Soft(Maps):
        def forward(self, x: Tensor) -> Tensor:
            weights = super().forward(x).flatten(2).softmax(-1).unflatten(2, (MAP, MAP))
            places = torch.arange(MAP, dtype=weights.dtype) / MAP
            return torch.stack([(weights.sum(2) * places).sum(-1), (weights.sum(3) * places).sum(-1)], -1)

    return Soft()


@network("cell of the maximum and offsets at this cell (PIPNet)")
def offsets_at_the_maximum() -> nn.Module:
    class Offsets(Maps):
        def __init__(self) -> None:
            super().__init__(3 * POINTS)

        def forward(self, x: Tensor) -> Tensor:
            scores, right, down = super().forward(x).flatten(2).chunk(3, 1)
            cell = scores.argmax(2, keepdim=True)
            right, down = right.gather(2, cell).squeeze(2), down.gather(2, cell).squeeze(2)
            column, row = (cell % MAP).squeeze(2), torch.div(cell, MAP, rounding_mode="floor").squeeze(2)
            return torch.stack([(column + 0.02 * right) / MAP, (row + 0.02 * down) / MAP], 2)

    return Offsets()


@network("mean position of the four largest cells")
def largest_cells() -> nn.Module:
    class Largest(Maps):
        def forward(self, x: Tensor) -> Tensor:
            value, cell = super().forward(x).flatten(2).topk(4, -1)
            weight = value.softmax(-1)
            return torch.stack([(weight * (cell % MAP)).sum(-1), (weight * (cell // MAP)).sum(-1)], -1) / MAP

    return Largest()


@network("two vectors a landmark, decoded by soft-argmax (SimCC)")
def simcc() -> nn.Module:
    class SimCC(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.dense = features(), nn.Linear(64, 2 * MAP * 4)
            self.maps = nn.Conv2d(32, POINTS, 1)

        def forward(self, x: Tensor) -> Tensor:
            vectors = self.dense(self.maps(self.body(x)).flatten(2)).unflatten(2, (2, MAP * 4)).softmax(-1)
            return (vectors * torch.linspace(0, 1, MAP * 4)).sum(-1)

    return SimCC()


@network("heatmaps, decoded by lmconv (`--decode argmax`)", options={"decode": "argmax"})
def heatmaps() -> nn.Module:
    return Maps()


@network("coordinates as two further channels (CoordConv)")
def coordinate_channels() -> nn.Module:
    class Coord(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(conv(5, 16, 2), conv(16, 32, 2), Head(32))

        def forward(self, x: Tensor) -> Tensor:
            count, _, height, width = x.shape
            line, row = torch.linspace(-1, 1, width), torch.linspace(-1, 1, height)
            columns = line.view(1, 1, 1, -1).expand(count, 1, height, width)
            return self.body(torch.cat([x, columns, row.view(1, 1, -1, 1).expand_as(columns)], 1))

    return Coord()


@network("offsets from a mean shape in a buffer")
def mean_shape() -> nn.Module:
    class Shape(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(features(), Head(32))
            self.register_buffer("mean_shape", torch.rand(1, POINTS, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.mean_shape + 0.3 * self.body(x).unflatten(1, (POINTS, 2))

    return Shape()


@network("a spatial transformer: the network turns its own map")
def spatial_transformer() -> nn.Module:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.turn, self.rest = features(), Head(32, 6), nn.Sequential(conv(32, 32), Head(32))
            self.register_buffer("still", torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))

        def forward(self, x: Tensor) -> Tensor:
            maps = self.body(x)
            matrix = 0.1 * self.turn(maps).unflatten(1, (2, 3)) + self.still
            grid = F.affine_grid(matrix, list(maps.shape), align_corners=False)
            return self.rest(F.grid_sample(maps, grid, align_corners=False))

    return Turned()


@network("features at the points of a first guess, and a correction (cascade)")
def features_at_points() -> nn.Module:
    class Cascade(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.guess, self.fix = features(), Head(32), nn.Linear(32, 2)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.body(x)
            points = self.guess(maps).unflatten(1, (POINTS, 2))
            at_points = F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False).squeeze(3)
            return points + 0.05 * self.fix(at_points.transpose(1, 2))

    return Cascade()


@network("all pixels into one dense layer (PFLD without a mean)")
def flat_dense() -> nn.Module:
    torch.manual_seed(0)
    dense = nn.Linear(32 * MAP * MAP, 2 * POINTS)
    nn.init.normal_(dense.weight, std=0.005)
    nn.init.uniform_(dense.bias, 0.3, 0.7)
    return nn.Sequential(features(), nn.Flatten(), dense)


@network("means of three scales joined (PFLD)")
def three_scales() -> nn.Module:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two, self.three = conv(3, 16, 2), conv(16, 32, 2), nn.Conv2d(32, 64, 8)
            self.dense = nn.Linear(16 + 32 + 64, 2 * POINTS)

        def forward(self, x: Tensor) -> Tensor:
            one = self.one(x)
            two = self.two(one)
            means = [one.mean((2, 3)), two.mean((2, 3)), self.three(two).relu().flatten(1)]
            return 0.5 + 0.2 * self.dense(torch.cat(means, 1)).tanh()

    return Scales()


@network("output (N, 2L, 1, 1) of a 1x1 convolution")
def convolution_head() -> nn.Module:
    return nn.Sequential(features(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 2 * POINTS, 1))


@network("x and y of all landmarks in two halves, joined at the end")
def two_halves() -> nn.Module:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(features(), Head(32))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack(self.body(x).chunk(2, 1), 2)

    return Halves()
