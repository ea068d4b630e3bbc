"""R-Net, the second network of MTCNN: scores and refines the boxes of the first network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmconv.networks.mtcnn import PREPROCESS, features
from lmconv.types import Backbone, detection_spec


class RNet(nn.Module):
    """Maps (N, 3, 24, 24) float32 to scores (N, 2) and boxes (N, 4), both float32.

    Scores are probabilities: not a face, face. Boxes are offsets of the crop's corners, fractions of the crop's side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = features([(28, 3, 3), (48, 3, 3), (64, 2, 0)], dense=128)
        self.conv5_1 = nn.Linear(128, 2)
        self.conv5_2 = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes scores and boxes; the class docstring states the shapes."""
        x = self.features(x)
        return torch.softmax(self.conv5_1(x), 1), self.conv5_2(x)


plugin = Backbone(
    spec=detection_spec(
        "mtcnn_rnet", size=(24, 24), preprocess=PREPROCESS, outputs={"scores": ("N", 2), "boxes": ("N", 4)}
    ),
    build=lambda landmarks: RNet(),
    summary="MTCNN's second network: crops of 24 pixels",
)
