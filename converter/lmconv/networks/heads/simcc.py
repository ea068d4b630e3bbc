"""Networks that classify the x and the y of each landmark (SimCC); the classes are decoded at the end of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmconv.networks import simcc
from lmconv.networks.heads.heatmaps import HeatmapsHead
from lmconv.networks.heads.points import chosen_outputs, file_outputs
from lmconv.types import Float32

if TYPE_CHECKING:
    import onnx


class SimccHead(HeatmapsHead):
    """Vectors `heatmaps` (N, L, w), of x and then of y, by which networks are compared, and the landmarks (N, L, 2)."""

    __slots__ = ()

    @property
    def _split(self) -> int:
        """Length of the vectors of x."""
        assert self.spec.chosen
        return self.spec.chosen.split

    @property
    def _spans(self) -> Float32:
        total = int(self.spec.outputs[1].shape[2])
        return simcc.cells(self.decoding, (self._split, total - self._split), self.spec.input_size)

    def _decoded(self, maps: Float32) -> Float32:
        return simcc.decode(maps, self._spans, self._split)

    def _undecided(self, maps: Float32) -> NDArray[np.bool_]:
        return simcc.undecided(maps, self._split)

    def traced(self, outputs: Any) -> Any:
        """Returns the vectors of x and of y, joined."""
        import torch

        return torch.cat(chosen_outputs(outputs, self.spec), 2)

    def from_file(self, outputs: Mapping[str, Float32]) -> dict[str, NDArray[Any]]:
        """Returns the vectors, joined, and the landmarks."""
        joined = np.concatenate(file_outputs(outputs, self.spec), 2)
        return self.from_torch([joined.astype(np.float32, copy=False)])

    def finish_file(self, model: onnx.ModelProto) -> None:
        """Joins the vectors to `heatmaps`, and appends the decoding."""
        from onnx import helper

        from lmconv.graph import naming

        naming.vacate(model.graph, "heatmaps")
        vectors = [value.name for value in model.graph.output]
        model.graph.node.append(helper.make_node("Concat", vectors, ["heatmaps"], name="heatmaps", axis=2))
        self._declare(model.graph)
        self._decode(model)

    def _append_decoding(self, graph: onnx.GraphProto, maps: str, sizes: Sequence[int], prefix: str) -> None:
        simcc.append(graph, maps, (self._split, sizes[0] - self._split), self._spans, prefix=prefix)
