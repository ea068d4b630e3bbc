"""The input side of an artefact: its inputs, the unit of its landmarks, and the nodes around the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np

from lmconv.errors import UsageError
from lmconv.networks.preprocess import in_colours
from lmconv.networks.seeded import Scene, noise_crops, scene
from lmconv.networks.squares import Square, cut, to_picture
from lmconv.networks.units import to_fractions
from lmconv.types import Arrays, Float32, Float64, Io, ModelSpec, Precision, TensorSpec, Uint8

if TYPE_CHECKING:
    import onnx

Unit: TypeAlias = Literal["fraction", "[-1,1]", "crop pixels", "frame pixels"]


@dataclass(frozen=True, slots=True)
class Interface(ABC):
    """The input side of an artefact. `lmconv.networks.interfaces.interface_of` returns the interface of a spec.

    Attributes:
        spec: Spec of the artefact.
        name: Name of the interface, as in `--io`.
        suffix: End of the artefact's folder name.
        options: Options of `lmconv export` that select the interface.
        timed: Words for the measured work, in the rows of `lmconv bench`.
        from_frame: True if the artefact is timed from a frame and boxes to landmarks in the frame.
        cuts_crops: True if the artefact itself cuts the crops out of a frame.
        impossible: Precisions in which the interface cannot compute.
    """

    spec: ModelSpec
    name: ClassVar[Io]
    suffix: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    timed: ClassVar[str] = "frame and boxes to landmarks"
    from_frame: ClassVar[bool] = True
    cuts_crops: ClassVar[bool] = False
    impossible: ClassVar[frozenset[Precision]] = frozenset()

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the artefact. Pictures have their channels in the order `preprocess.colour`."""

    @property
    @abstractmethod
    def unit(self) -> Unit:
        """Unit of the artefact's landmarks: fractions or pixels of the crop, -1 to 1, or pixels of the frame."""

    @property
    def batched(self) -> str:
        """Name of the input that has one row per face."""
        return self.inputs[-1].name

    def require_possible(self, precision: Precision) -> None:
        """Refuses a network or precision that the interface cannot serve.

        Raises:
            UsageError: The network takes no three-channel picture, its crops are cut around another box, or the
                precision cannot hold coordinates.
        """
        shape = self.spec.inputs[0].shape
        if len(self.spec.inputs) != 1 or len(shape) != 4 or shape[1] != 3:
            message = f"--io {self.name} is for pictures of three channels, and {self.spec.name} takes {shape}"
            raise UsageError(message, hint="--io tensor")

    # Inputs of a run

    @abstractmethod
    def feed(self, crops: Uint8) -> Float32 | Uint8:
        """Returns the input of an artefact that takes crops.

        Args:
            crops: (n, H, W, 3) uint8, BGR.

        Returns:
            (n, 3, H, W) float32 for a tensor; (n, H, W, 3) uint8, in the colour order of the network, for images.
        """

    def of_scene(self, scene: Scene) -> Arrays:
        """Returns the inputs for the faces of a frame, by name; the host cuts the crops if the artefact does not."""
        return {self.batched: self.feed(scene.crops(self.spec))}

    def of_squares(self, picture: Uint8, squares: Sequence[Square]) -> tuple[Arrays, list[Square]]:
        """Returns the inputs for the faces in squares of a picture, and the squares of the crops.

        Args:
            picture: (H, W, 3) uint8, BGR.
            squares: Squares to cut, pixels of the picture; at least one.

        Returns:
            The inputs by name, and the squares that the artefact sees, which may be one pixel smaller.
        """
        crops = np.stack([cut(picture, square, self.spec.input_size) for square in squares])
        return {self.batched: self.feed(crops)}, list(squares)

    def prepared(self, scene: Scene) -> Callable[[], Arrays]:
        """Returns a function that computes the inputs for a scene: the host's share of the timed work."""
        return lambda: self.of_scene(scene)

    def seeded(self, count: int) -> Arrays:
        """Returns the seeded inputs of reference.npz, by name, for `count` faces."""
        return {self.batched: self.feed(noise_crops(self.spec, count, 0))}

    def timing_inputs(self, count: int) -> Arrays:
        """Returns seeded inputs for timing, by name, for `count` faces."""
        return self.of_scene(scene(count, 0))

    def input_size(self, inputs: Float32 | Uint8) -> tuple[int, int]:
        """Returns (height, width) of the network's input for a run, pixels.

        Args:
            inputs: The input `batched`.
        """
        return self.spec.input_size

    # Landmarks of a run

    def fractions(self, points: Float32, inputs: Float32 | Uint8) -> Float32:
        """Converts the landmarks of a run to fractions of the crop.

        Args:
            points: (n, L, 2 or 3) float32, x before y, in the unit of the artefact.
            inputs: The input `batched`, n rows.

        Returns:
            The same shape, float32.
        """
        unit = "pixels" if self.unit == "crop pixels" else self.spec.decode
        return to_fractions(points, unit, self.spec.input_size)

    def in_picture(self, points: Float32, scene: Scene) -> Float32 | Float64:
        """Converts the landmarks of a run to pixels of the frame.

        Args:
            points: (n, L, 2 or 3) float32, x before y, in the unit of the artefact.
            scene: The frame and n boxes.

        Returns:
            (n, L, 2) float, x before y.
        """
        fractions = self.fractions(points, scene.boxes)
        return to_picture(fractions, np.array(scene.squares(self.spec.crop)))

    def _coloured(self, pictures: Uint8) -> Uint8:
        return in_colours(pictures, self.spec.preprocess)

    # The graph

    @abstractmethod
    def wrap(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Adds the artefact's pre- and post-processing to the graph of a network.

        Args:
            model: Takes `input` (N, 3, h, w) float32, gives `landmarks` (N, L, 2) float32; may be changed in place.
        """
