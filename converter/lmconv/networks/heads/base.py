"""The part of a network that depends on its kind of output: collected, compared, finished and judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from lmconv.networks.outputs import Gap, Outputs
from lmconv.types import Decode, Float32, Io, ModelSpec

if TYPE_CHECKING:
    import onnx

FIGURES = ("max_abs", "max_px", "mean_px", "max_map", "compact_px", "drift", "ion_loss")
"""Names of the figures that `lmconv verify` reports, see `lmconv.judging.gates`."""


@dataclass(frozen=True, slots=True)
class Head(ABC):
    """The output side of a network. `lmconv.networks.heads.head_of` returns the head of a spec.

    Attributes:
        spec: Spec of the network.
        name: Name of the kind of head, the key in the tables of limits.
        judged: Output by which two networks are compared.
        change: Words for a difference that a pass makes, before "by 0.1 on average".
        coordinates: Names of the outputs that hold coordinates, which have a unit.
        figures: Names of the figures that `lmconv verify` can measure for the head.
        on_faces: True if annotated faces can calibrate and judge the network.
        counts_landmarks: True if the user can choose the number of landmarks.
        decodes: True if the user can choose the decoding.
        published_outputs: True if an ONNX file must have exactly the inputs and outputs of the spec.
        ios: Inputs that an artefact can have.
    """

    spec: ModelSpec
    name: ClassVar[str]
    judged: ClassVar[str]
    change: ClassVar[str]
    coordinates: ClassVar[tuple[str, ...]] = ("landmarks",)
    figures: ClassVar[tuple[str, ...]] = FIGURES
    on_faces: ClassVar[bool] = True
    counts_landmarks: ClassVar[bool] = True
    decodes: ClassVar[bool] = False
    published_outputs: ClassVar[bool] = False
    ios: ClassVar[tuple[Io, ...]] = ("tensor", "image", "frame")

    @property
    def traced_outputs(self) -> tuple[str, ...]:
        """Names of the outputs of PyTorch's exporter, before `finish_traced`."""
        return (self.judged,)

    @property
    def continuous_outputs(self) -> tuple[str, ...]:
        """Names of the outputs that change little when the input changes little."""
        return tuple(tensor.name for tensor in self.spec.outputs)

    # Outputs of a session

    @abstractmethod
    def collect(self, chunks: Iterable[tuple[int, Mapping[str, Float32]]], maps: int | None) -> Outputs:
        """Joins the outputs of a session.

        Args:
            chunks: Index of the first input, and outputs by name, of each chunk; landmarks are fractions of the input.
            maps: Number of inputs for which heatmaps are kept; None for all.
        """

    @abstractmethod
    def join(self, parts: Sequence[Outputs]) -> Outputs:
        """Joins outputs for at least one part of the inputs, with the heatmaps that were kept."""

    def first(self, outputs: Outputs, count: int) -> Outputs:
        """Returns the outputs for the first `count` inputs."""
        maps, undecided = outputs.heatmaps, outputs.undecided
        return Outputs(
            landmarks=outputs.landmarks[:count],
            heatmaps=None if maps is None else maps[:count],
            undecided=None if undecided is None else undecided[:count],
            raw={name: values[:count] for name, values in outputs.raw.items()},
        )

    @abstractmethod
    def gap(self, outputs: Outputs, expected: Outputs) -> Gap:
        """Compares outputs for the same inputs."""

    @abstractmethod
    def mean_change(self, before: Outputs, after: Outputs) -> float:
        """Returns the mean difference by which a pass is judged; infinite if the shapes differ."""

    @abstractmethod
    def accepted_gaps(self, gap: Gap, *, exact: bool) -> dict[str, float]:
        """Returns the differences that decide if a finished artefact is written, by the name of the output.

        A difference of landmarks is divided by the scale of the landmarks, see `lmconv.networks.compare.largest`.

        Args:
            gap: Differences from the source network.
            exact: True if the artefact computes in fp32 on the same crops as the source network.
        """

    # reference.npz

    @abstractmethod
    def to_arrays(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """Returns outputs as named arrays, the entries of reference.npz."""

    @abstractmethod
    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Outputs:
        """Inverse of `to_arrays`.

        Raises:
            KeyError: An array is missing.
        """

    # The source network

    @abstractmethod
    def traced(self, outputs: Any) -> Any:
        """Returns the tensors to export from the outputs of a PyTorch module: runs inside the exported module."""

    @abstractmethod
    def from_torch(self, outputs: Sequence[Float32]) -> dict[str, NDArray[Any]]:
        """Returns the outputs of a session from the outputs of the exported module."""

    @abstractmethod
    def from_file(self, outputs: Mapping[str, Float32]) -> dict[str, NDArray[Any]]:
        """Returns the outputs of a session from the outputs of an ONNX file, in the order of the file."""

    @abstractmethod
    def configured(
        self, *, landmarks: int | None = None, decode: Decode | None = None, size: tuple[int, int] | None = None
    ) -> ModelSpec:
        """Returns the spec with the options of the user.

        Args:
            landmarks: Number of landmarks; None keeps the number.
            decode: Decoding of heatmaps; None keeps the decoding.
            size: (height, width) of the input, pixels; None keeps the size.
        """

    # The graph

    @abstractmethod
    def finish_traced(self, model: onnx.ModelProto) -> None:
        """Completes the graph of PyTorch's exporter in place: the outputs of the spec, with their names."""

    @abstractmethod
    def finish_file(self, model: onnx.ModelProto) -> None:
        """Completes the graph of an ONNX file in place: the outputs of the spec, with their names."""
