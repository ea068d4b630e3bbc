"""Artefacts that take crops as uint8 pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lmconv.networks.interfaces.base import Interface, Unit
from lmconv.types import Io, TensorSpec, Uint8

if TYPE_CHECKING:
    import onnx


class ImageInterface(Interface):
    """`image` (N, h, w, 3) uint8; landmarks in pixels of the crop."""

    __slots__ = ()
    name: ClassVar[Io] = "image"
    suffix: ClassVar[str] = "-image"
    options: ClassVar[tuple[str, ...]] = ("--io", "image")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See `Interface`."""
        shape = (self.spec.inputs[0].shape[0], *self.spec.input_size, 3)
        return (TensorSpec(name="image", dtype="uint8", shape=shape, layout="NHWC"),)

    @property
    def unit(self) -> Unit:
        """See `Interface`."""
        return "crop pixels"

    def feed(self, crops: Uint8) -> Uint8:
        """See `Interface`."""
        return self._coloured(crops)

    def wrap(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """See `Interface`."""
        from lmconv.networks.crop_graph import image_nodes, to_crop_pixels
        from lmconv.networks.wrapping import surround

        after = None if self.spec.decode == "pixels" else to_crop_pixels
        return surround(model, self.spec, self.inputs, image_nodes, after)
