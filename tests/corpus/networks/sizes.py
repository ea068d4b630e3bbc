"""Changes of height and width: resizing, padding, pooling and strides."""

from __future__ import annotations

import torch
from tests.corpus.blocks import STEM, chain
from tests.corpus.registry import network
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@network("nearest neighbour, factor 2")
def nearest() -> nn.Module:
    return chain(nn.Upsample(scale_factor=2))


@network("nearest neighbour to a size that is no multiple")
def nearest_to_a_size() -> nn.Module:
    return chain(lambda x: F.interpolate(x, size=(21, 11)))


@network("bilinear, factor 2")
def bilinear() -> nn.Module:
    return chain(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))


@network("bilinear with aligned corners")
def bilinear_aligned() -> nn.Module:
    return chain(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


@network("bilinear to the size of another map")
def bilinear_to_another_map() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        small = F.max_pool2d(x, 3, 2)
        return x + F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)

    return chain(forward)


@network("bilinear downwards, by 0.4")
def bilinear_down() -> nn.Module:
    return chain(lambda x: F.interpolate(x, scale_factor=0.4, mode="bilinear", align_corners=False))


@network("bilinear downwards, antialiased")
def antialiased() -> nn.Module:
    return chain(lambda x: F.interpolate(x, size=(7, 7), mode="bilinear", antialias=True))


@network("bicubic")
def bicubic() -> nn.Module:
    return chain(lambda x: F.interpolate(x, size=(24, 24), mode="bicubic", align_corners=False))


@network("mean over areas (`area`)")
def area() -> nn.Module:
    return chain(lambda x: F.interpolate(x, size=(6, 6), mode="area"))


@network("pixel shuffle and back")
def pixel_shuffle() -> nn.Module:
    return chain(nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(STEM // 4, STEM // 4, 3, padding=1), nn.PixelUnshuffle(2)))


@network("transposed convolution with output padding")
def transposed_convolution() -> nn.Module:
    return chain(nn.ConvTranspose2d(STEM, STEM, 3, 2, 1, output_padding=1, groups=2))


@network("reflected border")
def reflected_border() -> nn.Module:
    return chain(nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(STEM, STEM, 3)))


@network("repeated border")
def repeated_border() -> nn.Module:
    return chain(nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(STEM, STEM, 3)))


@network("circular border")
def circular_border() -> nn.Module:
    return chain(nn.Conv2d(STEM, STEM, 3, padding=1, padding_mode="circular"))


@network("zeros on two sides only, as TensorFlow's SAME")
def one_sided_border() -> nn.Module:
    return chain(nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(STEM, STEM, 3, 2)))


@network("a border of another number, and a negative border")
def constant_border() -> nn.Module:
    return chain(lambda x: F.pad(F.pad(x, (1, 2, 0, 1), value=0.25), (-1, -1, 0, 0)))


@network("even kernel with padding `same`")
def same_padding() -> nn.Module:
    return chain(nn.Conv2d(STEM, STEM, 4, padding="same"))


@network("max pooling, sizes rounded up")
def max_pool_rounded_up() -> nn.Module:
    return chain(nn.MaxPool2d(3, 2, ceil_mode=True))


@network("average pooling, sizes rounded up, border left out of the mean")
def average_pool_rounded_up() -> nn.Module:
    return chain(nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False))


@network("adaptive average pooling to a size that does not divide the map")
def adaptive_average() -> nn.Module:
    return chain(nn.AdaptiveAvgPool2d(5))


@network("adaptive max pooling")
def adaptive_max() -> nn.Module:
    return chain(nn.AdaptiveMaxPool2d(4))


@network("LP pooling")
def lp_pool() -> nn.Module:
    return chain(nn.LPPool2d(2, 2))


@network("blur before a stride: a fixed filter on each channel")
def blur() -> nn.Module:
    return chain(Blur())


class Blur(nn.Module):
    """The binomial filter of width 3 with stride 2, https://arxiv.org/abs/1904.11486."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel: Tensor
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", torch.outer(line, line)[None, None].repeat(STEM, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=x.shape[1])


@network("dilated, grouped and depthwise convolutions")
def convolutions() -> nn.Module:
    dilated = nn.Conv2d(STEM, STEM, 3, padding=2, dilation=2, groups=4)
    return chain(
        nn.Sequential(dilated, nn.Conv2d(STEM, STEM, (1, 5), padding=(0, 2), groups=STEM), nn.Conv2d(STEM, STEM, 1))
    )


@network("patches by unfold")
def unfolded() -> nn.Module:
    def forward(x: Tensor) -> Tensor:
        patches = F.unfold(x, 2, stride=2)
        return patches.view(x.shape[0], 4 * STEM, 8, 8)

    return chain(forward, 4 * STEM)
