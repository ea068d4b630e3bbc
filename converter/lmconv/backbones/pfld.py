"""PFLD (Guo et al. 2019, https://arxiv.org/abs/1902.10859): three scales of a MobileNetV2-like trunk, concatenated.

State-dict names are taken from the published checkpoint (cunjian/pytorch_face_landmark). This includes `bn8`, which the
published network defines and never calls.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmconv.types import Backbone, landmark_spec


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise and 1x1 projection; adds the input if `residual`."""

    def __init__(self, channels: int, out: int, *, stride: int = 1, expand: int = 2, residual: bool = True) -> None:
        super().__init__()
        hidden = channels * expand
        self.residual = residual
        self.conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, out, H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class PFLD(nn.Module):
    """Maps (N, 3, 112, 112) float32 to (N, 2 * landmarks) float32: x0, y0, x1, … as fractions of the input."""

    def __init__(self, landmarks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.dw_pool = nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False)
        self.dw_bn = nn.BatchNorm2d(64)
        self.conv1_extra = nn.Conv2d(64, 64, 1, bias=False)
        self.conv3_1 = InvertedResidual(64, 64, stride=2, expand=1, residual=False)
        self.block3_2 = InvertedResidual(64, 64, expand=1)
        self.block3_3 = InvertedResidual(64, 64, expand=1)
        self.block3_4 = InvertedResidual(64, 64, expand=1)
        self.block3_5 = InvertedResidual(64, 64, expand=1)
        self.conv4_1 = InvertedResidual(64, 128, stride=2, expand=1, residual=False)
        self.conv5_1 = InvertedResidual(128, 128, residual=False)
        self.block5_2 = InvertedResidual(128, 128)
        self.block5_3 = InvertedResidual(128, 128)
        self.block5_4 = InvertedResidual(128, 128)
        self.block5_5 = InvertedResidual(128, 128)
        self.block5_6 = InvertedResidual(128, 128)
        self.conv6_1 = InvertedResidual(128, 16, expand=1, residual=False)
        self.conv7 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.conv8 = nn.Conv2d(32, 128, 7)
        self.bn8 = nn.BatchNorm2d(128)
        self.avg_pool1 = nn.AvgPool2d(14)
        self.avg_pool2 = nn.AvgPool2d(7)
        self.fc = nn.Linear(16 + 32 + 128, 2 * landmarks)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the landmarks; the class docstring states the shapes."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.conv1_extra(self.dw_bn(self.dw_pool(x))))
        x = self.block3_5(self.block3_4(self.block3_3(self.block3_2(self.conv3_1(x)))))
        x = self.conv5_1(self.conv4_1(x))
        x = self.block5_6(self.block5_5(self.block5_4(self.block5_3(self.block5_2(x)))))
        fine = self.conv6_1(x)
        middle = self.conv7(fine)
        coarse = torch.relu(self.conv8(middle))
        scales = [self.avg_pool1(fine), self.avg_pool2(middle), coarse]
        y: Tensor = self.fc(torch.cat([scale.flatten(1) for scale in scales], 1))
        return y


plugin = Backbone(
    spec=landmark_spec("pfld", "pfld", size=(112, 112), landmarks=68),
    build=PFLD,
    summary="PFLD, multi-scale head",
)
