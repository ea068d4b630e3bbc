"""Normalisations of features, and of weights."""

from __future__ import annotations

import torch
from tests.corpus.blocks import STEM, Head, chain, conv
from tests.corpus.registry import network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@network("BatchNorm without scale and shift, then without statistics of its own")
def plain_batch_norm() -> nn.Module:
    return chain(nn.BatchNorm2d(STEM, affine=False))


@network("GroupNorm")
def group_norm() -> nn.Module:
    return chain(nn.GroupNorm(4, STEM))


@network("InstanceNorm with scale and shift")
def instance_norm() -> nn.Module:
    return chain(nn.InstanceNorm2d(STEM, affine=True))


@network("LayerNorm over channels, with two transpositions (ConvNeXt)")
def channels_last_norm() -> nn.Module:
    return chain(ChannelsLast(nn.LayerNorm(STEM)))


class ChannelsLast(nn.Module):
    """Applies a module to (N, H, W, C)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@network("LayerNorm over channels, written out with mean and variance")
def written_out_norm() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        return (x - mean) / (((x - mean) ** 2).mean(1, keepdim=True) + 1e-5).sqrt()

    return chain(forward)


@network("RMS norm over channels")
def rms_norm() -> nn.Module:
    return chain(ChannelsLast(nn.RMSNorm(STEM)))


@network("local response norm (AlexNet)")
def local_response_norm() -> nn.Module:
    return chain(nn.LocalResponseNorm(3))


@network("division by the length of the channel vector (SSD, RetinaFace)")
def unit_length() -> nn.Module:
    return chain(lambda x: 10 * F.normalize(x, dim=1))


@network("global response norm (ConvNeXt V2)")
def global_response_norm() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        energy = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        return x + x * (energy / (energy.mean(1, keepdim=True) + 1e-6))

    return chain(forward)


@network("mean and standard deviation of the pixels inside the network")
def pixel_norm() -> nn.Module:
    return nn.Sequential(PixelNorm(), chain(nn.Identity()))


class PixelNorm(nn.Module):
    """Subtracts the mean and divides by the deviation of ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@network("weights standardised at every call")
def standardised_weights() -> nn.Module:
    return chain(StandardisedConv(STEM, STEM, 3, padding=1))


class StandardisedConv(nn.Conv2d):
    """A convolution whose filters have mean 0 and deviation 1, https://arxiv.org/abs/1903.10520."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        scale = self.weight.std((1, 2, 3), keepdim=True) + 1e-5
        return F.conv2d(x, (self.weight - mean) / scale / 12, self.bias, padding=1)


@network("weight norm, as a parametrisation")
def weight_norm() -> nn.Module:
    norm = nn.utils.parametrizations.weight_norm
    return chain(norm(nn.Conv2d(STEM, STEM, 3, padding=1)))


@network("spectral norm, as a parametrisation")
def spectral_norm() -> nn.Module:
    norm = nn.utils.parametrizations.spectral_norm
    return chain(norm(nn.Conv2d(STEM, STEM, 3, padding=1)))


@network("a BatchNorm before the convolution, and one alone after a sum")
def loose_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(3), conv(3, STEM, 2), Residual(), nn.BatchNorm2d(STEM), conv(STEM, 32, 2), Head(32)
    )


class Residual(nn.Module):
    """A sum of the input and two convolutions of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(STEM, STEM), conv(STEM, STEM, act=nn.Identity))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
