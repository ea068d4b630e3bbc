"""Activations between two convolutions."""

from __future__ import annotations

import torch
from tests.corpus.blocks import STEM, chain
from tests.corpus.registry import network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def _act(layer: nn.Module) -> nn.Module:
    return chain(layer, act=nn.Identity)


@network("ReLU6")
def relu6() -> nn.Module:
    return _act(nn.ReLU6())


@network("hard swish, the operator")
def hard_swish() -> nn.Module:
    return _act(nn.Hardswish())


@network("hard swish, written as x · relu6(x + 3) / 6")
def hard_swish_written_out() -> nn.Module:
    return chain(lambda x: x * F.relu6(x + 3) / 6, act=nn.Identity)


@network("hard sigmoid as a gate")
def hard_sigmoid_gate() -> nn.Module:
    return chain(lambda x: x * F.hardsigmoid(x.mean((2, 3), keepdim=True)))


@network("SiLU")
def silu() -> nn.Module:
    return _act(nn.SiLU())


@network("Mish")
def mish() -> nn.Module:
    return _act(nn.Mish())


@network("GELU, exact")
def gelu() -> nn.Module:
    return _act(nn.GELU())


@network("GELU, tanh approximation")
def gelu_tanh() -> nn.Module:
    return _act(nn.GELU(approximate="tanh"))


@network("GELU, sigmoid approximation, x · sigmoid(1.702 x)")
def quick_gelu() -> nn.Module:
    return chain(lambda x: x * torch.sigmoid(1.702 * x), act=nn.Identity)


@network("ELU")
def elu() -> nn.Module:
    return _act(nn.ELU(0.7))


@network("CELU")
def celu() -> nn.Module:
    return _act(nn.CELU(1.3))


@network("SELU")
def selu() -> nn.Module:
    return _act(nn.SELU())


@network("softplus")
def softplus() -> nn.Module:
    return _act(nn.Softplus(beta=2.0))


@network("PReLU, one slope per channel")
def prelu() -> nn.Module:
    return _act(nn.PReLU(STEM, init=0.1))


@network("leaky ReLU")
def leaky_relu() -> nn.Module:
    return _act(nn.LeakyReLU(0.1))


@network("tanh")
def tanh() -> nn.Module:
    return _act(nn.Tanh())


@network("log of the sigmoid")
def log_sigmoid() -> nn.Module:
    return _act(nn.LogSigmoid())


@network("GLU: half of the channels gate the other half")
def glu() -> nn.Module:
    return chain(nn.GLU(dim=1), STEM // 2, act=nn.Identity)


@network("a ReLU with a threshold, and a clamp by tensors")
def thresholds() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        return torch.minimum(F.threshold(x, 0.1, 0.0), torch.full_like(x, 1.5))

    return chain(forward, act=nn.Identity)


@network("squared ReLU")
def squared_relu() -> nn.Module:
    return chain(lambda x: F.relu(x).square(), act=nn.Identity)


@network("StarReLU: a scaled and shifted squared ReLU with learnt numbers")
def star_relu() -> nn.Module:
    return chain(StarReLU(), act=nn.Identity)


class StarReLU(nn.Module):
    """s · relu(x)² + b, https://arxiv.org/abs/2210.13452."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.8944))
        self.bias = nn.Parameter(torch.tensor(-0.4472))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.relu(x) ** 2 + self.bias
