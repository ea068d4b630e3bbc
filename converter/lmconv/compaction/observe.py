"""What the values of a graph look like when it runs: their shapes, and what those that never change are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lmconv.graph.index import reads

BATCH = 2
"""Inputs a run where the graph leaves it free."""

RANDOM = "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"
"""Operators that may give another value each time."""
COUNTING = ("Shape", "Size")
"""Operators that look at how many inputs there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A graph, seen at work.

    Attributes:
        nodes: Its nodes, but those that work on constants alone.
        constants: Initializers and what such nodes give, by name.
        values: Of everything that is computed, on random inputs.
        batch: How many inputs that were.
        inputs: Names of what the graph takes.
        outputs: Names of what it gives.
    """

    nodes: list[onnx.NodeProto]
    constants: dict[str, NDArray[Any]]
    values: dict[str, NDArray[Any]]
    batch: int
    inputs: list[str]
    outputs: list[str]

    def units(self, name: str) -> int | None:
        """How many channels a computed value has: the size of axis 1, where axis 0 is the batch; else None."""
        value = self.values.get(name)
        if not isinstance(value, np.ndarray) or value.ndim < 2 or len(value) != self.batch:
            return None
        return int(value.shape[1])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of constants, and of what is computed for one input."""
        computed = {name: (1, *value.shape[1:]) for name, value in self.values.items() if self.units(name) is not None}
        return computed | {name: value.shape for name, value in self.constants.items()}


def observe(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> Observed:
    """Runs a graph on random inputs, of this (height, width) where any will do, and keeps everything it computes."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Constant" and not node.domain:
            constants[node.output[0]] = _constant(node)
        else:
            nodes.append(node)
    inputs = [value for value in model.graph.input if value.name not in constants]
    outputs = [value.name for value in model.graph.output]
    batch = inputs[0].type.tensor_type.shape.dim[0].dim_value or BATCH
    fed = {value.name: _random(value, (batch, 0, *(size or (0, 0)))) for value in inputs}
    values = {**fed, **_run(model, nodes, fed)}
    for node in list(nodes):
        if _folds(node, constants) and not set(node.output) & set(outputs):
            constants.update({name: values.pop(name) for name in node.output if name})
            nodes.remove(node)
    return Observed(
        nodes=nodes,
        constants=constants,
        values=values,
        batch=batch,
        inputs=list(fed),
        outputs=outputs,
    )


def _folds(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> bool:
    """Whether a node works on constants alone, and gives the same each time."""
    return bool(reads(node)) and all(name in constants for name in reads(node)) and node.op_type not in RANDOM


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    value = helper.get_attribute_value(node.attribute[0])
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.array(value)


def _random(value: onnx.ValueInfoProto, free: tuple[int, ...]) -> NDArray[Any]:
    kind = value.type.tensor_type
    shape = [dim.dim_value or side for dim, side in zip_longest(kind.shape.dim, free[: len(kind.shape.dim)])]
    numbers = np.random.default_rng(0).uniform(0, 1, shape)
    return numbers.astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _run(model: onnx.ModelProto, nodes: list[onnx.NodeProto], fed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Every value that a node makes; unfused, as each is asked for."""
    import onnxruntime as ort

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    names = [name for node in nodes for name in node.output if name]
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, fed), strict=True))
