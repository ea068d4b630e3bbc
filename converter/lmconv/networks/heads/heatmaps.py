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
from lmconv.networks.heads.points import chosen_outputs, file_outputs, with_landmarks
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
            undecided.append(self._undecided(chunk["heatmaps"]))
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
        """Returns the chosen output, the heatmaps."""
        (maps,) = chosen_outputs(outputs, self.spec)
        return maps[:, slice(*self.spec.output_slice)] if self.spec.output_slice else maps

    def from_torch(self, outputs: Sequence[Float32]) -> dict[str, NDArray[Any]]:
        """See `Head`."""
        return {"landmarks": self._decoded(outputs[0]), "heatmaps": outputs[0]}

    def _decoded(self, maps: Float32) -> Float32:
        return heatmaps.decode(maps, self.decoding)

    def _undecided(self, maps: Float32) -> NDArray[np.bool_]:
        return heatmaps.undecided(maps, self.decoding)

    def from_file(self, outputs: Mapping[str, Float32]) -> dict[str, NDArray[Any]]:
        """Returns the channels `output_slice` of the chosen output, and the landmarks."""
        part = slice(*self.spec.output_slice) if self.spec.output_slice else slice(None)
        (maps,) = file_outputs(outputs, self.spec)
        return self.from_torch([maps[:, part].astype(np.float32, copy=False)])

    def configured(
        self, *, landmarks: int | None = None, decode: Decode | None = None, size: tuple[int, int] | None = None
    ) -> ModelSpec:
        """See `Head`. The size is that of the architecture."""
        spec = with_landmarks(self.spec, landmarks or self.spec.landmarks)
        return replace(spec, heatmaps=decode or spec.heatmaps)

    def finish_traced(self, model: onnx.ModelProto) -> None:
        """Appends the decoding."""
        self._decode(model)

    def finish_file(self, model: onnx.ModelProto) -> None:
        """Renames the output, or the channels `output_slice`, to `heatmaps`, and appends the decoding."""
        from lmconv.graph import naming

        graph = model.graph
        if self.spec.output_slice:
            naming.vacate(graph, "heatmaps")
            start, stop = self.spec.output_slice
            append(graph, "Slice", graph.output[0].name, "heatmaps", starts=[start], ends=[stop], axes=[1])
        else:
            naming.rename(graph, graph.output[0].name, "heatmaps")
        self._declare(graph)
        self._decode(model)

    def _declare(self, graph: onnx.GraphProto) -> None:
        """Makes `heatmaps` the only output, with the shape of the spec."""
        from onnx import TensorProto, helper

        del graph.output[:]
        shape = self.spec.outputs[1].shape
        graph.output.append(helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, shape))

    def _decode(self, model: onnx.ModelProto) -> None:
        """Appends the decoding of the only output, the heatmaps; `landmarks` becomes the first output."""
        from onnx import TensorProto, helper

        from lmconv.graph import naming

        naming.vacate(model.graph, "landmarks")
        maps = model.graph.output[0]
        batch, points, *sizes = maps.type.tensor_type.shape.dim
        self._append_decoding(
            model.graph, maps.name, [size.dim_value for size in sizes], naming.prefix(model.graph, "decode")
        )
        shape = [batch.dim_param or batch.dim_value or "N", points.dim_value, 2]
        model.graph.output.insert(0, helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, shape))

    def _append_decoding(self, graph: onnx.GraphProto, maps: str, sizes: Sequence[int], prefix: str) -> None:
        height, width = sizes
        heatmaps.append(graph, maps, (height, width), self.decoding, prefix=prefix)
