"""HRNet-W18-small-v2 (Wang et al. 2020, https://arxiv.org/abs/1908.07919): up to four resolutions side by side.

State-dict names are taken from HRNet/HRNet-Image-Classification. The landmark head replaces the `classifier`, because
the published parameter count leaves no room for both. The name of the published landmark head is unknown; here the
name is `head`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lmconv.backbones.mobilenet_v2 import PREPROCESS
from lmconv.backbones.resnet18 import BasicBlock
from lmconv.types import Backbone, landmark_spec

WIDTHS = (18, 36, 72, 144)
"""Channels of each resolution, finest (56 x 56) first."""

HEAD = (32, 64, 128, 256)
"""A quarter of the channels that each resolution has after the final widening block, finest first."""


def _conv(
    channels: int, out: int, kernel: int, stride: int = 1, *after: nn.Module, bias: bool = False
) -> nn.Sequential:
    """Returns a convolution, a BatchNorm, and the modules of `after`."""
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(out), *after)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with BatchNorm, to 4 * planes channels; adds the input or its 1x1 projection."""

    def __init__(self, channels: int, planes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = nn.Identity() if channels == planes * 4 else _conv(channels, planes * 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, 4 * planes, H, W)."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        y = self.bn3(self.conv3(y)) + self.downsample(x)
        total: Tensor = y.relu()
        return total


def _fuse(source: int, target: int) -> nn.Module:
    """Returns the layers that bring resolution `source` to the size and channels of `target`.

    One upsampling step enlarges a map; a series of stride-2 convolutions shrinks a map.
    """
    if source == target:
        return nn.Identity()
    if source > target:
        enlarge = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return _conv(WIDTHS[source], WIDTHS[target], 1, 1, enlarge)
    steps = [_conv(WIDTHS[source], WIDTHS[source], 3, 2, nn.ReLU()) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, _conv(WIDTHS[source], WIDTHS[target], 3, 2))


class ExchangeModule(nn.Module):
    """Two residual blocks at each resolution; then each resolution becomes the sum of all resolutions."""

    def __init__(self, resolutions: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(2))) for width in WIDTHS[:resolutions]
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse(source, target) for source in range(resolutions)) for target in range(resolutions)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps a list of (N, WIDTHS[i], 56 / 2**i, 56 / 2**i) to a list of the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [_sum([fuse(x) for fuse, x in zip(row, maps, strict=True)]).relu() for row in _rows(self.fuse_layers)]


def _rows(table: nn.ModuleList) -> list[list[nn.Module]]:
    return [list(row.children()) for row in table]


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


class HRNet(nn.Module):
    """Maps (N, 3, 224, 224) float32 to (N, 2 * landmarks) float32: x0, y0, x1, … as fractions of the input."""

    def __init__(self, landmarks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Bottleneck(64, 64), Bottleneck(256, 64))
        halved = nn.Sequential(_conv(256, WIDTHS[1], 3, 2, nn.ReLU()))
        self.transition1 = nn.ModuleList([_conv(256, WIDTHS[0], 3, 1, nn.ReLU()), halved])
        self.stage2 = _stage(2, modules=1)
        self.transition2 = _transition(2)
        self.stage3 = _stage(3, modules=3)
        self.transition3 = _transition(3)
        self.stage4 = _stage(4, modules=2)
        blocks = (nn.Sequential(Bottleneck(width, planes)) for width, planes in zip(WIDTHS, HEAD, strict=True))
        self.incre_modules = nn.ModuleList(blocks)
        self.downsamp_modules = nn.ModuleList(
            _conv(planes * 4, planes * 8, 3, 2, nn.ReLU(), bias=True) for planes in HEAD[:-1]
        )
        self.final_layer = _conv(HEAD[-1] * 4, 2048, 1, 1, nn.ReLU(), bias=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2048, 2 * landmarks)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the landmarks; the class docstring states the shapes."""
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        x = self.layer1(x)
        maps = self.stage2([branch(x) for branch in self.transition1])
        maps = self.stage3([*maps, self.transition2[2](maps[-1])])
        maps = self.stage4([*maps, self.transition3[3](maps[-1])])
        widened: list[Tensor] = [widen(x) for widen, x in zip(self.incre_modules, maps, strict=True)]
        y = widened[0]
        for downsample, coarser in zip(self.downsamp_modules, widened[1:], strict=True):
            y = coarser + downsample(y)
        points: Tensor = self.head(self.avgpool(self.final_layer(y)).flatten(1))
        return points


def _stage(resolutions: int, *, modules: int) -> nn.Sequential:
    return nn.Sequential(*(ExchangeModule(resolutions) for _ in range(modules)))


def _transition(resolutions: int) -> nn.ModuleList:
    """Returns identities for `resolutions` maps, and the layers that make the next smaller map from the last map."""
    halved = nn.Sequential(_conv(WIDTHS[resolutions - 1], WIDTHS[resolutions], 3, 2, nn.ReLU()))
    return nn.ModuleList([*(nn.Identity() for _ in range(resolutions)), halved])


plugin = Backbone(
    spec=landmark_spec(
        "hrnet_w18_small_v2", "hrnet_w18_small_v2", size=(224, 224), landmarks=68, preprocess=PREPROCESS
    ),
    build=HRNet,
    summary="HRNet-W18-small-v2, pooled features of all resolutions",
)
