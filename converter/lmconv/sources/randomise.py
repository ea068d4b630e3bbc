"""Seeded random weights that make a network compute like a trained network: for parity, latency and size only.

Weights are drawn as in He et al. 2015 (https://arxiv.org/abs/1502.01852). The running statistics of each BatchNorm are
measured on noise, layer by layer, as in Mishkin and Matas 2016 (https://arxiv.org/abs/1511.06422). Without measured
statistics, activations would explode or vanish with depth, and a parity check would measure no useful differences.

The same seed gives the same bytes on every machine. Random numbers come from `Generator.random`, whose stream numpy
keeps stable. Measured values are computed in float64 and rounded to `BITS` bits, and two kernels of one operator differ
only in much lower bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmconv.sources.float64 import reproducible, scripted
from lmconv.types import Float64, Preprocess

BITS = 8
"""Number of mantissa bits of a measured value after rounding."""
CENTRED = 0.7
"""Fraction of a channel's mean that BatchNorm removes; removing the whole mean makes a random network chaotic."""
SHARED, FEW = 0.25, 8
"""Share of all channels' mean variance that is added to each channel's variance: max(SHARED, FEW / n).

n is the number of measured values per channel.
"""
SPREAD, REACH = 0.02, 0.5
"""Standard deviation of landmarks between inputs, and largest root mean square of the head's output before its bias.

Both are fractions of the input; the smaller resulting scale is used.
"""
PIXELS = 4 * 224**2
"""Total pixels of the noise inputs for measuring; the number of inputs is limited to 2 to 16."""


def randomise(
    network: nn.Module,
    size: tuple[int, int],
    seed: int,
    *,
    preprocess: Preprocess | None = None,
    largest: int | None = None,
) -> None:
    """Fills a network with seeded random weights, in place; of the buffers only running statistics change.

    If the landmarks are the output of one layer, at most reshaped, the weight of this layer is scaled and its bias is
    chosen: landmarks then lie around one half and differ between inputs. Heatmaps, and landmarks decoded from heatmaps,
    are not adjusted.

    Args:
        network: Network on the CPU; maps (N, 3, H, W) to landmarks (N, 2L) or (N, L, 2), or to a tuple that starts with
            the landmarks.
        size: (height, width) of the input, pixels.
        seed: Seed for weights and noise.
        preprocess: Pre-processing of the crops that the network will get. Crops with another pre-processing give
            landmarks far outside the input.
        largest: Largest batch that the network takes; None for any.
    """
    random = np.random.default_rng(seed)
    _draw(network, random)
    images = torch.from_numpy(_noise(random, size, preprocess or Preprocess()))
    images = (images.float() if scripted(network) else images)[:largest]
    with _measuring(network) as outputs:
        out = network(images)
    landmarks = out[0] if isinstance(out, tuple | list) and out else out
    if isinstance(landmarks, Tensor) and landmarks.shape[2:].numel() <= 2:
        for layer, values in outputs:
            if values.data_ptr() == landmarks.data_ptr() and values.numel() == landmarks.numel():
                _scale(layer, values)


def _draw(network: nn.Module, random: np.random.Generator) -> None:
    """Draws every parameter once, in the order of the state dict, and resets running statistics to (0, 1)."""
    drawn: set[Tensor] = set()
    for module in network.modules():
        for name, value in module.named_parameters(recurse=False):
            if value not in drawn and value.is_floating_point():
                low, high = _bounds(module, name, tuple(value.shape))
                value.data.copy_(torch.tensor(low + (high - low) * random.random(tuple(value.shape))))
            drawn.add(value)
        for start, statistic in enumerate(_statistics(module)):
            statistic.fill_(start)


def _bounds(module: nn.Module, name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Returns the (low, high) of a parameter's uniform distribution; a uniform number in ±sqrt(3 v) has variance v."""
    if name.endswith("bias"):
        return -0.2, 0.2
    if isinstance(module, nn.PReLU):
        return 0.1, 0.4
    if len(shape) < 2:
        return 0.5, 1.0
    inputs = float(np.prod(shape[1:]))
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        inputs = float(shape[0] * np.prod(shape[2:]) / np.prod(module.stride) / module.groups)
    return -float(np.sqrt(6 / inputs)), float(np.sqrt(6 / inputs))


def _noise(random: np.random.Generator, size: tuple[int, int], preprocess: Preprocess) -> Float64:
    """Returns (n, 3, *size) float64 noise: random squares of 1, 2, 4 and 8 pixels, pre-processed like crops."""
    images = np.empty((min(16, max(2, PIXELS // (size[0] * size[1]))), 3, *size))
    for index in range(len(images)):
        cell = 2 ** (index % 4)
        coarse = np.floor(256 * random.random((3, -(-size[0] // cell), -(-size[1] // cell))))
        images[index] = coarse.repeat(cell, 1).repeat(cell, 2)[:, : size[0], : size[1]]
    mean, std = np.reshape((preprocess.mean, preprocess.std), (2, 3, 1, 1))
    return np.asarray((images * preprocess.scale - mean) / std)


@contextmanager
def _measuring(network: nn.Module) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Makes forward passes set running statistics; yields a list that collects (layer, output) pairs."""
    outputs: list[tuple[nn.Module, Tensor]] = []

    def record(module: nn.Module, args: Any, out: Any) -> None:
        if isinstance(out, Tensor) and out.numel() <= 4096 * len(out):  # a larger output is not landmarks
            outputs.append((module, out))

    with ExitStack() as stack:
        for module in network.modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # TorchScript calls no hooks: its statistics stay (0, 1)
            if _statistics(module):
                stack.callback(module.register_forward_pre_hook(_set_statistics).remove)
            if isinstance(getattr(module, "weight", None), nn.Parameter):
                stack.callback(module.register_forward_hook(record).remove)
        stack.enter_context(reproducible(network))
        yield outputs


def _statistics(module: nn.Module) -> list[Tensor]:
    """Returns a BatchNorm's running mean and variance; an empty list for other modules."""
    buffers = [getattr(module, name, None) for name in ("running_mean", "running_var")]
    return [buffer for buffer in buffers if isinstance(buffer, Tensor)]


def _set_statistics(module: nn.Module, args: tuple[Tensor, ...]) -> None:
    """Sets a BatchNorm's statistics to give its output a second moment of about 1 before its own weight and bias."""
    x = args[0].transpose(0, 1).flatten(1).numpy()
    mean, var = x.mean(1), x.var(1)
    var = _rounded(var + max(SHARED, FEW / x.shape[1]) * var.mean() + ((1 - CENTRED) * mean) ** 2)
    step = 2.0 ** (np.frexp(np.sqrt(var))[1] - BITS)  # in units of the deviation: the mean may be noise around 0
    for statistic, value in zip(_statistics(module), (np.round(CENTRED * mean / step) * step, var), strict=True):
        statistic.copy_(torch.from_numpy(value))


def _scale(layer: nn.Module, values: Tensor) -> None:
    """Scales the last layer by its output `values`, (n, …) float64, and moves its bias to around one half.

    The drawn bias stays as the deviation of the mean landmarks from one half.
    """
    channels = -1 if isinstance(layer, nn.Linear) else 1
    products = values.movedim(channels, 1).reshape(len(values), values.shape[channels], -1).numpy()
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    if isinstance(bias, nn.Parameter):
        products = products - bias.data.double().numpy()[:, None]
    spread, reach = np.sqrt(products.var(0).mean()), np.sqrt(np.mean(products**2))
    scale = float(_rounded(min(SPREAD / max(spread, 1e-9), REACH / max(reach, 1e-9))))
    with torch.no_grad():
        weight.mul_(scale)
        if isinstance(bias, nn.Parameter):
            bias.add_(torch.from_numpy(0.5 - np.round(scale * products.mean((0, 2)) * 2**BITS) / 2**BITS))


def _rounded(values: Any) -> Any:
    """Rounds float64 values to `BITS` bits of mantissa."""
    step = 2.0 ** (np.frexp(values)[1] - BITS)
    return np.round(values / step) * step
