"""SimCC as in RTMPose, https://arxiv.org/abs/2303.07399: two vectors a landmark, mixed by a gated attention unit."""

from __future__ import annotations

import torch
from tests.corpus.blocks import conv
from tests.corpus.registry import POINTS, network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

WIDTH, BINS = 64, 128


class GatedAttention(nn.Module):
    """Attention with a squared ReLU in place of the softmax, gated by a second branch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.expand, self.project = nn.Linear(WIDTH, 2 * WIDTH + 32), nn.Linear(WIDTH, WIDTH)
        self.gamma, self.beta = nn.Parameter(torch.rand(2, 32)), nn.Parameter(torch.zeros(2, 32))

    def forward(self, x: Tensor) -> Tensor:
        norm = x / x.norm(dim=-1, keepdim=True).clamp(min=1e-5) * WIDTH**0.5 * self.scale
        gate, value, base = F.silu(self.expand(norm)).split([WIDTH, WIDTH, 32], -1)
        query, key = (base[..., None, :] * self.gamma + self.beta).unbind(-2)
        weights = F.relu(query @ key.transpose(1, 2) / 32**0.5).square() / POINTS
        return x + self.project(gate * (weights @ value))


class SimCC(nn.Module):
    """A body, one token a landmark, and one classifier for each axis, decoded by the mean position."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(conv(3, 32, 2), conv(32, 64, 2), conv(64, 128, 2, act=nn.SiLU), conv(128, 128))
        self.final = nn.Conv2d(128, POINTS, 7, padding=3)
        self.dense, self.attention = nn.Linear(64, WIDTH, bias=False), GatedAttention()
        self.x, self.y = nn.Linear(WIDTH, BINS, bias=False), nn.Linear(WIDTH, BINS, bias=False)
        self.register_buffer("places", torch.arange(BINS) / BINS)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.attention(self.dense(self.final(self.body(x)).flatten(2)))
        vectors = torch.stack([self.x(tokens), self.y(tokens)], 2)
        return ((8 * vectors).softmax(-1) * self.places).sum(-1)


@network("SimCC head with gated attention (RTMPose)", exported=False, size=(64, 64))
def simcc() -> nn.Module:
    return SimCC()
