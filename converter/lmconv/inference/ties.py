"""Ties inside a network: points that jump in the source network itself when the input changes by a rounding error.

A network that decodes heatmaps inside (arg-max, top-k) chooses between candidates. Where two candidates are equal
within the rounding of the precision, the source and an artefact may choose differently, and both choices are right.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.shape_inference import infer_shapes

from lmconv.graph import naming
from lmconv.graph.facts import copied, parse_nodes
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import outputs
from lmconv.networks.outputs import Outputs
from lmconv.types import Float32, Float64, ModelSpec, Precision, Session

ROUNDING = {
    Precision.FP32: 2.0**-21,
    Precision.FP16: 2.0**-9,
    Precision.BF16: 2.0**-6,
    Precision.INT8: 2.0**-6,
    Precision.MIXED: 2.0**-6,
}
"""Change of the input, fractions of its largest value: four roundings of the precision."""
LAST_RANDOM = 21
"""Last opset whose random numbers ONNX Runtime 1.32 computes."""
DRAWS = 8
"""Number of random changes."""
DECISIONS = ("ArgMax", "ArgMin", "TopK", "Hardmax")
"""Operators that choose between candidates."""
SMOOTH = 8.0
"""Smallest ratio of a jump to the median movement of all points: a smooth network moves all its points alike."""
EXCESS = 2.0
"""Largest ratio of the difference of an artefact at a point to the largest jump of the source at this point."""


def jumps(
    session: Session, spec: ModelSpec, inputs: Float32, precision: Precision, graph: onnx.ModelProto | None = None
) -> Float64:
    """Measures the movement of each point of the source network under random changes of the size of rounding.

    The input changes. If the graph is known, the candidates of each arg-max and top-k change too, because candidates
    may be equal for every input, for example zeros behind a ReLU.

    Args:
        session: A session on the source network.
        spec: Spec of the source network, whose input is a tensor.
        inputs: (n, 3, H, W) float32 network inputs.
        precision: Precision of the artefact, which gives the size of the changes.
        graph: A graph that computes the same as the source network.

    Returns:
        (n, L) float64, largest movement of a coordinate, fractions of the input; 0 where the movement is smooth.
    """
    random, before = np.random.default_rng(0), outputs(session, spec, inputs, maps=0).landmarks.astype(np.float64)
    change = ROUNDING[precision] * float(np.abs(inputs).max(initial=0.0))
    moved = np.zeros(before.shape[:2])
    for _ in range(DRAWS):
        noisy = inputs + random.uniform(-change, change, inputs.shape).astype(np.float32)
        moved = np.maximum(moved, np.abs(outputs(session, spec, noisy, maps=0).landmarks - before).max(-1))
    if graph is not None and _takes_noise(graph):
        moved = np.maximum(moved, _chosen_otherwise(graph, spec, inputs, ROUNDING[precision]))
    return np.where(moved > SMOOTH * np.median(moved), moved, 0.0)


def _takes_noise(graph: onnx.ModelProto) -> bool:
    """True if a graph has decisions, and an opset whose random numbers ONNX Runtime computes."""
    versions = [entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions) <= LAST_RANDOM and any(node.op_type in DECISIONS for node in graph.graph.node)


def _chosen_otherwise(graph: onnx.ModelProto, spec: ModelSpec, inputs: Float32, size: float) -> Float64:
    """Returns the largest movement of each point, (n, L) float64, if the candidates of decisions change."""
    moved, before = np.zeros(()), None
    for seed in range(DRAWS + 1):
        model = _with_noise(graph, size, seed) if seed else graph
        with OrtSession(model.SerializeToString()) as session:
            after = outputs(session, spec, inputs, maps=0).landmarks.astype(np.float64)
        before = after if before is None else before
        moved = np.maximum(moved, np.abs(after - before).max(-1))
    return moved


def _with_noise(graph: onnx.ModelProto, size: float, seed: int) -> onnx.ModelProto:
    """Returns a copy of a graph with noise on the candidates of each decision, fractions of the largest candidate."""
    model = copied(graph)
    types = {value.name: value.type.tensor_type.elem_type for value in infer_shapes(model).graph.value_info}
    nodes, taken = [], naming.taken(model.graph)
    for index, node in enumerate(model.graph.node):
        if node.op_type in DECISIONS and not node.domain and types.get(node.input[0]) == onnx.TensorProto.FLOAT:
            name, prefix = node.input[0], naming.fresh(f"{node.input[0]}_noisy", taken)
            body = f"""
                size = Abs (value)
                largest = ReduceMax <keepdims = 0> (size)
                noise = RandomUniformLike <low = {-size}, high = {size}, seed = {float(seed + index)}> (value)
                change = Mul (noise, largest)
                changed = Add (value, change)
            """
            noisy, _ = parse_nodes(body, {}, {"value": name, "changed": prefix}, prefix)
            node.input[0] = prefix
            nodes += noisy
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def ties(actual: Outputs, expected: Outputs, jumped: Float64, allowed: float) -> NDArray[np.bool_]:
    """Finds the points at which an artefact differs because of a tie.

    Args:
        actual: Outputs of the artefact.
        expected: Outputs of the source network for the same inputs.
        jumped: (n, L) float64 result of `jumps` for these inputs.
        allowed: Largest difference of a coordinate without a tie, fractions of the input.

    Returns:
        (n, L) bool: the source jumps there beyond `allowed`, and the artefact differs by at most `EXCESS` jumps.
    """
    off = np.abs(actual.landmarks.astype(np.float64) - expected.landmarks).max(-1)
    found: NDArray[np.bool_] = (off > allowed) & (jumped > allowed) & (off <= EXCESS * jumped)
    return found
