"""STAR, https://arxiv.org/abs/2306.02763: an hourglass with CoordConv that also sees its own boundary maps."""

from __future__ import annotations

import torch
from tests.corpus.registry import POINTS, network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

EDGES, WIDTH = 13, 32


class CoordConv(nn.Module):
    """Adds two channels of coordinates, the radius, and the coordinates where a boundary is, before a convolution."""

    def __init__(self, inputs: int, outputs: int, edges: bool) -> None:
        super().__init__()
        self.edges = edges
        self.layer = nn.Conv2d(inputs + 3 + 2 * edges, outputs, 1)

    def forward(self, x: Tensor, boundary: Tensor | None = None) -> Tensor:
        count, _, height, width = x.shape
        columns = torch.linspace(-1, 1, width).view(1, 1, 1, width).expand(count, 1, height, width)
        rows = torch.linspace(-1, 1, height).view(1, 1, height, 1).expand(count, 1, height, width)
        radius = torch.sqrt(rows**2 + columns**2)
        extra = [columns, rows, radius / radius.max()]
        if self.edges and boundary is not None:
            mask = boundary.clamp(0, 1)
            near = mask > 0.05
            extra += [
                torch.where(near, columns, torch.zeros_like(columns)),
                torch.where(near, rows, torch.zeros_like(rows)),
            ]
        return self.layer(torch.cat([x, *extra], 1))


class Residual(nn.Module):
    """A bottleneck with InstanceNorm, as STAR's hourglass has them."""

    def __init__(self) -> None:
        super().__init__()
        half = WIDTH // 2
        self.body = nn.Sequential(
            nn.InstanceNorm2d(WIDTH, affine=True), nn.ReLU(), nn.Conv2d(WIDTH, half, 1),
            nn.InstanceNorm2d(half, affine=True), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1),
            nn.InstanceNorm2d(half, affine=True), nn.ReLU(), nn.Conv2d(half, WIDTH, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Hourglass(nn.Module):
    """One hourglass of some depth."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.up, self.low, self.back = Residual(), Residual(), Residual()
        self.inner = Hourglass(depth - 1) if depth > 1 else Residual()

    def forward(self, x: Tensor) -> Tensor:
        low = self.back(self.inner(self.low(F.max_pool2d(x, 2))))
        return self.up(x) + F.interpolate(low, scale_factor=2)


class Star(nn.Module):
    """A stem, an hourglass, maps of boundaries, and heatmaps whose mean positions are the landmarks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 7, 2, 3), nn.InstanceNorm2d(WIDTH, affine=True), nn.ReLU())
        self.coord, self.hourglass = CoordConv(WIDTH, WIDTH, edges=False), Hourglass(3)
        self.boundary, self.merge = nn.Conv2d(WIDTH, EDGES, 1), CoordConv(WIDTH + EDGES, WIDTH, edges=True)
        self.heat = nn.Conv2d(WIDTH, POINTS, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.hourglass(self.coord(self.stem(x)))
        edges = self.boundary(maps).sigmoid()
        maps = maps + self.merge(torch.cat([maps, edges], 1), edges.amax(1, keepdim=True))
        heat = F.relu(self.heat(maps))
        heat = heat / (heat.sum((2, 3), keepdim=True) + 1e-6)
        places = torch.linspace(0, 1, heat.shape[3])
        return torch.stack([(heat.sum(2) * places).sum(-1), (heat.sum(3) * places).sum(-1)], -1)


@network("STAR: CoordConv with boundary maps", exported=False, size=(64, 64))
def star() -> nn.Module:
    return Star()
