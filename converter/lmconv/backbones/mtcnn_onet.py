"""O-Net, the third network of MTCNN: scores and refines the boxes of the second network and predicts five points."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmconv.networks.mtcnn import PREPROCESS, features
from lmconv.types import Backbone, detection_spec


class ONet(nn.Module):
    """Maps (N, 3, 48, 48) float32 to scores (N, 2), boxes (N, 4) and points (N, 10), all float32.

    Scores are probabilities: not a face, face. Boxes are offsets of the crop's corners, fractions of the crop's side.
    Points are x1 to x5, then y1 to y5, fractions of the crop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = features([(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)], dense=256)
        self.conv6_1 = nn.Linear(256, 2)
        self.conv6_2 = nn.Linear(256, 4)
        self.conv6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes scores, boxes and points; the class docstring states the shapes."""
        x = self.features(x)
        return torch.softmax(self.conv6_1(x), 1), self.conv6_2(x), self.conv6_3(x)


plugin = Backbone(
    spec=detection_spec(
        "mtcnn_onet",
        size=(48, 48),
        preprocess=PREPROCESS,
        outputs={"scores": ("N", 2), "boxes": ("N", 4), "points": ("N", 10)},
    ),
    build=lambda landmarks: ONet(),
    summary="MTCNN's third network: crops of 48 pixels, five points",
)
