"""Stacked hourglass (Newell et al. 2016, https://arxiv.org/abs/1603.06937): 2 stacks, 1 block, 256 features.

State-dict names are taken from bearpaw/pytorch-pose, pose/models/hourglass.py. Figures are published for a 2-stack
hourglass landmark network, but neither its architecture nor its state-dict names; the network here has fewer
parameters. The heatmaps of the second stack are decoded in the exported graph, so the artefact returns landmarks like
every other landmark network.
"""

from __future__ import annotations

from torch import Tensor, nn

from lmconv.backbones.mobilenet_v2 import PREPROCESS
from lmconv.types import Backbone, Decode, landmark_spec

STACKS, DEPTH, FEATURES = 2, 4, 256


class Bottleneck(nn.Module):
    """Three convolutions, each after BatchNorm and ReLU; adds the input, or a 1x1 projection of the input."""

    def __init__(self, channels: int, out: int = FEATURES) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out // 2, 1)
        self.bn2 = nn.BatchNorm2d(out // 2)
        self.conv2 = nn.Conv2d(out // 2, out // 2, 3, 1, 1)
        self.bn3 = nn.BatchNorm2d(out // 2)
        self.conv3 = nn.Conv2d(out // 2, out, 1)
        self.downsample = nn.Identity() if channels == out else nn.Sequential(nn.Conv2d(channels, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, out, H, W)."""
        y = self.conv1(self.bn1(x).relu())
        y = self.conv3(self.bn3(self.conv2(self.bn2(y).relu())).relu())
        total: Tensor = y + self.downsample(x)
        return total


def _residual() -> nn.Sequential:
    return nn.Sequential(Bottleneck(FEATURES))


class Hourglass(nn.Module):
    """Halves the feature map four times, then doubles the map four times and adds the skip branch of each size.

    `hg[level]` holds the residual blocks of one size, smallest size first: skip branch, down, up, and in `hg[0]` the
    innermost block.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = [nn.ModuleList(_residual() for _ in range(3 if level else 4)) for level in range(DEPTH)]
        self.hg = nn.ModuleList(sizes)
        self.shrink = nn.MaxPool2d(2)
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, 256, H, W) to the same shape; H and W are multiples of 16."""
        levels = [list(level.children()) for level in self.hg]
        skips = []
        for skip, down, *_ in reversed(levels):
            skips.append(skip(x))
            x = down(self.shrink(x))
        x = levels[0][3](x)
        for _, _, up, *_ in levels:
            x = skips.pop() + self.grow(up(x))
        return x


class StackedHourglass(nn.Module):
    """Maps (N, 3, 256, 256) float32 to the last stack's heatmaps, (N, landmarks, 64, 64) float32."""

    def __init__(self, landmarks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Bottleneck(64, 128))
        self.layer2 = nn.Sequential(Bottleneck(128, 256))
        self.layer3 = _residual()
        self.maxpool = nn.MaxPool2d(2)
        self.hg = nn.ModuleList(Hourglass() for _ in range(STACKS))
        self.res = nn.ModuleList(_residual() for _ in range(STACKS))
        self.fc = nn.ModuleList(
            nn.Sequential(nn.Conv2d(FEATURES, FEATURES, 1), nn.BatchNorm2d(FEATURES), nn.ReLU()) for _ in range(STACKS)
        )
        self.score = nn.ModuleList(nn.Conv2d(FEATURES, landmarks, 1) for _ in range(STACKS))
        self.fc_ = nn.ModuleList(nn.Conv2d(FEATURES, FEATURES, 1) for _ in range(STACKS - 1))
        self.score_ = nn.ModuleList(nn.Conv2d(landmarks, FEATURES, 1) for _ in range(STACKS - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Computes the heatmaps; the class docstring states the shapes."""
        x = self.maxpool(self.layer1(self.bn1(self.conv1(x)).relu()))
        x = self.layer3(self.layer2(x))
        for index in range(STACKS):
            y: Tensor = self.fc[index](self.res[index](self.hg[index](x)))
            score: Tensor = self.score[index](y)
            if index < STACKS - 1:
                x = x + self.fc_[index](y) + self.score_[index](score)
        return score


plugin = Backbone(
    spec=landmark_spec(
        "hourglass2", "hourglass2", size=(256, 256), landmarks=68, heatmaps=Decode(), preprocess=PREPROCESS
    ),
    build=StackedHourglass,
    summary="stacked hourglass, 2 stacks, heatmaps decoded in the graph",
)
