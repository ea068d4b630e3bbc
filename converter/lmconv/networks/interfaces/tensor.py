"""Artefacts with the network's own input."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lmconv.networks.interfaces.base import Interface, Unit
from lmconv.networks.preprocess import network_input
from lmconv.types import Arrays, Float32, Io, Precision, TensorSpec, Uint8

if TYPE_CHECKING:
    import onnx


class TensorInterface(Interface):
    """`input` (N, 3, h, w) float32; landmarks in the unit of the network."""

    __slots__ = ()
    name: ClassVar[Io] = "tensor"
    suffix: ClassVar[str] = ""
    options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = "run"
    from_frame: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See `Interface`."""
        return self.spec.inputs

    @property
    def unit(self) -> Unit:
        """See `Interface`."""
        return "crop pixels" if self.spec.decode == "pixels" else self.spec.decode

    def require_possible(self, precision: Precision) -> None:
        """Every network has its own input."""

    def feed(self, crops: Uint8) -> Float32:
        """See `Interface`."""
        return network_input(crops, self.spec.preprocess)

    def timing_inputs(self, count: int) -> Arrays:
        """See `Interface`."""
        return self.seeded(count)

    def input_size(self, inputs: Float32 | Uint8) -> tuple[int, int]:
        """See `Interface`; a detector may take pictures of any size."""
        height, width = inputs.shape[2:]
        return int(height), int(width)

    def wrap(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """See `Interface`; the graph stays unchanged."""
        return model
