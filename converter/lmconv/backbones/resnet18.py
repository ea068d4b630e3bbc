"""ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385): pooled features and one linear layer.

State-dict names are taken from torchvision. This includes `fc`, which is never called. The name of the published
landmark head is unknown; here the name is `head`.
"""

from __future__ import annotations

from torch import Tensor, nn

from lmconv.backbones.mobilenet_v2 import PREPROCESS
from lmconv.types import Backbone, landmark_spec


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm; adds the input, or a 1x1 projection of the input."""

    def __init__(self, channels: int, out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, out, H / stride, W / stride)."""
        y: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + self.downsample(x)
        return y.relu()


class ResNet18(nn.Module):
    """Maps (N, 3, 224, 224) float32 to (N, 2 * landmarks) float32: x0, y0, x1, … as fractions of the input."""

    def __init__(self, landmarks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64), BasicBlock(64, 64))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, stride=2), BasicBlock(128, 128))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, stride=2), BasicBlock(256, 256))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, stride=2), BasicBlock(512, 512))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, 1000)
        self.head = nn.Linear(512, 2 * landmarks)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the landmarks; the class docstring states the shapes."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        y: Tensor = self.head(self.avgpool(x).flatten(1))
        return y


plugin = Backbone(
    spec=landmark_spec("resnet18", "resnet18", size=(224, 224), landmarks=68, preprocess=PREPROCESS),
    build=ResNet18,
    summary="ResNet-18, pooled features",
)
