"""Share of an int8 artefact that computes in int8, counted in the artefact without lmconv's own count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData"}
"""Operators with weights, in ONNX and OpenVINO."""
MOVES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split", "Concat"}
"""Operators that move numbers without computing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Layers of an artefact.

    Attributes:
        quantised: Number of layers that read int8.
        layers: Number of layers.
        share: Share of the multiply-accumulates in the quantised layers, 0 to 1.
    """

    quantised: int
    layers: int
    share: float


def coverage(folder: Path) -> Coverage:
    """Returns the coverage of an int8 artefact for ONNX Runtime or OpenVINO."""
    model = next(folder.glob("*.onnx"), None)
    found = _onnx(model) if model else _openvino(next(folder.glob("*.xml")))
    total = sum(work for work, _ in found)
    done = sum(work for work, quantised in found if quantised)
    return Coverage(quantised=sum(q for _, q in found), layers=len(found), share=done / total if total else 1.0)


def _onnx(path: Path) -> list[tuple[int, bool]]:
    """Returns the multiply-accumulates of each layer, and whether the layer reads int8."""
    import onnx
    from onnx import shape_inference

    model = shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    makers = {name: node for node in model.graph.node for name in node.output}
    shapes = {value.name: _shape(value) for value in (*model.graph.value_info, *model.graph.output)}
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}

    def quantised(name: str) -> bool:
        node = makers.get(name)
        while node is not None and node.op_type in MOVES:
            node = makers.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    def weight(name: str) -> tuple[int, ...] | None:
        node = makers.get(name)
        while node is not None and name not in constants:
            name = node.input[0]
            node = makers.get(name)
        return constants.get(name)

    found = []
    for node in model.graph.node:
        size = weight(node.input[1]) if node.op_type in LAYERS else None
        if size is not None:
            work = int(np.prod(shapes.get(node.output[0]) or (1,))) * int(np.prod(size)) // max(1, _outputs(node, size))
            found.append((work, quantised(node.input[0]) and quantised(node.input[1])))
    return found


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim)


def _outputs(node: onnx.NodeProto, size: tuple[int, ...]) -> int:
    """Returns the number of output channels of a layer with this weight."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return size[0] if node.op_type == "Conv" or (node.op_type == "Gemm" and transposed) else size[-1]


def _source(output: Any, passed: set[str]) -> Any:
    """Returns the node that computes a value, behind nodes of these types."""
    node = output.get_node()
    while node.get_type_name() in passed:
        node = node.input_value(0).get_node()
    return node


def _openvino(path: Path) -> list[tuple[int, bool]]:
    import openvino as ov

    def quantised(output: Any) -> bool:
        """True if a value is moved at most between a FakeQuantize, or int8 made float again, and its reader."""
        node = _source(output, MOVES)
        if node.get_type_name() == "Multiply":
            node = _source(node.input_value(0), {"Subtract"})
            node = _source(node.output(0), {"Convert"}) if node.get_type_name() == "Convert" else node
        return bool(node.get_type_name() == "FakeQuantize")

    def constant(output: Any) -> bool:
        node = output.get_node()
        while node.get_input_size():
            node = node.input_value(0).get_node()
        return bool(node.get_type_name() == "Constant")

    found = []
    for node in ov.Core().read_model(path).get_ops():
        if node.get_type_name() in LAYERS and constant(node.input_value(1)):
            size = [dim.get_length() if dim.is_static else 1 for dim in node.get_output_partial_shape(0)]
            weights = list(node.input_value(1).get_shape())
            outputs = size[1] if len(size) == 4 else size[-1]
            work = int(np.prod(size)) * int(np.prod(weights)) // max(1, outputs)
            found.append((work, quantised(node.input_value(0))))
    return found
