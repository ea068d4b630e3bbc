"""FaceBoxes (Zhang et al. 2017, https://arxiv.org/abs/1708.05234): a face detector that shrinks its input early.

State-dict names are taken from the published checkpoint (zisianw/FaceBoxes.PyTorch).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from lmconv.types import Backbone, Preprocess, detection_spec

HEADS = ((128, 21), (256, 1), (256, 1))
"""(channels, priors per cell) of each feature map that the heads read, finest map first."""


class Layer(nn.Module):
    """Convolution, BatchNorm and ReLU; with `mirrored` the ReLU of the values and of the negated values (CReLU).

    CReLU: Shang et al. 2016, https://arxiv.org/abs/1603.05201.
    """

    def __init__(self, channels: int, out: int, kernel: int = 1, *, stride: int = 1, mirrored: bool = False) -> None:
        super().__init__()
        self.mirrored = mirrored
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, C, H / stride, W / stride); C is `out`, or 2 * `out` with `mirrored`."""
        y: Tensor = self.bn(self.conv(x))
        return torch.relu(torch.cat([y, -y], 1) if self.mirrored else y)


class Inception(nn.Module):
    """Four branches of 32 channels each: 1x1, average pooling and 1x1, 3x3, and two 3x3 convolutions in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.branch1x1 = Layer(128, 32)
        self.branch1x1_2 = Layer(128, 32)
        self.branch3x3_reduce = Layer(128, 24)
        self.branch3x3 = Layer(24, 32, 3)
        self.branch3x3_reduce_2 = Layer(128, 24)
        self.branch3x3_2 = Layer(24, 32, 3)
        self.branch3x3_3 = Layer(32, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, 128, h, w) to the same shape."""
        pooled = self.branch1x1_2(avg_pool2d(x, 3, 1, 1))
        deep = self.branch3x3_3(self.branch3x3_2(self.branch3x3_reduce_2(x)))
        return torch.cat([self.branch1x1(x), pooled, self.branch3x3(self.branch3x3_reduce(x)), deep], 1)


def _heads(values: int) -> nn.ModuleList:
    """Returns one convolution per feature map, with `values` outputs for each prior."""
    return nn.ModuleList(nn.Conv2d(channels, priors * values, 3, padding=1) for channels, priors in HEADS)


class FaceBoxes(nn.Module):
    """Maps (N, 3, H, W) float32 of any size to scores (N, P, 2) and boxes (N, P, 4), both float32.

    Scores are probabilities: not a face, face. Boxes are offsets from P priors. Priors are ordered by feature map
    (finest first), row, column and prior within the cell.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Layer(3, 24, 7, stride=4, mirrored=True)
        self.conv2 = Layer(48, 64, 5, stride=2, mirrored=True)
        self.inception1 = Inception()
        self.inception2 = Inception()
        self.inception3 = Inception()
        self.conv3_1 = Layer(128, 128)
        self.conv3_2 = Layer(128, 256, 3, stride=2)
        self.conv4_1 = Layer(256, 128)
        self.conv4_2 = Layer(128, 256, 3, stride=2)
        self.loc = _heads(4)
        self.conf = _heads(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes scores and boxes; the class docstring states the shapes."""
        x = max_pool2d(self.conv1(x), 3, 2, 1)
        x = max_pool2d(self.conv2(x), 3, 2, 1)
        fine = self.inception3(self.inception2(self.inception1(x)))
        middle = self.conv3_2(self.conv3_1(fine))
        maps = [fine, middle, self.conv4_2(self.conv4_1(middle))]
        return torch.softmax(_predict(self.conf, maps, 2), -1), _predict(self.loc, maps, 4)


def _predict(heads: nn.ModuleList, maps: list[Tensor], values: int) -> Tensor:
    """Applies each head to its feature map and joins the results: (N, P, values)."""
    outputs = [head(x).permute(0, 2, 3, 1) for head, x in zip(heads, maps, strict=True)]
    return torch.cat([output.reshape(output.shape[0], -1, values) for output in outputs], 1)


plugin = Backbone(
    spec=detection_spec(
        "faceboxes",
        preprocess=Preprocess(colour="BGR", scale=1.0, mean=(104.0, 117.0, 123.0)),
        outputs={"scores": ("N", "P", 2), "boxes": ("N", "P", 4)},
    ),
    build=lambda landmarks: FaceBoxes(),
    summary="FaceBoxes: face boxes",
)
