"""Gates and attention."""

from __future__ import annotations

import torch
from tests.corpus.blocks import STEM, chain
from tests.corpus.registry import network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Gate(nn.Module):
    """Multiplies the input by a gate that a module computes from it."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


@network("squeeze and excitation, with 1x1 convolutions")
def squeeze_excite() -> nn.Module:
    layers = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(STEM, 4, 1), nn.ReLU(), nn.Conv2d(4, STEM, 1), nn.Sigmoid()]
    return chain(Gate(nn.Sequential(*layers)))


@network("squeeze and excitation, with dense layers")
def dense_squeeze_excite() -> nn.Module:
    layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(STEM, 4), nn.ReLU(), nn.Linear(4, STEM)]
    return chain(Gate(nn.Sequential(*layers, nn.Hardsigmoid(), nn.Unflatten(1, (STEM, 1, 1)))))


@network("a convolution over channels (ECA)")
def efficient_channel_attention() -> nn.Module:
    class Eca(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv1d(1, 1, 3, padding=1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean((2, 3))
            return self.body(mean[:, None])[:, 0].sigmoid()[..., None, None]

    return chain(Gate(Eca()))


@network("mean and maximum over channels as a map (CBAM)")
def spatial_attention() -> nn.Module:
    class Spatial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(2, 1, 7, padding=3)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()

    return chain(Gate(Spatial()))


@network("means of rows and columns (coordinate attention)")
def coordinate_attention() -> nn.Module:
    class Coordinates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(STEM, 8, 1), nn.BatchNorm2d(8), nn.Hardswish())
            self.rows, self.columns = nn.Conv2d(8, STEM, 1), nn.Conv2d(8, STEM, 1)

        def forward(self, x: Tensor) -> Tensor:
            height, width = x.shape[2:]
            both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2)
            rows, columns = self.body(both).split([height, width], 2)
            return self.rows(rows).sigmoid() * self.columns(columns.transpose(2, 3)).sigmoid()

    return chain(Gate(Coordinates()))


class Tokens(nn.Module):
    """Applies a module to the pixels as tokens, (N, 256, 16), and adds its result."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.max_pool2d(x, 2).flatten(2).transpose(1, 2)
        return (tokens + self.inner(tokens)).transpose(1, 2).unflatten(2, (8, 8))


@network("self-attention, written out")
def self_attention() -> nn.Module:
    class SelfAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(STEM, 3 * STEM), nn.Linear(STEM, STEM)

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = self.qkv(x).unflatten(2, (3, 2, STEM // 2)).permute(2, 0, 3, 1, 4)
            weights = (query @ key.transpose(2, 3) * (STEM // 2) ** -0.5).softmax(-1)
            return self.out((weights @ value).transpose(1, 2).flatten(2))

    return chain(Tokens(SelfAttention()))


@network("`nn.MultiheadAttention`")
def multihead_attention() -> nn.Module:
    class Multihead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.MultiheadAttention(STEM, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x, x, x, need_weights=False)[0]

    return chain(Tokens(Multihead()))


@network("`scaled_dot_product_attention`")
def fused_attention() -> nn.Module:
    return chain(Tokens(FusedAttention()))


class FusedAttention(nn.Module):
    """One head of attention by PyTorch's fused function."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(STEM, 3 * STEM)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x)[:, None].chunk(3, -1)
        return F.scaled_dot_product_attention(query, key, value)[:, 0]


@network("`nn.TransformerEncoderLayer`, LayerNorm first")
def transformer_layer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(STEM, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
    return chain(Tokens(layer))


@network("attention in windows of 4x4 with a bias of positions (Swin)")
def window_attention() -> nn.Module:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = FusedAttention()
            self.bias = nn.Parameter(torch.randn(16, STEM) * 0.1)

        def forward(self, x: Tensor) -> Tensor:
            count, channels, height, width = x.shape
            windows = x.view(count, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
            tokens = self.attention(windows.reshape(-1, 16, channels) + self.bias)
            grid = tokens.view(count, height // 4, width // 4, 4, 4, channels)
            return grid.permute(0, 5, 1, 3, 2, 4).reshape(count, channels, height, width)

    return chain(Windows())


@network("linear attention: softmax of queries and of keys")
def linear_attention() -> nn.Module:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(STEM, 3 * STEM)

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = self.qkv(x).chunk(3, -1)
            return query.softmax(-1) @ (key.softmax(1).transpose(1, 2) @ value)

    return chain(Tokens(Linear()))


@network("filters that the image chooses (dynamic convolution)")
def dynamic_filters() -> nn.Module:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.choice = nn.Linear(STEM, 4)
            self.filters = nn.Parameter(torch.randn(4, STEM, STEM) / STEM**0.5)

        def forward(self, x: Tensor) -> Tensor:
            weights = self.choice(x.mean((2, 3))).softmax(1)
            filters = (weights @ self.filters.flatten(1)).view(-1, STEM, STEM)
            return (filters @ x.flatten(2)).view_as(x)

    return chain(Dynamic())
