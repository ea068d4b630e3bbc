"""Res2Net-50 v1b, 26 channels x 4 scales (Gao et al. 2019, https://arxiv.org/abs/1904.01169).

v1b has a stem of three 3x3 convolutions, and a shortcut pools before its projection. State-dict names are taken from
Res2Net/Res2Net-PretrainedModels. This includes `fc`, which is never called. The name of the published landmark head is
unknown; here the name is `head`. The gate of the SE variant has the name `attention`, as in the MobileNetV2 of the same
author.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmconv.backbones.mobilenet_v2 import PREPROCESS, SqueezeExcite
from lmconv.types import Backbone, landmark_spec

SCALES, BASE = 4, 26
"""Number of channel groups, and channels of each group for every 64 channels of a ResNet bottleneck."""


class Bottle2neck(nn.Module):
    """A bottleneck whose 3x3 convolution is split into four channel groups.

    The first three groups have a 3x3 convolution each, and the input of a group is the sum of its channels and the
    output of the group before. The last group passes unchanged. In the `first` block of a stage the groups are
    independent, and the last group is average-pooled.
    """

    def __init__(self, channels: int, planes: int, *, stride: int = 1, first: bool = False) -> None:
        super().__init__()
        self.width = width = planes * BASE // 64
        self.first = first
        self.conv1 = nn.Conv2d(channels, width * SCALES, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width * SCALES)
        groups = [nn.Conv2d(width, width, 3, stride, 1, bias=False) for _ in range(SCALES - 1)]
        self.convs = nn.ModuleList(groups)
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in groups)
        self.pool = nn.AvgPool2d(3, stride, 1) if first else nn.Identity()
        self.conv3 = nn.Conv2d(width * SCALES, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = _shortcut(channels, planes * 4, stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, 4 * planes, H / stride, W / stride)."""
        *groups, last = self.bn1(self.conv1(x)).relu().split(self.width, 1)
        outputs: list[Tensor] = []
        for group, conv, bn in zip(groups, self.convs, self.bns, strict=True):
            group_input = group if self.first or not outputs else outputs[-1] + group
            outputs.append(bn(conv(group_input)).relu())
        y: Tensor = self.bn3(self.conv3(torch.cat([*outputs, self.pool(last)], 1))) + self.downsample(x)
        return y.relu()


def _shortcut(channels: int, out: int, stride: int) -> nn.Sequential:
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))


def _stem() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, 1, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, 1, 1, bias=False),
    )


def _stage(channels: int, planes: int, *, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottle2neck(planes * 4, planes) for _ in range(1, blocks))
    return nn.Sequential(Bottle2neck(channels, planes, stride=stride, first=True), *rest)


class Res2Net50(nn.Module):
    """Maps (N, 3, 224, 224) float32 to (N, 2 * landmarks) float32: x0, y0, x1, … as fractions of the input.

    Args:
        landmarks: Number of landmarks.
        attention: True to put a squeeze-and-excitation gate before the pooling.
    """

    def __init__(self, landmarks: int, *, attention: bool = False) -> None:
        super().__init__()
        self.conv1 = _stem()
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, 1000)
        self.attention = SqueezeExcite(2048, 8) if attention else nn.Identity()
        self.head = nn.Linear(2048, 2 * landmarks)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the landmarks; the class docstring states the shapes."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        y: Tensor = self.head(self.avgpool(self.attention(x)).flatten(1))
        return y


plugin = Backbone(
    spec=landmark_spec("res2net50_v1b", "res2net50_v1b", size=(224, 224), landmarks=68, preprocess=PREPROCESS),
    build=Res2Net50,
    summary="Res2Net-50 v1b 26w x 4s, pooled features",
)
