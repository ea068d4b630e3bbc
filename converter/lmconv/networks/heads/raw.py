"""Detectors, whose outputs stay as the network computes them: `scores`, `boxes` and perhaps `points`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lmconv.networks.compare import map_difference, raw_difference
from lmconv.networks.heads.base import FIGURES, Head
from lmconv.networks.outputs import Gap, Outputs
from lmconv.types import Decode, Float32, Io, ModelSpec

if TYPE_CHECKING:
    import onnx


class RawHead(Head):
    """Raw outputs, compared number by number, or by the range of each output."""

    __slots__ = ()
    name: ClassVar[str] = "raw"
    judged: ClassVar[str] = "outputs"
    change: ClassVar[str] = "outputs change"
    coordinates: ClassVar[tuple[str, ...]] = ()
    figures: ClassVar[tuple[str, ...]] = tuple(name for name in FIGURES if name != "max_px")
    on_faces: ClassVar[bool] = False
    counts_landmarks: ClassVar[bool] = False
    published_outputs: ClassVar[bool] = True
    ios: ClassVar[tuple[Io, ...]] = ("tensor",)

    @property
    def traced_outputs(self) -> tuple[str, ...]:
        """See `Head`."""
        return self.continuous_outputs

    def collect(self, chunks: Iterable[tuple[int, Mapping[str, Float32]]], maps: int | None) -> Outputs:
        """See `Head`."""
        parts = [chunk for _, chunk in chunks]
        return _outputs(
            {tensor.name: np.concatenate([part[tensor.name] for part in parts]) for tensor in self.spec.outputs}
        )

    def join(self, parts: Sequence[Outputs]) -> Outputs:
        """See `Head`."""
        return _outputs({name: np.concatenate([part.raw[name] for part in parts]) for name in parts[0].raw})

    def gap(self, outputs: Outputs, expected: Outputs) -> Gap:
        """See `Head`."""
        parts = [map_difference(outputs.raw[name], values) for name, values in expected.raw.items()]
        largest, means = zip(*parts, strict=True)
        return Gap(landmarks=raw_difference(outputs.raw, expected.raw), max_map=max(largest), mean_map=max(means))

    def mean_change(self, before: Outputs, after: Outputs) -> float:
        """Mean over the outputs of the mean difference, fractions of the range of each output."""
        if any(after.raw[name].shape != values.shape for name, values in before.raw.items()):
            return np.inf
        return float(np.mean([map_difference(after.raw[name], values)[1] for name, values in before.raw.items()]))

    def accepted_gaps(self, gap: Gap, *, exact: bool) -> dict[str, float]:
        """Absolute difference if exact; else by the range of each output."""
        return {"outputs": gap.landmarks.max_abs if exact else gap.max_map or 0.0}

    def to_arrays(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """See `Head`."""
        return dict(outputs.raw)

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Outputs:
        """See `Head`."""
        return _outputs({tensor.name: arrays[tensor.name] for tensor in self.spec.outputs})

    def traced(self, outputs: Any) -> Any:
        """Returns all outputs."""
        return outputs

    def from_torch(self, outputs: Sequence[Float32]) -> dict[str, NDArray[Any]]:
        """See `Head`."""
        return {tensor.name: array for tensor, array in zip(self.spec.outputs, outputs, strict=True)}

    def from_file(self, outputs: Mapping[str, Float32]) -> dict[str, NDArray[Any]]:
        """See `Head`."""
        return {tensor.name: outputs[tensor.name] for tensor in self.spec.outputs}

    def configured(
        self, *, landmarks: int | None = None, decode: Decode | None = None, size: tuple[int, int] | None = None
    ) -> ModelSpec:
        """See `Head`. A size fixes the size of the pictures."""
        spec = self.spec
        inputs = [replace(tensor, shape=(*tensor.shape[:2], *(size or tensor.shape[2:]))) for tensor in spec.inputs]
        return replace(spec, inputs=tuple(inputs), sample=None if size else spec.sample)

    def finish_traced(self, model: onnx.ModelProto) -> None:
        """Names the free axes of outputs as in the spec: the exporter's names describe their computation."""
        for value, tensor in zip(model.graph.output, self.spec.outputs, strict=True):
            for dim, side in zip(value.type.tensor_type.shape.dim, tensor.shape, strict=True):
                if not dim.HasField("dim_value"):
                    dim.dim_param = str(side)

    def finish_file(self, model: onnx.ModelProto) -> None:
        """The outputs of a published file are those of the spec."""


def _outputs(raw: Mapping[str, Float32]) -> Outputs:
    count = len(next(iter(raw.values())))
    return Outputs(landmarks=np.empty((count, 0, 2), np.float32), raw=raw)
