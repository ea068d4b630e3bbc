"""SPIGA, https://arxiv.org/abs/2210.07233: a cascade that reads features at the landmarks and mixes them on a graph."""

from __future__ import annotations

import torch
from tests.corpus.blocks import Head, conv
from tests.corpus.registry import POINTS, network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

WIDTH, CROP, STEPS = 32, 3, 3


class GraphLayer(nn.Module):
    """Attention between landmarks, and a perceptron of the landmark and its message."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(3))
        self.mix = nn.Sequential(
            nn.Conv1d(2 * WIDTH, WIDTH, 1), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Conv1d(WIDTH, WIDTH, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.einsum("ncl,ncm->nlm", self.query(x), self.key(x)) / WIDTH**0.5
        message = torch.einsum("nlm,ncm->ncl", weights.softmax(-1), self.value(x))
        return x + self.mix(torch.cat([x, message], 1))


class Step(nn.Module):
    """One step of the cascade: crops around the landmarks, the shape, the graph, and offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.crop = nn.Conv2d(WIDTH, WIDTH, CROP)
        self.shape, self.graph = nn.Conv1d(2, WIDTH, 1), nn.Sequential(GraphLayer(), GraphLayer())
        self.offsets = nn.Conv1d(WIDTH, 2, 1)
        line = torch.linspace(-0.1, 0.1, CROP)
        self.register_buffer("window", torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).flatten(0, 1))

    def forward(self, maps: Tensor, points: Tensor) -> Tensor:
        count = maps.shape[0]
        grid = 2 * points[:, :, None] - 1 + self.window
        crops = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
        crops = crops.permute(0, 2, 1, 3).reshape(count * POINTS, WIDTH, CROP, CROP)
        seen = self.crop(crops).view(count, POINTS, WIDTH).transpose(1, 2)
        features = self.graph(seen + self.shape((points - points.mean(1, keepdim=True)).transpose(1, 2)))
        return points + 0.05 * self.offsets(features).transpose(1, 2)


class Spiga(nn.Module):
    """A body, a first guess, and three steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(conv(3, 32, 2), conv(32, 64, 2), conv(64, WIDTH))
        self.guess, self.steps = Head(WIDTH), nn.ModuleList(Step() for _ in range(STEPS))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(x)
        points = self.guess(maps).view(-1, POINTS, 2)
        for step in self.steps:
            points = step(maps, points)
        return points


@network("SPIGA's cascade with a graph of landmarks", exported=False, size=(64, 64))
def spiga() -> nn.Module:
    return Spiga()
