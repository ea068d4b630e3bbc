"""MobileFaceNet (Chen et al. 2018, https://arxiv.org/abs/1804.07573) with a global depthwise convolution head.

State-dict names are taken from the published checkpoint (cunjian/pytorch_face_landmark).
"""

from __future__ import annotations

from torch import Tensor, nn

from lmconv.types import Backbone, landmark_spec


class LinearBlock(nn.Module):
    """Convolution and BatchNorm without activation function."""

    def __init__(
        self, channels: int, out: int, kernel: int = 1, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, out, H', W')."""
        y: Tensor = self.bn(self.conv(x))
        return y


class ConvBlock(LinearBlock):
    """Convolution, BatchNorm and PReLU with one slope per channel."""

    def __init__(
        self, channels: int, out: int, kernel: int = 1, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__(channels, out, kernel, stride=stride, padding=padding, groups=groups)
        self.prelu = nn.PReLU(out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, out, H', W')."""
        y: Tensor = self.prelu(super().forward(x))
        return y


class DepthWise(nn.Module):
    """1x1 expansion to `groups` channels, 3x3 depthwise, linear 1x1 projection; adds the input if `residual`."""

    def __init__(self, channels: int, out: int, groups: int, *, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.conv = ConvBlock(channels, groups)
        self.conv_dw = ConvBlock(groups, groups, 3, stride=stride, padding=1, groups=groups)
        self.project = LinearBlock(groups, out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, out, H / stride, W / stride)."""
        y: Tensor = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class Residual(nn.Module):
    """`blocks` residual depthwise blocks in a row."""

    def __init__(self, channels: int, blocks: int, groups: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(DepthWise(channels, channels, groups, residual=True) for _ in range(blocks)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to the same shape."""
        y: Tensor = self.model(x)
        return y


class GlobalDepthwiseHead(nn.Module):
    """A 7x7 depthwise convolution over the whole map, a linear layer and a BatchNorm."""

    def __init__(self, landmarks: int) -> None:
        super().__init__()
        self.conv_6_dw = LinearBlock(512, 512, 7, groups=512)
        self.linear = nn.Linear(512, 2 * landmarks, bias=False)
        self.bn = nn.BatchNorm1d(2 * landmarks)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, 512, 7, 7) to (N, 2 * landmarks): x0, y0, x1, … as fractions of the input."""
        y: Tensor = self.bn(self.linear(self.conv_6_dw(x).flatten(1)))
        return y


class MobileFaceNet(nn.Module):
    """Maps (N, 3, 112, 112) to landmarks (N, 2 * landmarks) and features (N, 512, 7, 7), all float32.

    Landmarks are x0, y0, x1, … as fractions of the input.
    """

    def __init__(self, landmarks: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3, 64, 3, stride=2, padding=1)
        self.conv2_dw = ConvBlock(64, 64, 3, padding=1, groups=64)
        self.conv_23 = DepthWise(64, 64, 128, stride=2)
        self.conv_3 = Residual(64, 4, 128)
        self.conv_34 = DepthWise(64, 128, 256, stride=2)
        self.conv_4 = Residual(128, 6, 256)
        self.conv_45 = DepthWise(128, 128, 512, stride=2)
        self.conv_5 = Residual(128, 2, 256)
        self.conv_6_sep = ConvBlock(128, 512)
        self.output_layer = GlobalDepthwiseHead(landmarks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes landmarks and features; the class docstring states the shapes."""
        x = self.conv_23(self.conv2_dw(self.conv1(x)))
        x = self.conv_4(self.conv_34(self.conv_3(x)))
        features = self.conv_6_sep(self.conv_5(self.conv_45(x)))
        return self.output_layer(features), features


plugin = Backbone(
    spec=landmark_spec("mobilefacenet", "mobilefacenet", size=(112, 112), landmarks=68),
    build=MobileFaceNet,
    summary="MobileFaceNet, global depthwise head",
)
