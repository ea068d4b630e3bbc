"""A network in the manner of MediaPipe's face mesh: 468 points with three coordinates, in pixels, and a score."""

from __future__ import annotations

import torch
from tests.corpus.registry import network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

POINTS = 468


class Block(nn.Module):
    """A depthwise-separable residual block with PReLU; a larger output is reached by zeros on the channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, outputs - inputs
        depthwise = nn.Conv2d(inputs, inputs, 3, stride, 0 if stride == 2 else 1, groups=inputs)
        self.body, self.act = nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1)), nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            inner, x = F.pad(x, (0, 1, 0, 1)), F.max_pool2d(x, 2)
        else:
            inner = x
        if self.more:
            x = F.pad(x, (0, 0, 0, 0, 0, self.more))
        return self.act(self.body(inner) + x)


class FaceMesh(nn.Module):
    """Nine blocks, and two convolutions over what is left of the map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = [
            (16, 16, 1),
            (16, 16, 1),
            (16, 32, 2),
            (32, 32, 1),
            (32, 64, 2),
            (64, 64, 1),
            (64, 128, 2),
            (128, 128, 1),
        ]
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.PReLU(16))
        self.blocks = nn.Sequential(*(Block(*size) for size in sizes))
        self.points, self.score = nn.Conv2d(128, 3 * POINTS, 4), nn.Conv2d(128, 1, 4)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, 0.25)
        nn.init.uniform_(self.points.bias, 8, 56)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.blocks(self.stem(F.pad(x, (0, 1, 0, 1))))
        return self.points(maps).view(-1, POINTS, 3), self.score(maps).view(-1, 1).sigmoid()


@network(
    "468 points with three coordinates, in pixels (FaceMesh)",
    exported=False,
    size=(64, 64),
    points=POINTS,
    options={"unit": "pixels", "coordinates": "xy"},
    expected=lambda output: output[0][..., :2],
)
def facemesh() -> nn.Module:
    return FaceMesh()
