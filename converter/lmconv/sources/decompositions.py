"""Operators without an ONNX function, written with operators that have one.

PyTorch's exporter has no function for these operators in opset 18. `torch.export` replaces each operator before the
exporter runs. The functions have the arguments and results of the operators, as PyTorch documents both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
LARGEST_INVERSE = 4
"""Largest side of a matrix that is inverted by cofactors: their number grows with the factorial of the side."""
DIRECT_ROWS = 25
"""Largest number of rows for which PyTorch computes Euclidean distances by differences, not by a product."""


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Returns the decompositions by the overload of the operator."""
    return {
        aten.adaptive_max_pool2d.default: _adaptive_max_pool2d,
        aten.median.default: lambda x: _kth(x.flatten(), (x.numel() + 1) // 2, 0)[0],
        aten.median.dim: lambda x, dim, keepdim=False: _kth(x, (x.shape[dim] + 1) // 2, dim, keepdim),
        aten.kthvalue.default: lambda x, k, dim=-1, keepdim=False: _kth(x, k, dim, keepdim),
        aten.cdist.default: _distances,
        aten._cdist_forward.default: _distances,
        aten.hypot.default: lambda a, b: (a * a + b * b).sqrt(),
        aten.cumprod.default: lambda x, dim, dtype=None: _cumulative_product(x.to(dtype) if dtype else x, dim),
        aten.cummax.default: lambda x, dim: _cumulative_extreme(x, dim, torch.ge),
        aten.cummin.default: lambda x, dim: _cumulative_extreme(x, dim, torch.le),
        aten.linalg_inv.default: _inverse,
        aten.linalg_inv_ex.default: lambda a, check_errors=False: (_inverse(a), torch.zeros(a.shape[:-2]).int()),
        aten.rrelu_with_noise.default: lambda x, noise, *slopes: _leaky(x, *slopes[:2]),
        aten.rrelu_with_noise_functional.default: lambda x, noise, *slopes: (_leaky(x, *slopes[:2]), noise),
        aten._fft_r2c.default: _fft_r2c,
        aten._fft_c2c.default: _fft_c2c,
        aten._fft_c2r.default: _fft_c2r,
    }


def _adaptive_max_pool2d(x: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    height, width = x.shape[-2:]
    size = (size[0], size[-1])
    rows, columns = (_cells(side, count) for side, count in zip((height, width), size, strict=True))
    tall = torch.cat([x[..., slice(*row), :].amax(-2, keepdim=True) for row in rows], -2)
    values = torch.cat([tall[..., slice(*column)].amax(-1, keepdim=True) for column in columns], -1)
    places = []
    for top, bottom in rows:
        for left, right in columns:
            index = x[..., top:bottom, left:right].flatten(-2).argmax(-1)
            places.append((top + index // (right - left)) * width + left + index % (right - left))
    return values, torch.stack(places, -1).reshape(values.shape)


def _cells(side: int, count: int) -> list[tuple[int, int]]:
    """Returns the start and stop of each of `count` overlapping cells of an axis, as PyTorch's adaptive pools do."""
    return [(index * side // count, -(-(index + 1) * side // count)) for index in range(count)]


def _kth(x: Tensor, k: int, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Returns the k-th smallest value along an axis, and its index."""
    values, indices = torch.topk(x, k, dim, largest=False)
    last = values.narrow(dim, k - 1, 1), indices.narrow(dim, k - 1, 1)
    return last if keepdim else (last[0].squeeze(dim), last[1].squeeze(dim))


def _distances(a: Tensor, b: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Tensor:
    if p == 2 and (compute_mode == 1 or (not compute_mode and max(a.shape[-2], b.shape[-2]) > DIRECT_ROWS)):
        squares = (a * a).sum(-1, keepdim=True) + (b * b).sum(-1).unsqueeze(-2)
        return (squares - 2 * a @ b.transpose(-1, -2)).clamp(min=0).sqrt()
    gaps = (a.unsqueeze(-2) - b.unsqueeze(-3)).abs()
    if math.isinf(p):
        return gaps.amax(-1)
    if p == 1:
        return gaps.sum(-1)
    return (gaps * gaps).sum(-1).sqrt() if p == 2 else (gaps**p).sum(-1) ** (1 / p)


def _steps(length: int) -> list[int]:
    """Returns 1, 2, 4, … below a length: the steps of a parallel scan, Hillis and Steele 1986."""
    return [2**power for power in range((length - 1).bit_length())]


def _cumulative_product(x: Tensor, dim: int) -> Tensor:
    length = x.shape[dim]
    for step in _steps(length):
        later = x.narrow(dim, step, length - step) * x.narrow(dim, 0, length - step)
        x = torch.cat([x.narrow(dim, 0, step), later], dim)
    return x


def _cumulative_extreme(x: Tensor, dim: int, better: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    length = x.shape[dim]
    shape = [length if axis == dim % x.dim() else 1 for axis in range(x.dim())]
    index = torch.arange(length).view(shape).expand_as(x)
    for step in _steps(length):
        rest = length - step
        keep = better(x.narrow(dim, step, rest), x.narrow(dim, 0, rest))
        x, index = (
            torch.cat(
                [part.narrow(dim, 0, step), torch.where(keep, part.narrow(dim, step, rest), part.narrow(dim, 0, rest))],
                dim,
            )
            for part in (x, index)
        )
    return x, index


def _inverse(a: Tensor) -> Tensor:
    side = a.shape[-1]
    if side > LARGEST_INVERSE:
        raise NotImplementedError(f"the inverse of a {side}x{side} matrix has no ONNX operator")
    if side == 1:
        return 1 / a
    cofactors = [
        [(-1) ** (row + column) * _determinant(_without(_without(a, row, -2), column, -1)) for row in range(side)]
        for column in range(side)
    ]
    return torch.stack([torch.stack(line, -1) for line in cofactors], -2) / _determinant(a)[..., None, None]


def _determinant(a: Tensor) -> Tensor:
    side = a.shape[-1]
    if side == 1:
        return a[..., 0, 0]
    minors = [_determinant(_without(a[..., 1:, :], column, -1)) for column in range(side)]
    terms = [(-1) ** column * a[..., 0, column] * minor for column, minor in enumerate(minors)]
    return torch.stack(terms).sum(0)


def _without(a: Tensor, index: int, axis: int) -> Tensor:
    """Returns a tensor without one index of an axis."""
    return torch.cat([a.narrow(axis, 0, index), a.narrow(axis, index + 1, a.shape[axis] - index - 1)], axis)


def _leaky(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3) -> Tensor:
    """Returns RReLU in evaluation mode."""
    return torch.where(x >= 0, x, x * ((lower + upper) / 2))


def _fft_r2c(x: Tensor, dim: Sequence[int], normalization: int, onesided: bool) -> Tensor:
    *others, last = dim
    bins = x.shape[last] // 2 + 1 if onesided else x.shape[last]
    real, imaginary = _transform(x, torch.zeros_like(x), last, bins, forward=True)
    return _complex(real, imaginary, x, others, dim, normalization, forward=True)


def _fft_c2c(x: Tensor, dim: Sequence[int], normalization: int, forward: bool) -> Tensor:
    real, imaginary = torch.view_as_real(x).unbind(-1)
    return _complex(real, imaginary, x, dim, dim, normalization, forward=forward)


def _fft_c2r(x: Tensor, dim: Sequence[int], normalization: int, last_dim_size: int) -> Tensor:
    *others, last = dim
    real, imaginary = torch.view_as_real(x).unbind(-1)
    for axis in others:
        real, imaginary = _transform(real, imaginary, axis, x.shape[axis], forward=False)
    cosines, sines = (part.t() for part in _waves(last_dim_size, x.shape[last]))
    bins = torch.arange(x.shape[last])
    single = (bins == 0) | (2 * bins == last_dim_size)
    weights = (2 - single.float()).unsqueeze(1)  # every other bin stands for its mirrored bin, too
    result = real.movedim(last, -1) @ (cosines * weights) - imaginary.movedim(last, -1) @ (sines * weights)
    sizes = [x.shape[axis] for axis in others] + [last_dim_size]
    return result.movedim(-1, last) * _factor(sizes, normalization)


def _complex(
    real: Tensor,
    imaginary: Tensor,
    x: Tensor,
    axes: Sequence[int],
    dim: Sequence[int],
    normalization: int,
    *,
    forward: bool,
) -> Tensor:
    """Transforms the axes `axes`, and normalises by the sizes of the axes `dim`."""
    for axis in axes:
        real, imaginary = _transform(real, imaginary, axis, x.shape[axis], forward=forward)
    factor = _factor([x.shape[axis] for axis in dim], normalization)
    return torch.complex(real * factor, imaginary * factor)


def _transform(real: Tensor, imaginary: Tensor, axis: int, bins: int, *, forward: bool) -> tuple[Tensor, Tensor]:
    """Returns the discrete Fourier transform along one axis, as products with two matrices."""
    cosines, sines = _waves(real.shape[axis], bins)
    sines = sines if forward else -sines
    real, imaginary = real.movedim(axis, -1), imaginary.movedim(axis, -1)
    result = real @ cosines + imaginary @ sines, imaginary @ cosines - real @ sines
    return result[0].movedim(-1, axis), result[1].movedim(-1, axis)


def _waves(size: int, bins: int) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines of a transform, each (size, bins) float32."""
    turns = torch.outer(torch.arange(size), torch.arange(bins)) % size
    angles = turns.double() * (2 * math.pi / size)
    return angles.cos().float(), angles.sin().float()


def _factor(sizes: Sequence[int], normalization: int) -> float:
    """Returns the factor of a transform: 1, or 1 / sqrt(n) for `normalization` 1, or 1 / n for 2."""
    count = math.prod(sizes)
    return (1.0, 1 / math.sqrt(count), 1 / count)[normalization]
