"""PIPNet, https://arxiv.org/abs/2003.03771: scores and offsets on a coarse grid, and the guesses of neighbours."""

from __future__ import annotations

import torch
from tests.corpus.blocks import conv
from tests.corpus.registry import POINTS, network
from torch import Tensor, nn

GRID, NEIGHBOURS = 8, 5


class PipNet(nn.Module):
    """A ResNet-like body and five 1x1 convolutions, decoded to (N, L, 2) fractions of the input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(conv(3, 32, 2), conv(32, 64, 2), conv(64, 64), conv(64, 128, 2), conv(128, 128))
        self.score, self.x, self.y = (nn.Conv2d(128, POINTS, 1) for _ in range(3))
        self.neighbour_x, self.neighbour_y = (nn.Conv2d(128, POINTS * NEIGHBOURS, 1) for _ in range(2))
        nn.init.normal_(self.score.weight, std=1.0)
        order = torch.stack([torch.randperm(POINTS)[:NEIGHBOURS] for _ in range(POINTS)])
        self.register_buffer("readers", order)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(x)
        cell = self.score(maps).flatten(2).argmax(2, keepdim=True)
        column, row = (cell % GRID).float(), torch.div(cell, GRID, rounding_mode="floor").float()
        own = [
            (place + 0.1 * layer(maps).flatten(2).gather(2, cell)) / GRID
            for layer, place in ((self.x, column), (self.y, row))
        ]
        wide = cell.repeat_interleave(NEIGHBOURS, 1)
        theirs = [
            (
                place.expand(-1, -1, NEIGHBOURS)
                + 0.1 * layer(maps).flatten(2).gather(2, wide).unflatten(1, (POINTS, -1)).squeeze(3)
            )
            / GRID
            for layer, place in ((self.neighbour_x, column), (self.neighbour_y, row))
        ]
        joined = [
            torch.cat([mine, guesses.flatten(1)[:, self.readers.flatten()].unflatten(1, (POINTS, NEIGHBOURS))], 2).mean(
                2
            )
            for mine, guesses in zip(own, theirs, strict=True)
        ]
        return torch.stack(joined, 2)


@network("PIPNet with neighbours", exported=False, size=(64, 64))
def pipnet() -> nn.Module:
    return PipNet()
