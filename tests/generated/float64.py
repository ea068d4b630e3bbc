"""Runs an ONNX graph in float64: differences are then differences between graphs, not rounding errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from lmconv.types import Arrays

NARROW = ("Resize",)
"""Operators with constants that are float32 by definition."""


class Pad(OpRun):
    """Pad of onnx.reference, with support for negative pads, which crop."""

    def _run(self, data: Any, pads: Any, value: Any = None, axes: Any = None, mode: str = "constant") -> Any:
        starts, ends = np.split(pads, 2)
        stops = [size + min(0, end) for size, end in zip(data.shape, ends, strict=True)]
        data = data[tuple(slice(max(0, -start), stop) for start, stop in zip(starts, stops, strict=True))]
        options: dict[str, Any] = {"mode": mode}
        if mode == "constant":
            options["constant_values"] = 0 if value is None else value.item()
        return (np.pad(data, np.maximum(np.stack([starts, ends], 1), 0), **options),)


class ConvTranspose(OpRun):
    """ConvTranspose by PyTorch; onnx.reference is wrong for groups."""

    def _run(self, x: Any, w: Any, b: Any = None, **attributes: Any) -> Any:
        top, left, bottom, right = attributes.get("pads") or [0] * 4
        assert (top, left) == (bottom, right), "PyTorch pads both sides by the same number"
        result = torch.nn.functional.conv_transpose2d(
            torch.from_numpy(x.copy()),
            torch.from_numpy(w.copy()),
            None if b is None else torch.from_numpy(b.copy()),
            stride=attributes.get("strides") or 1,
            padding=(top, left),
            output_padding=attributes.get("output_padding") or 0,
            groups=attributes.get("group") or 1,
        )
        return (result.numpy(),)


class LRN(OpRun):
    """LRN by its definition; onnx.reference computes in float32."""

    def _run(self, x: Any, alpha: float, beta: float, bias: float, size: int) -> Any:
        before = (size - 1) // 2
        around = np.pad(x**2, ((0, 0), (before, size - 1 - before), (0, 0), (0, 0)))
        squares = sum(around[:, i : i + x.shape[1]] for i in range(size))
        return (x / (bias + alpha / size * squares) ** beta,)


def evaluate(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[np.float64]]:
    """Outputs of a graph with all weights and inputs in float64."""
    wide = widened(model)
    names = [value.name for value in wide.graph.output]
    fed = {name: values.astype(np.float64) for name, values in inputs.items()}
    with np.errstate(all="ignore"):
        outputs = ReferenceEvaluator(wide, new_ops=[ConvTranspose, LRN, Pad]).run(None, fed)
    return dict(zip(names, outputs, strict=True))


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a graph with every float32 constant in float64, except constants that are float32 by definition."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    narrow = {name for node in wide.graph.node if node.op_type in NARROW for name in node.input[1:]}
    sources = {node.output[0]: node for node in wide.graph.node if node.op_type in ("Identity", "Constant")}
    narrow |= {name for output in narrow if output in sources for name in sources[output].input}
    for tensor in wide.graph.initializer:
        if tensor.name not in narrow:
            _widen(tensor)
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and node.output[0] not in narrow:
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    del wide.graph.value_info[:]
    return wide


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
