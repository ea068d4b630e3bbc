"""RetinaFace (Deng et al. 2019, https://arxiv.org/abs/1905.00641) on MobileNet 0.25: faces with five points each.

State-dict names are taken from the published checkpoint (biubug6/Pytorch_Retinaface). Its heads have two priors per
cell. The context modules come from SSH (Najibi et al. 2017, https://arxiv.org/abs/1708.03979).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmconv.types import Backbone, Preprocess, detection_spec

PRIORS = 2
"""Number of priors in each cell of a feature map."""
WIDTH = 64
"""Channels of every feature map that the heads read."""


def _layer(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


def _conv(channels: int, out: int, kernel: int = 3, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_layer(channels, out, kernel, stride=stride), nn.LeakyReLU(0.1))


def _linear(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(*_layer(channels, out, 3))


def _separable(channels: int, out: int, *, stride: int = 1) -> nn.Sequential:
    depthwise = _layer(channels, channels, 3, stride=stride, groups=channels)
    return nn.Sequential(*depthwise, nn.LeakyReLU(0.1), *_layer(channels, out, 1), nn.LeakyReLU(0.1))


class Body(nn.Module):
    """MobileNet (Howard et al. 2017, https://arxiv.org/abs/1704.04861) of width 0.25, without classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            _conv(3, 8, stride=2),
            _separable(8, 16),
            _separable(16, 32, stride=2),
            _separable(32, 32),
            _separable(32, 64, stride=2),
            _separable(64, 64),
        )
        self.stage2 = nn.Sequential(_separable(64, 128, stride=2), *(_separable(128, 128) for _ in range(5)))
        self.stage3 = nn.Sequential(_separable(128, 256, stride=2), _separable(256, 256))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (N, 3, H, W) to feature maps of strides 8, 16 and 32 with 64, 128 and 256 channels."""
        fine = self.stage1(x)
        middle = self.stage2(fine)
        return fine, middle, self.stage3(middle)


class Pyramid(nn.Module):
    """Feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144): adds coarse maps to finer maps."""

    def __init__(self) -> None:
        super().__init__()
        self.output1 = _conv(64, WIDTH, 1)
        self.output2 = _conv(128, WIDTH, 1)
        self.output3 = _conv(256, WIDTH, 1)
        self.merge1 = _conv(WIDTH, WIDTH)
        self.merge2 = _conv(WIDTH, WIDTH)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps three feature maps to three feature maps of the same sizes with `WIDTH` channels."""
        coarse = self.output3(coarse)
        middle = self.merge2(_add_upsampled(self.output2(middle), coarse))
        return self.merge1(_add_upsampled(self.output1(fine), middle)), middle, coarse


def _add_upsampled(fine: Tensor, coarse: Tensor) -> Tensor:
    return fine + nn.functional.interpolate(coarse, size=fine.shape[2:], mode="nearest")


class Context(nn.Module):
    """Receptive fields of 3x3, 5x5 and 7x7 side by side; the two larger fields are series of 3x3 layers."""

    def __init__(self) -> None:
        super().__init__()
        quarter = WIDTH // 4
        self.conv3X3 = _linear(WIDTH, WIDTH // 2)
        self.conv5X5_1 = _conv(WIDTH, quarter)
        self.conv5X5_2 = _linear(quarter, quarter)
        self.conv7X7_2 = _conv(quarter, quarter)
        self.conv7x7_3 = _linear(quarter, quarter)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, WIDTH, h, w) to the same shape."""
        shared = self.conv5X5_1(x)
        return torch.relu(
            torch.cat([self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared))], 1)
        )


class Head(nn.Module):
    """Predicts `values` numbers for every prior of one feature map."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(WIDTH, PRIORS * values, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, WIDTH, h, w) to (N, h * w * PRIORS, values), ordered by row, column and prior."""
        y: Tensor = self.conv1x1(x)
        return y.permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.values)


def _heads(values: int) -> nn.ModuleList:
    return nn.ModuleList(Head(values) for _ in range(3))


class RetinaFace(nn.Module):
    """Maps (N, 3, H, W) float32 of any size to scores (N, P, 2), boxes (N, P, 4) and points (N, P, 10), all float32.

    Scores are probabilities: not a face, face. Boxes and points (x0, y0, x1, …) are offsets from P priors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.fpn = Pyramid()
        self.ssh1 = Context()
        self.ssh2 = Context()
        self.ssh3 = Context()
        self.ClassHead = _heads(2)
        self.BboxHead = _heads(4)
        self.LandmarkHead = _heads(10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes scores, boxes and points; the class docstring states the shapes."""
        fine, middle, coarse = self.fpn(*self.body(x))
        maps = [self.ssh1(fine), self.ssh2(middle), self.ssh3(coarse)]
        scores, boxes, points = (
            torch.cat([head(context) for head, context in zip(heads, maps, strict=True)], 1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead)
        )
        return torch.softmax(scores, -1), boxes, points


plugin = Backbone(
    spec=detection_spec(
        "retinaface",
        preprocess=Preprocess(colour="BGR", scale=1.0, mean=(104.0, 117.0, 123.0)),
        outputs={"scores": ("N", "P", 2), "boxes": ("N", "P", 4), "points": ("N", "P", 10)},
    ),
    build=lambda landmarks: RetinaFace(),
    summary="RetinaFace on MobileNet 0.25: face boxes and five points",
)
