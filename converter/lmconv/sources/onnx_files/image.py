"""The image input of an ONNX file: its type and layout, and the conversion from the hub's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmconv.types import Float32, Preprocess

if TYPE_CHECKING:
    import onnx

Layout: TypeAlias = Literal["NCHW", "NHWC", "CHW", "HWC"]
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC", "CHW", "HWC")
"""Possible layouts, the most frequent first."""
KINDS = ("float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64")
"""Possible types of the numbers of an image."""
MOVES = ("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Slice", "Gather", "Flatten", "Split", "Concat")
"""Operators that move the numbers of their first input, Concat those of all inputs, whatever the type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """The input of an ONNX file that takes the image.

    Attributes:
        name: Name of the input in the file.
        kind: NumPy's name of the type.
        layout: Order of the axes; `CHW` and `HWC` have no batch axis, and take one image.
        batch: Declared batch size; None if the batch axis is free.
        size: Declared height and width, pixels; None for a free side.
    """

    name: str
    kind: str
    layout: Layout
    batch: int | None
    size: tuple[int | None, int | None]

    @property
    def label(self) -> str:
        """Name, type, shape and layout, in words."""
        sizes = {"N": self.batch or "N", "C": 3, "H": self.size[0] or "H", "W": self.size[1] or "W"}
        return f"{self.name} {self.kind} ({', '.join(str(sizes[axis]) for axis in self.layout)}) {self.layout}"

    @property
    def whole(self) -> bool:
        """True if the numbers are integers."""
        return np.dtype(self.kind).kind in "iu"

    @property
    def axes(self) -> list[int]:
        """Axes of (N, 3, H, W) in the order of the layout."""
        return ["NCHW".index(axis) for axis in self.layout]

    @property
    def preprocess(self) -> Preprocess:
        """Default pre-processing: fractions for floats; 0 to 255 for integers, or -128 to 127 for int8."""
        if not self.whole:
            return Preprocess()
        middle = 128.0 if self.kind == "int8" else 0.0
        return Preprocess(scale=1.0, mean=(middle, middle, middle))

    def fed(self, images: Float32) -> NDArray[Any]:
        """Converts images to the array that the file takes.

        Args:
            images: (n, 3, H, W) float32; n is 1 for a layout without a batch axis.

        Returns:
            The same numbers in type and layout of the file.
        """
        batched = images if "N" in self.layout else images[0]
        axes = self.axes if "N" in self.layout else [axis - 1 for axis in self.axes]
        return np.ascontiguousarray(batched.transpose(axes).astype(self.kind))

    def put_in_front(self, graph: onnx.GraphProto) -> None:
        """Replaces all inputs of a graph by `input` (N, 3, H, W) float32, and adds nodes that convert `input`.

        Args:
            graph: Changed in place. Free axes of `input` are named N, H and W.
        """
        from onnx import TensorProto, helper

        from lmconv.graph import naming
        from lmconv.graph.facts import parse_nodes

        steps = self._steps(graph)
        inside = naming.fresh("file_input", naming.taken(graph)) if steps else "input"
        naming.rename(graph, self.name, inside)
        if steps:
            naming.vacate(graph, "input")
        values = ["input", *(f"step_{index}" for index in range(1, len(steps))), inside]
        body = "\n".join(
            f"{out} = {step.format(data)}" for step, data, out in zip(steps, values, values[1:], strict=False)
        )
        prefix = naming.prefix(graph, "file")
        nodes, tensors = parse_nodes(body, {"FIRST": [0]}, {"input": "input", inside: inside}, prefix)
        for index, node in enumerate(nodes):
            graph.node.insert(index, node)
        graph.initializer.extend(tensors)
        shape = [self.batch or "N", 3, self.size[0] or "H", self.size[1] or "W"]
        del graph.input[:]
        graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, shape))

    def _steps(self, graph: onnx.GraphProto) -> list[str]:
        """Returns the steps from (N, 3, H, W) float32 to the input of the file, with `{}` for the data of a step."""
        from onnx import helper

        axes = self.axes if "N" in self.layout else [0, *self.axes]
        steps = [] if axes == [0, 1, 2, 3] else [f"Transpose <perm = {axes}> ({{}})"]
        steps += [] if "N" in self.layout else ["Squeeze ({}, FIRST)"]
        (value,) = (value for value in graph.input if value.name == self.name)
        inside = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        kinds = [] if self.whole and _is_cast(graph, self.name) else [self.kind]
        if inside == "float32":  # the graph computes in float32 where the file computes in another type of floats
            kinds = ["float16", "float32"] if self.kind == "float16" else []
        return steps + [f"Cast <to = {helper.np_dtype_to_tensor_dtype(np.dtype(kind))}> ({{}})" for kind in kinds]


def _is_cast(graph: onnx.GraphProto, name: str) -> bool:
    """True if a value, moved at most, is read by Cast alone: a graph then takes the same numbers in another type."""
    from lmconv.graph.index import reads

    moved = {name}
    for node in graph.node:
        read = moved.intersection(reads(node))
        if not read or node.op_type == "Cast":
            continue
        data = set(node.input if node.op_type == "Concat" else node.input[:1])
        if node.op_type not in MOVES or read != data:
            return False
        moved.update(node.output)
    return moved.isdisjoint(value.name for value in graph.output)


def candidates(value: onnx.ValueInfoProto) -> list[ImageInput]:
    """Returns the images of three channels that an input may take, the most plausible first; empty for other inputs.

    A declared side of 0 or below is free, as exporters write free sides. An input without a shape may have any shape.
    """
    from onnx import helper

    element = value.type.tensor_type.elem_type
    kind = helper.tensor_dtype_to_np_dtype(element).name if element else ""
    sides = declared(value)
    if kind not in KINDS:
        return []
    known: list[ImageInput] = []
    possible: list[ImageInput] = []
    for layout in LAYOUTS:
        shape = [None] * 4 if sides is None else sides
        if len(shape) == len(layout) and shape[layout.index("C")] in (3, None):
            at = dict(zip(layout, shape, strict=True))
            size = (at["H"], at["W"])
            image = ImageInput(name=value.name, kind=kind, layout=layout, batch=at.get("N", 1), size=size)
            (known if at["C"] else possible).append(image)
    return known[:1] or possible


def declared(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Returns the declared shape of an input, None for a free side; None without a shape."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]
