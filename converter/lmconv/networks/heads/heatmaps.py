"""Networks that compute one heatmap per landmark, which is decoded at the end of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lmconv.networks import heatmaps
from lmconv.networks.compare import difference, map_difference
from lmconv.networks.heads.base import Head
from lmconv.networks.heads.graph import append
from lmconv.networks.heads.points import first_output, with_landmarks
from lmconv.networks.outputs import Gap, Outputs, decided, joined
from lmconv.types import Decode, Float32, ModelSpec

if TYPE_CHECKING:
    import onnx


class HeatmapsHead(Head):
    """Heatmaps (N, L, h, w), by which networks are compared, and the landmarks (N, L, 2) decoded from the maps."""

    __slots__ = ()
    name: ClassVar[str] = "heatmaps"
    judged: ClassVar[str] = "heatmaps"
    change: ClassVar[str] = "heatmaps change"
    decodes: ClassVar[bool] = True

    @property
    def decoding(self) -> Decode:
        """Rule by which heatmaps become landmarks."""
        assert self.spec.heatmaps
        return self.spec.heatmaps

    @property
    def continuous_outputs(self) -> tuple[str, ...]:
        """Heatmaps only: the arg-max jumps between cells with almost equal values."""
        return ("heatmaps",)

    def collect(self, chunks: Iterable[tuple[int, Mapping[str, Float32]]], maps: int | None) -> Outputs:
        """See `Head`."""
        points, kept, undecided = [], [], []
        for start, chunk in chunks:
            points.append(chunk["landmarks"])
            undecided.append(heatmaps.undecided(chunk["heatmaps"], self.decoding))
            kept.append(chunk["heatmaps"][: None if maps is None else max(0, maps - start)])
        return Outputs(
            landmarks=np.concatenate(points),
            heatmaps=None if maps == 0 else np.concatenate(kept),
            undecided=np.concatenate(undecided),
        )

    def join(self, parts: Sequence[Outputs]) -> Outputs:
        """See `Head`."""
        maps = [part.heatmaps for part in parts if part.heatmaps is not None]
        return Outputs(
            landmarks=np.concatenate([part.landmarks for part in parts]),
            heatmaps=np.concatenate(maps) if maps else None,
            undecided=joined([part.undecided for part in parts]),
        )

    def gap(self, outputs: Outputs, expected: Outputs) -> Gap:
        """See `Head`."""
        maps: tuple[float | None, float | None] = (None, None)
        if expected.heatmaps is not None and outputs.heatmaps is not None:
            maps = map_difference(outputs.heatmaps[: len(expected.heatmaps)], expected.heatmaps)
        return Gap(
            landmarks=difference(decided(outputs, expected), expected.landmarks, self.spec.input_size),
            max_map=maps[0],
            mean_map=maps[1],
            undecided=0 if expected.undecided is None else int(expected.undecided.sum()),
        )

    def mean_change(self, before: Outputs, after: Outputs) -> float:
        """Mean difference of a heatmap value, fractions of the range of the maps."""
        if before.landmarks.shape != after.landmarks.shape:
            return np.inf
        assert before.heatmaps is not None
        assert after.heatmaps is not None
        return map_difference(after.heatmaps, before.heatmaps)[1]

    def accepted_gaps(self, gap: Gap, *, exact: bool) -> dict[str, float]:
        """Heatmaps, and landmarks if exact: a rounded point may jump where two cells are almost equal."""
        points = {"landmarks": gap.landmarks.max_abs / gap.landmarks.scale} if exact or gap.max_map is None else {}
        return points | ({} if gap.max_map is None else {"heatmaps": gap.max_map})

    def to_arrays(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """See `Head`."""
        arrays = {"landmarks": outputs.landmarks, "heatmaps": outputs.heatmaps, "undecided": outputs.undecided}
        return {name: array for name, array in arrays.items() if array is not None}

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Outputs:
        """See `Head`."""
        return Outputs(
            landmarks=arrays["landmarks"], heatmaps=arrays.get("heatmaps"), undecided=arrays.get("undecided")
        )

    def traced(self, outputs: Any) -> Any:
        """Returns the first output, the heatmaps."""
        return first_output(outputs)

    def from_torch(self, outputs: Sequence[Float32]) -> dict[str, NDArray[Any]]:
        """See `Head`."""
        return {"landmarks": heatmaps.decode(outputs[0], self.decoding), "heatmaps": outputs[0]}

    def from_file(self, outputs: Mapping[str, Float32]) -> dict[str, NDArray[Any]]:
        """Returns the channels `output_slice` of the first output, and the landmarks."""
        part = slice(*self.spec.output_slice) if self.spec.output_slice else slice(None)
        return self.from_torch([next(iter(outputs.values()))[:, part]])

    def configured(
        self, *, landmarks: int | None = None, decode: Decode | None = None, size: tuple[int, int] | None = None
    ) -> ModelSpec:
        """See `Head`. The size is that of the architecture."""
        spec = with_landmarks(self.spec, landmarks or self.spec.landmarks)
        return replace(spec, heatmaps=decode or spec.heatmaps)

    def expected_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Head`."""
        return 2, self.spec.landmarks, *shape[2:]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """True for (2, L, h, w) with sides of at least 3."""
        return shape == self.expected_shape(shape) and len(shape) == 4 and min(shape[2:]) > 2

    def finish_traced(self, model: onnx.ModelProto) -> None:
        """Appends the decoding."""
        self._decode(model)

    def finish_file(self, model: onnx.ModelProto) -> None:
        """Renames the output, or the channels `output_slice`, to `heatmaps`, and appends the decoding."""
        from lmconv.graph import naming

        graph, output = model.graph, model.graph.output[0]
        if self.spec.output_slice:
            naming.vacate(graph, "heatmaps")
            start, stop = self.spec.output_slice
            append(graph, "Slice", output.name, "heatmaps", starts=[start], ends=[stop], axes=[1])
            output.name = "heatmaps"
            output.type.tensor_type.shape.dim[1].dim_value = stop - start
        else:
            naming.rename(graph, output.name, "heatmaps")
        self._decode(model)

    def _decode(self, model: onnx.ModelProto) -> None:
        """Appends the decoding of the only output, the heatmaps; `landmarks` becomes the first output."""
        from onnx import TensorProto, helper

        from lmconv.graph import naming

        naming.vacate(model.graph, "landmarks")
        maps = model.graph.output[0]
        batch, points, height, width = maps.type.tensor_type.shape.dim
        prefix = naming.prefix(model.graph, "decode")
        size = (height.dim_value, width.dim_value)
        heatmaps.append(model.graph, maps.name, size, self.decoding, prefix=prefix)
        shape = [batch.dim_param or batch.dim_value or "N", points.dim_value, 2]
        model.graph.output.insert(0, helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, shape))
