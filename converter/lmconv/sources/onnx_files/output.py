"""The outputs of an ONNX file: their types and batch axes, and the conversion to float32 with a batch axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Float32

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOutput:
    """An output of an ONNX file, as ONNX Runtime computes the output; declared shapes may be missing or wrong.

    Attributes:
        kind: NumPy's name of the type.
        shape: Shape for one image, without a batch axis.
        batched: True if the output has a batch axis.
    """

    kind: str
    shape: tuple[int, ...]
    batched: bool

    @classmethod
    def of(cls, output: NDArray[Any], count: int) -> FileOutput:
        """Returns the description of an output of a run on `count` images."""
        shape = rows(output, count).shape[1:]
        return cls(kind=output.dtype.name, shape=shape, batched=output.shape == (count, *shape))

    def put_behind(self, graph: onnx.GraphProto, output: onnx.ValueInfoProto) -> None:
        """Makes an output of a graph float32 with a batch axis named N, and declares its shape.

        Args:
            graph: Changed in place.
            output: Output of this graph.
        """
        from onnx import TensorProto, helper, numpy_helper

        from lmconv.graph import naming

        name = output.name
        nodes: list[tuple[str, list[str], dict[str, Any]]] = []
        if not self.batched:
            shape = naming.fresh(f"{name}_shape", naming.taken(graph))
            graph.initializer.append(numpy_helper.from_array(np.array([-1, *self.shape]), shape))
            nodes.append(("Reshape", [shape], {}))
        if output.type.tensor_type.elem_type != TensorProto.FLOAT and self.kind != "float32":
            nodes.append(("Cast", [], {"to": TensorProto.FLOAT}))
        for op, further, settings in nodes:
            before = naming.fresh(f"{name}_file", naming.taken(graph))
            naming.rename(graph, name, before)
            graph.node.append(helper.make_node(op, [before, *further], [name], **settings))
        output.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *self.shape]))


def rows(output: NDArray[Any], count: int) -> Float32:
    """Returns an output of a run on `count` images as (count, ...) float32.

    An output without a batch axis gets one: (10, 2) of one image becomes (1, 10, 2).

    Raises:
        ValueError: The first axis cannot be divided by the number of images.
    """
    result: Float32 = output.astype(np.float32, copy=False)
    if result.shape[:1] == (count,):
        return result
    if count == 1:
        return result[None]
    if not result.ndim:
        raise ValueError(f"one number for {count} images")
    return result.reshape(count, result.shape[0] // count, *result.shape[1:])


def numeric(outputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Returns the outputs that are arrays of numbers; ONNX Runtime also returns lists and text."""
    return {
        name: value for name, value in outputs.items() if isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
    }
