"""P-Net, the first network of MTCNN: scores every 12x12 window of a picture as face or not, at a stride of 2 pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmconv.networks.mtcnn import PREPROCESS, features
from lmconv.types import Backbone, detection_spec


class PNet(nn.Module):
    """Maps (N, 3, H, W) float32 to scores (N, 2, h, w) and boxes (N, 4, h, w), both float32; H and W at least 12.

    Scores are probabilities: not a face, face. Boxes are offsets of the window's corners, fractions of the window's
    side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = features([(10, 3, 2), (16, 3, 0), (32, 3, 0)])
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes scores and boxes; the class docstring states the shapes."""
        x = self.features(x)
        return torch.softmax(self.conv4_1(x), 1), self.conv4_2(x)


plugin = Backbone(
    spec=detection_spec(
        "mtcnn_pnet",
        preprocess=PREPROCESS,
        outputs={"scores": ("N", 2, "h", "w"), "boxes": ("N", 4, "h", "w")},
    ),
    build=lambda landmarks: PNet(),
    summary="MTCNN's first network: windows of 12 pixels",
)
