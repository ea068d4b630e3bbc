"""Runs a graph once on random inputs, for the shapes of all values and the numbers of constant channels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.graph.constants import constant_value, is_constant
from lmconv.graph.index import reads
from lmconv.inference.probe import computed

BATCH = 2
"""Batch size of the run if the graph leaves the batch axis free."""

RANDOM = "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"
"""Operators whose output may differ from run to run."""
COUNTING = ("Shape", "Size")
"""Operators whose output depends on the batch size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphTrace:
    """A graph and the values of one run on random inputs.

    Attributes:
        nodes: Nodes of the graph, except Constant nodes and nodes that read only constants.
        constants: Initializers and outputs of the excepted nodes, by name.
        values: Inputs and all computed values of the run, by name; a sequence is a value of ONNX Runtime, not an array.
        batch: Batch size of the run.
        inputs: Names of the graph inputs.
        outputs: Names of the graph outputs.
    """

    nodes: list[onnx.NodeProto]
    constants: dict[str, NDArray[Any]]
    values: dict[str, NDArray[Any]]
    batch: int
    inputs: list[str]
    outputs: list[str]

    def channel_count(self, name: str) -> int | None:
        """Returns the number of channels of a computed value: the size of axis 1 if axis 0 is the batch, else None."""
        value = self.values.get(name)
        if not isinstance(value, np.ndarray) or value.ndim < 2 or len(value) != self.batch:
            return None
        return int(value.shape[1])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of constants and, for a batch of one, of computed values with a batch axis; by name."""
        computed = {
            name: (1, *value.shape[1:]) for name, value in self.values.items() if self.channel_count(name) is not None
        }
        return computed | {name: value.shape for name, value in self.constants.items()}


def trace_graph(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> GraphTrace:
    """Runs a graph on random inputs and keeps every computed value.

    Args:
        model: The graph; not changed.
        size: (height, width) of the inputs in pixels, used if the graph leaves height and width free.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if is_constant(node):
            constants[node.output[0]] = constant_value(node)
        else:
            nodes.append(node)
    inputs = [value for value in model.graph.input if value.name not in constants]
    outputs = [value.name for value in model.graph.output]
    batch = inputs[0].type.tensor_type.shape.dim[0].dim_value or BATCH
    feeds = {value.name: _random_input(value, (batch, 0, *(size or (0, 0)))) for value in inputs}
    values = {**feeds, **computed(model, [name for node in nodes for name in node.output if name], feeds)}
    for node in list(nodes):
        arrays = all(isinstance(values[name], np.ndarray) for name in node.output if name)
        if arrays and _is_constant(node, constants) and not set(node.output) & set(outputs):
            constants.update({name: values.pop(name) for name in node.output if name})
            nodes.remove(node)
    return GraphTrace(
        nodes=nodes,
        constants=constants,
        values=values,
        batch=batch,
        inputs=list(feeds),
        outputs=outputs,
    )


def _is_constant(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> bool:
    """True if a node reads only constants and always gives the same result."""
    return bool(reads(node)) and all(name in constants for name in reads(node)) and node.op_type not in RANDOM


def _random_input(value: onnx.ValueInfoProto, free_sizes: tuple[int, ...]) -> NDArray[Any]:
    """Returns seeded random numbers for a graph input; `free_sizes` has the size of each axis if the axis is free."""
    tensor_type = value.type.tensor_type
    dims = tensor_type.shape.dim
    shape = [dim.dim_value or size for dim, size in zip_longest(dims, free_sizes[: len(dims)])]
    numbers = np.random.default_rng(0).uniform(0, 1, shape)
    return numbers.astype(helper.tensor_dtype_to_np_dtype(tensor_type.elem_type))
