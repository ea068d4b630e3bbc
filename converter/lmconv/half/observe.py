"""Runs a float32 graph node by node, and each node in float16 too; measures the values and the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.graph.execution import Chunks, channel_mean, on_all_cores, run_node, walk
from lmconv.graph.facts import LAYERS
from lmconv.graph.index import Graph, attribute
from lmconv.half.operators import WEIGHTED, fixed_inputs, key, retype_attributes
from lmconv.types import Float32

SENSITIVE = 5e-3
"""Largest change of an output, as a fraction of its range, for which a node becomes float16.

Rounding to float16 changes a value by 2.4e-4 of its magnitude at most.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Values of a graph in float32, and nodes that cannot be float16. `key` names a node.

    Attributes:
        means: Mean of each channel on the first batch, (C,) float32; only for outputs of layers with a bias.
        largest: Largest magnitude of each float32 tensor over all inputs; infinity if a value is NaN.
        types: Type of each tensor. Sequences, and tensors of types that numpy lacks, have no entry.
        unchanged: Float32 outputs that stay float32 even if the node becomes float16.
        unsupported: Nodes without float16 in ONNX or in ONNX Runtime.
        sensitive: Inputs whose rounding changes an output of the node by more than `SENSITIVE`, by node.
    """

    means: dict[str, Float32] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    types: dict[str, np.dtype[Any]] = field(default_factory=dict)
    unchanged: set[str] = field(default_factory=set)
    unsupported: set[str] = field(default_factory=set)
    sensitive: dict[str, set[str]] = field(default_factory=dict)

    def see(self, tensors: Mapping[str, Chunks]) -> None:
        """Records type and magnitude of tensors."""
        for name, chunks in tensors.items():
            self.types[name] = chunks[0].dtype
            if chunks[0].dtype == np.float32:
                self.largest[name] = max(self.largest.get(name, 0.0), *on_all_cores(_largest, chunks))

    def is_float32(self, name: str) -> bool:
        """True if a value is a float32 tensor."""
        return self.types.get(name) == np.float32


def observe(model: onnx.ModelProto, inputs: Sequence[Float32]) -> Observed:
    """Runs a float32 graph and observes its nodes.

    Args:
        model: The graph.
        inputs: Batches of inputs, each (n, 3, H, W) float32. Channel means are taken on the first batch alone.
    """
    graph, observed = Graph.of(model), Observed()
    observed.see({name: [value] for name, value in graph.constants.items()})

    def compute(node: onnx.NodeProto, values: Mapping[str, Chunks]) -> dict[str, Chunks]:
        outputs = run_node(graph, node, values, graph.constants)
        if has_bias(node, graph):
            observed.means.setdefault(node.output[0], channel_mean(outputs[node.output[0]], axis=1))
        if node.op_type not in LAYERS or node.domain:  # every runtime has a float16 kernel of these
            _compare(graph, node, values, outputs, observed)
        return outputs

    for images in inputs:
        for tensors in walk(graph, images, compute):
            observed.see(tensors)
    return observed


def is_layer(node: onnx.NodeProto) -> bool:
    """True if a node multiplies by weights. A sum of many products is not sensitive to the rounding of its factors."""
    return node.op_type in WEIGHTED and not node.domain


def has_bias(node: onnx.NodeProto, graph: Graph) -> bool:
    """True if a layer adds a constant float32 bias that no other node reads."""
    kind = node.op_type in ("Conv", "ConvTranspose", "Gemm") and not node.domain
    if not kind or len(node.input) < 3 or node.input[2] not in graph.constants:
        return False
    scaled = node.op_type == "Gemm" and attribute(node, "beta", 1.0) != 1.0
    alone = len(graph.consumers[node.input[2]]) == 1
    return alone and not scaled and bool(graph.constants[node.input[2]].dtype == np.float32)


def _largest(values: NDArray[Any]) -> float:
    """Returns the largest magnitude; infinity if a value is NaN."""
    largest = float(np.abs(values).max(initial=0))
    return np.inf if np.isnan(largest) else largest


def _compare(
    graph: Graph,
    node: onnx.NodeProto,
    values: Mapping[str, Chunks],
    outputs: Mapping[str, Chunks],
    observed: Observed,
) -> None:
    """Runs a node in float16 on the first chunk, and records whether and with which outputs this is possible."""
    fixed = fixed_inputs(node, graph.opsets)
    opaque = any(name in values and not isinstance(values[name][0], np.ndarray) for name in node.input)
    if fixed is None or opaque or not all(isinstance(chunks[0], np.ndarray) for chunks in outputs.values()):
        observed.unsupported.add(key(node))
        return
    names = {name for position, name in enumerate(node.input) if position not in fixed}
    expected = {name: chunks[0] for name, chunks in outputs.items() if chunks[0].dtype == np.float32}
    try:
        result = _rounded_run(graph, node, values, names, whole=True)
    except Exception:  # ONNX Runtime has no such kernel, and raises its own types
        observed.unsupported.add(key(node))
        return
    unchanged = {name for name in expected if result[name].dtype == np.float32}
    observed.unchanged.update(unchanged)
    if expected and len(unchanged) == len(expected):
        observed.unsupported.add(key(node))
    elif _change(expected, result) > SENSITIVE:
        alone = {name: _rounded_run(graph, node, values, {name}) for name in names}
        changing = {name for name in names if _change(expected, alone[name]) > SENSITIVE}
        observed.sensitive.setdefault(key(node), set()).update(changing)


def _rounded_run(
    graph: Graph, node: onnx.NodeProto, values: Mapping[str, Chunks], names: set[str], *, whole: bool = False
) -> dict[str, NDArray[Any]]:
    """Runs a node on the first chunk, with some float32 inputs rounded to float16.

    Args:
        graph: The graph of the node.
        node: The node.
        values: Computed inputs by name.
        names: Inputs to round.
        whole: True if the node computes in float16 too; otherwise rounded inputs are float32 again.
    """
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    chunks = {name: values[name][0] for name in node.input if name in values}
    constants = {name: graph.constants[name] for name in node.input if name in graph.constants}
    for tensors in (chunks, constants):
        for name in [name for name in tensors if name in names and tensors[name].dtype == np.float32]:
            with np.errstate(over="ignore"):
                half = tensors[name].astype(np.float16)
            tensors[f"{name}_rounded"] = half if whole else half.astype(np.float32)
            copy.input[:] = [f"{name}_rounded" if other == name else other for other in copy.input]
    if whole:
        retype_attributes(copy)
    result = run_node(graph, copy, {name: [chunk] for name, chunk in chunks.items()}, constants)
    return {name: parts[0] for name, parts in result.items()}


def _change(expected: Mapping[str, NDArray[Any]], result: Mapping[str, NDArray[Any]]) -> float:
    """Returns the largest change of an output as a fraction of its range; infinity if a shape changes."""
    changes = [0.0]
    for name, before in expected.items():
        if before.shape != result[name].shape:
            changes.append(np.inf)
        elif before.size and np.isfinite(before).all():
            span = float(np.ptp(before)) or float(np.abs(before).max()) or 1.0
            changes.append(float(np.abs(result[name].astype(np.float32) - before).max()) / span)
    return np.inf if np.isnan(changes).any() else max(changes)
