"""Artefacts that take one uint8 frame of any size and the boxes of its faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmconv.errors import Bug, UsageError
from lmconv.networks import seeded
from lmconv.networks.interfaces.base import Interface, Unit
from lmconv.networks.seeded import Scene
from lmconv.networks.squares import Square, around, box_of, to_crops
from lmconv.types import Arrays, Float32, Io, Precision, TensorSpec, Uint8

if TYPE_CHECKING:
    import onnx


class FrameInterface(Interface):
    """`frame` (H, W, 3) uint8 and `boxes` (N, 4) float32, pixels of the frame; landmarks in pixels of the frame."""

    __slots__ = ()
    name: ClassVar[Io] = "frame"
    suffix: ClassVar[str] = "-frame"
    options: ClassVar[tuple[str, ...]] = ("--io", "frame")
    cuts_crops: ClassVar[bool] = True
    impossible: ClassVar[frozenset[Precision]] = frozenset({Precision.BF16})

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See `Interface`."""
        frame = TensorSpec(name="frame", dtype="uint8", shape=("H", "W", 3), layout="HWC")
        batch = self.spec.inputs[0].shape[0]
        return frame, TensorSpec(name="boxes", dtype="float32", shape=(batch, 4), layout="NC")

    @property
    def unit(self) -> Unit:
        """See `Interface`."""
        return "frame pixels"

    def require_possible(self, precision: Precision) -> None:
        """See `Interface`."""
        super().require_possible(precision)
        if self.spec.crop.box != "landmarks":
            raise UsageError(f"--io frame cannot cut around a {self.spec.crop.box} box yet", hint="--io image")
        if precision in self.impossible:
            hint = "--io image, or another precision"
            raise UsageError(f"--io frame cannot be had in {precision}, which counts pixels to 256 only", hint=hint)

    def feed(self, crops: Uint8) -> Uint8:
        """Refuses crops.

        Raises:
            Bug: Always.
        """
        raise Bug("an artefact that takes a frame was given crops")

    def of_scene(self, scene: Scene) -> Arrays:
        """See `Interface`."""
        return {"frame": self._coloured(scene.frame), "boxes": scene.boxes}

    def of_squares(self, picture: Uint8, squares: Sequence[Square]) -> tuple[Arrays, list[Square]]:
        """See `Interface`."""
        boxes = np.array([box_of(square, self.spec.crop) for square in squares], np.float32)
        inputs: Arrays = {"frame": self._coloured(picture), "boxes": boxes}
        return inputs, [around(box, self.spec.crop) for box in boxes.tolist()]

    def prepared(self, scene: Scene) -> Callable[[], Arrays]:
        """See `Interface`; the frame is ready in the colour order of the network before the work begins."""
        inputs = self.of_scene(scene)
        return lambda: inputs

    def seeded(self, count: int) -> Arrays:
        """See `Interface`; the frame holds all boxes."""
        (scene,) = seeded.scenes(count, 0)
        return self.of_scene(scene)

    def fractions(self, points: Float32, inputs: Float32 | Uint8) -> Float32:
        """See `Interface`; `inputs` are the boxes."""
        return to_crops(points, np.array([around(box, self.spec.crop) for box in inputs]))

    def in_picture(self, points: Float32, scene: Scene) -> Float32:
        """See `Interface`."""
        return points[..., :2]

    def wrap(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """See `Interface`."""
        from lmconv.networks.crop_graph import frame_nodes, to_frame_pixels
        from lmconv.networks.wrapping import surround

        return surround(model, self.spec, self.inputs, frame_nodes, to_frame_pixels)
