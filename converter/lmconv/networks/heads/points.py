"""Networks that compute landmarks directly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lmconv.networks.compare import difference
from lmconv.networks.heads.base import Head
from lmconv.networks.heads.graph import append
from lmconv.networks.outputs import Gap, Outputs, decided, joined
from lmconv.networks.structure import tensors
from lmconv.types import Decode, Float32, ModelSpec, TensorSpec

if TYPE_CHECKING:
    import onnx


def chosen_outputs(outputs: Any, spec: ModelSpec) -> list[Any]:
    """Returns the tensors that hold the points or heatmaps: the chosen ones, or the first output of a backbone.

    Chosen tensors become float32 here, before any other operation: OpenVINO rounds to float16 only where the Cast back
    follows at once.
    """
    if spec.chosen is None:
        return [outputs[0] if isinstance(outputs, tuple | list) and outputs else outputs]
    import torch

    named = dict(tensors(outputs))
    chosen = [named[name] for name in spec.chosen.names]
    return [tensor if tensor.dtype == torch.float32 else tensor.float() for tensor in chosen]


def file_outputs(outputs: Mapping[str, Float32], spec: ModelSpec) -> list[Float32]:
    """Returns the outputs of an ONNX file that hold the points or heatmaps, by name in the order of the file."""
    names = spec.chosen.names if spec.chosen else list(outputs)[:1]
    return [outputs[name] for name in names]


def with_landmarks(spec: ModelSpec, landmarks: int) -> ModelSpec:
    """Returns the spec with another number of landmarks, which is the second axis of every output."""

    def counted(tensor: TensorSpec) -> TensorSpec:
        return replace(tensor, shape=(tensor.shape[0], landmarks, *tensor.shape[2:]))

    return replace(spec, landmarks=landmarks, outputs=tuple(map(counted, spec.outputs)))


class PointsHead(Head):
    """Landmarks (N, L, 2), compared by their coordinates."""

    __slots__ = ()
    name: ClassVar[str] = "points"
    judged: ClassVar[str] = "landmarks"
    change: ClassVar[str] = "landmarks move"

    @property
    def _axes(self) -> int:
        """Coordinates of a point in the artefact."""
        return int(self.spec.outputs[0].shape[-1])

    @property
    def _source_axes(self) -> int:
        """Coordinates of a point in the output of the source."""
        return len(self.spec.chosen.axes) if self.spec.chosen else 2

    def collect(self, chunks: Iterable[tuple[int, Mapping[str, Float32]]], maps: int | None) -> Outputs:
        """See `Head`."""
        return Outputs(landmarks=np.concatenate([chunk["landmarks"] for _, chunk in chunks]))

    def join(self, parts: Sequence[Outputs]) -> Outputs:
        """See `Head`."""
        return Outputs(
            landmarks=np.concatenate([part.landmarks for part in parts]),
            undecided=joined([part.undecided for part in parts]),
        )

    def gap(self, outputs: Outputs, expected: Outputs) -> Gap:
        """See `Head`."""
        return Gap(
            landmarks=difference(decided(outputs, expected), expected.landmarks, self.spec.input_size),
            undecided=0 if expected.undecided is None else int(expected.undecided.sum()),
        )

    def mean_change(self, before: Outputs, after: Outputs) -> float:
        """Mean difference of a coordinate, fractions of the input divided by the scale of the landmarks."""
        if before.landmarks.shape != after.landmarks.shape:
            return np.inf
        moved = difference(decided(after, before), before.landmarks, self.spec.input_size)
        return moved.mean_abs / moved.scale

    def accepted_gaps(self, gap: Gap, *, exact: bool) -> dict[str, float]:
        """See `Head`."""
        return {"landmarks": gap.landmarks.max_abs / gap.landmarks.scale}

    def to_arrays(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """See `Head`."""
        return {"landmarks": outputs.landmarks} | (
            {} if outputs.undecided is None else {"undecided": outputs.undecided}
        )

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Outputs:
        """See `Head`."""
        return Outputs(landmarks=arrays["landmarks"], undecided=arrays.get("undecided"))

    def traced(self, outputs: Any) -> Any:
        """Returns (N, L, 2 or 3) from the chosen output, which may be flat or without batch axis."""
        (points,) = chosen_outputs(outputs, self.spec)
        if self.spec.chosen is None:
            return points.reshape(points.shape[0], -1, 2)  # len() would fix the batch size
        if self.spec.output_slice:
            points = points.reshape(points.shape[0], -1)[:, slice(*self.spec.output_slice)]
        whole = points.reshape(-1, self.spec.landmarks, self._source_axes)
        return whole[..., : self._axes] if self._axes < self._source_axes else whole

    def from_torch(self, outputs: Sequence[Float32]) -> dict[str, NDArray[Any]]:
        """See `Head`."""
        return {"landmarks": outputs[0]}

    def from_file(self, outputs: Mapping[str, Float32]) -> dict[str, NDArray[Any]]:
        """Returns the part `output_slice` of the chosen output, flattened."""
        (points,) = file_outputs(outputs, self.spec)
        part = slice(*self.spec.output_slice) if self.spec.output_slice else slice(None)
        count = len(points)
        whole = points.reshape(count, -1)[:, part].reshape(count, self.spec.landmarks, self._source_axes)
        return {"landmarks": whole[..., : self._axes].astype(np.float32, copy=False)}

    def configured(
        self, *, landmarks: int | None = None, decode: Decode | None = None, size: tuple[int, int] | None = None
    ) -> ModelSpec:
        """See `Head`. Decoding and size are those of the architecture."""
        return with_landmarks(self.spec, landmarks or self.spec.landmarks)

    def finish_traced(self, model: onnx.ModelProto) -> None:
        """The exported graph is complete."""

    def finish_file(self, model: onnx.ModelProto) -> None:
        """Appends the part of the points, as (N, L, 2 or 3), under the name `landmarks`; removes all other outputs."""
        from onnx import TensorProto, helper

        from lmconv.graph import naming

        graph, spec = model.graph, self.spec
        naming.vacate(graph, "landmarks")  # the last node needs this name
        flat_points, dropped = graph.output[0].name, self._axes < self._source_axes
        taken = naming.taken(graph)
        if spec.output_slice:
            whole, part = (naming.fresh(name, taken) for name in ("landmarks_flat", "landmarks_slice"))
            flat_points = append(graph, "Reshape", flat_points, whole, flat=[0, -1])
            start, stop = spec.output_slice
            flat_points = append(graph, "Slice", flat_points, part, starts=[start], ends=[stop], axes=[1])
        solid = naming.fresh("landmarks_xyz", taken) if dropped else "landmarks"
        points = append(graph, "Reshape", flat_points, solid, shape=[-1, spec.landmarks, self._source_axes])
        if dropped:
            append(graph, "Slice", points, "landmarks", starts=[0], ends=[self._axes], axes=[2])
        del graph.output[:]
        shape: list[str | int] = ["N", spec.landmarks, self._axes]
        graph.output.append(helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, shape))
