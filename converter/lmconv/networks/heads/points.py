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
from lmconv.types import Decode, Float32, ModelSpec, TensorSpec

if TYPE_CHECKING:
    import onnx


def first_output(outputs: Any) -> Any:
    """Returns the first output of a network, landmarks or heatmaps; a single output is returned as is."""
    return outputs[0] if isinstance(outputs, tuple | list) and outputs else outputs


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
        """Returns (N, L, 2) from the first output, which may be flat."""
        points = first_output(outputs)
        return points.reshape(points.shape[0], -1, 2)  # len() would fix the batch size

    def from_torch(self, outputs: Sequence[Float32]) -> dict[str, NDArray[Any]]:
        """See `Head`."""
        return {"landmarks": outputs[0]}

    def from_file(self, outputs: Mapping[str, Float32]) -> dict[str, NDArray[Any]]:
        """Returns the part `output_slice` of the first output, flattened."""
        points = next(iter(outputs.values()))
        part = slice(*self.spec.output_slice) if self.spec.output_slice else slice(None)
        count = len(points)
        return {"landmarks": points.reshape(count, -1)[:, part].reshape(count, self.spec.landmarks, 2)}

    def configured(
        self, *, landmarks: int | None = None, decode: Decode | None = None, size: tuple[int, int] | None = None
    ) -> ModelSpec:
        """See `Head`. Decoding and size are those of the architecture."""
        return with_landmarks(self.spec, landmarks or self.spec.landmarks)

    def expected_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Head`."""
        return 2, 2 * self.spec.landmarks

    def fits(self, shape: tuple[int, ...]) -> bool:
        """True for (2, 2L) and (2, L, 2)."""
        return shape in (self.expected_shape(shape), (2, self.spec.landmarks, 2))

    def shape_hint(self, shape: tuple[int, ...]) -> str:
        """See `Head`; names the number of points if the shape is that of points."""
        points = 0.0
        if len(shape) == 2:
            points = shape[1] / 2
        elif len(shape) == 3 and shape[2] == 2:
            points = shape[1]
        if points and points == int(points):
            return f"use --landmarks {int(points)}"
        return super().shape_hint(shape)

    def finish_traced(self, model: onnx.ModelProto) -> None:
        """The exported graph is complete."""

    def finish_file(self, model: onnx.ModelProto) -> None:
        """Appends the part of the points, as (N, L, 2), under the name `landmarks`; removes all other outputs."""
        from onnx import TensorProto, helper

        from lmconv.graph import naming

        graph, spec = model.graph, self.spec
        naming.vacate(graph, "landmarks")  # the last node needs this name
        flat = graph.output[0].name
        if spec.output_slice:
            taken = naming.taken(graph)
            whole, part = (naming.fresh(name, taken) for name in ("landmarks_flat", "landmarks_slice"))
            flat = append(graph, "Reshape", flat, whole, flat=[0, -1])
            start, stop = spec.output_slice
            flat = append(graph, "Slice", flat, part, starts=[start], ends=[stop], axes=[1])
        append(graph, "Reshape", flat, "landmarks", shape=[-1, spec.landmarks, 2])
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["N", spec.landmarks, 2]))
