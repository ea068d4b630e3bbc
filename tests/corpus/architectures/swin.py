"""Swin, https://arxiv.org/abs/2103.14030: attention in shifted windows, relative positions, merged patches."""

from __future__ import annotations

import torch
from tests.corpus.registry import POINTS, network
from torch import Tensor, nn

WINDOW, HEADS = 4, 2


def _windows(x: Tensor) -> Tensor:
    """Returns (N * windows, WINDOW², C) of (N, H, W, C)."""
    count, height, width, channels = x.shape
    x = x.view(count, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW * WINDOW, channels)


def _map(windows: Tensor, height: int, width: int) -> Tensor:
    """Returns (N, H, W, C) of windows."""
    channels = windows.shape[-1]
    x = windows.view(-1, height // WINDOW, width // WINDOW, WINDOW, WINDOW, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)


def _relative() -> Tensor:
    """Returns the index of the relative position of each pair of pixels in a window, (WINDOW², WINDOW²)."""
    places = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")).flatten(1)
    offsets = places[:, :, None] - places[:, None] + WINDOW - 1
    return offsets[0] * (2 * WINDOW - 1) + offsets[1]


def _mask(side: int, shift: int) -> Tensor:
    """Returns the mask that keeps pixels from opposite borders apart, (windows, WINDOW², WINDOW²)."""
    region = torch.zeros(1, side, side, 1)
    limits = (slice(0, -WINDOW), slice(-WINDOW, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((rows, columns) for rows in limits for columns in limits):
        region[:, rows, columns] = number
    ids = _windows(region).squeeze(-1)
    return torch.where(ids[:, None] == ids[:, :, None], 0.0, -100.0)


class Block(nn.Module):
    """Attention in windows, shifted by half a window or not, and a perceptron."""

    def __init__(self, channels: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift, self.scale = side, shift, (channels // HEADS) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        self.table = nn.Parameter(0.1 * torch.randn((2 * WINDOW - 1) ** 2, HEADS))
        self.relative: Tensor
        self.mask: Tensor | None
        self.register_buffer("relative", _relative())
        self.register_buffer("mask", _mask(side, shift) if shift else None)

    def attention(self, x: Tensor) -> Tensor:
        count, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, HEADS, channels // HEADS).permute(2, 0, 3, 1, 4)
        bias = self.table[self.relative.view(-1)].view(tokens, tokens, HEADS).permute(2, 0, 1)
        weights = qkv[0] * self.scale @ qkv[1].transpose(-2, -1) + bias
        if self.mask is not None:
            groups = self.mask.shape[0]
            weights = weights.view(count // groups, groups, HEADS, tokens, tokens) + self.mask[:, None]
            weights = weights.view(count, HEADS, tokens, tokens)
        return self.project((weights.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(count, tokens, channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm1(x)
        if self.shift:
            inner = torch.roll(inner, (-self.shift, -self.shift), (1, 2))
        inner = _map(self.attention(_windows(inner)), self.side, self.side)
        if self.shift:
            inner = torch.roll(inner, (self.shift, self.shift), (1, 2))
        x = x + inner
        return x + self.perceptron(self.norm2(x))


class Merge(nn.Module):
    """Joins every four neighbours, and halves the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.dense = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.dense(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """Two stages of two blocks, a mean over the tokens, and a dense head."""

    def __init__(self, side: int, channels: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        grid = side // 4
        self.patches, self.norm = nn.Conv2d(3, channels, 4, 4), nn.LayerNorm(channels)
        self.first = nn.Sequential(Block(channels, grid, 0), Block(channels, grid, WINDOW // 2), Merge(channels))
        self.second = nn.Sequential(Block(2 * channels, grid // 2, 0), Block(2 * channels, grid // 2, WINDOW // 2))
        self.last, self.head = nn.LayerNorm(2 * channels), nn.Linear(2 * channels, 2 * POINTS)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.second(self.first(self.norm(self.patches(x).permute(0, 2, 3, 1))))
        return 0.5 + 0.4 * self.head(self.last(tokens).mean((1, 2)))


@network("Swin blocks with shifted windows", exported=False, size=(64, 64))
def swin() -> nn.Module:
    return Swin(64)
