"""MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381) with a global depthwise convolution head.

State-dict names are taken from the published checkpoints (cunjian/pytorch_face_landmark, models/basenet.py over
torchvision's mobilenet_v2). A checkpoint stores the features twice, as `pretrain_net.features` and `base_net.0`: one
module under two names. `pretrain_net.classifier` is never called.
"""

from __future__ import annotations

from torch import Tensor, nn

from lmconv.types import Backbone, Preprocess, landmark_spec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESS = Preprocess(colour="BGR", mean=MEAN, std=STD)
"""ImageNet's constants for R, G, B, applied to B, G, R in this order, as in the published scripts."""

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""(expansion, output channels, blocks, stride of the first block) of each stage: table 2 of the paper."""


class ConvBnReLU6(nn.Sequential):
    """Convolution, BatchNorm and ReLU6; maps (N, channels, H, W) to (N, out, H / stride, W / stride)."""

    def __init__(self, channels: int, out: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """1x1 expansion if `expand` > 1, 3x3 depthwise, linear 1x1 projection; adds the input if the shapes match."""

    def __init__(self, channels: int, out: int, *, stride: int, expand: int) -> None:
        super().__init__()
        hidden = channels * expand
        self.residual = stride == 1 and channels == out
        self.conv = nn.Sequential(
            *([ConvBnReLU6(channels, hidden, 1)] if expand > 1 else []),
            ConvBnReLU6(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, out, H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """The classifier of torchvision with 1000 classes; only its part `features` is called."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBnReLU6(3, 32, stride=2)]
        channels = 32
        for expand, out, blocks, stride in STAGES:
            for index in range(blocks):
                layers.append(InvertedResidual(channels, out, stride=1 if index else stride, expand=expand))
                channels = out
        self.features = nn.Sequential(*layers, ConvBnReLU6(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation gate per channel (Hu et al. 2018, https://arxiv.org/abs/1709.01507), without biases."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to the same shape."""
        gate: Tensor = self.fc2(self.fc1(self.avg_pool(x)).relu()).sigmoid()
        return x * gate


class LinearBlock(nn.Module):
    """Convolution and BatchNorm without activation function and padding."""

    def __init__(self, channels: int, out: int, kernel: int, *, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, out, H - kernel + 1, W - kernel + 1)."""
        y: Tensor = self.bn(self.conv(x))
        return y


class MobileNetV2GDConv(nn.Module):
    """Maps (N, 3, S, S) float32 to (N, 2 * landmarks) float32: x0, y0, x1, … as fractions of the input.

    Args:
        landmarks: Number of landmarks.
        kernel: Side of the last feature map, S / 32 rounded up: 7 for S = 224, 2 for S = 56.
        attention: True to put a squeeze-and-excitation gate before the head.
    """

    def __init__(self, landmarks: int, *, kernel: int = 7, attention: bool = False) -> None:
        super().__init__()
        self.pretrain_net = MobileNetV2()
        self.base_net = nn.Sequential(self.pretrain_net.features)
        self.linear7 = LinearBlock(1280, 1280, kernel, groups=1280)
        self.linear1 = LinearBlock(1280, 2 * landmarks, 1)
        self.attention = SqueezeExcite(1280, 8) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Computes the landmarks; the class docstring states the shapes."""
        y: Tensor = self.linear1(self.linear7(self.attention(self.base_net(x))))
        return y.flatten(1)


plugin = Backbone(
    spec=landmark_spec("mobilenet_v2", "mobilenet_v2", size=(224, 224), landmarks=68, preprocess=PREPROCESS),
    build=MobileNetV2GDConv,
    summary="MobileNetV2, global depthwise head",
)
