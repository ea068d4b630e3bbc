"""Makes channels constant that hardly change on faces, as long as no landmark moves further than the user allows.

Weight decay leaves channels whose range is a millionth of their neighbours' range. The pass replaces such a channel by
its mean: the filter becomes zero, and the bias becomes the mean. `compact` then folds the channel away like any
constant. (If the channels are set to zero instead, PFLD's landmarks move by 2.5 pixels.)

A bisection finds the number of channels. The order of the channels is their range, divided by the range of the widest
channel of the layer. Landmarks are compared on faces after each step, and on other faces at the end. The order is a
heuristic; the bound is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lmconv.errors import UsageError
from lmconv.graph.execution import walk
from lmconv.graph.index import Graph, attribute, layer_bias, reads
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import landmarks
from lmconv.networks.compare import difference
from lmconv.types import Float32, Json, Pass, PassContext

LARGEST = 0.1
"""Largest range of a candidate channel, as a fraction of the widest range in its layer."""
FACES = 32
"""Number of faces for the bisection; twice as many other faces check the result."""
MARGIN = 0.5
"""Fraction of the bound allowed on the faces of the bisection, because other faces differ."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Channels that may become constant, in the order in which the pass selects channels; each field has n entries.

    Attributes:
        layers: Name of the layer's output.
        channels: (n,) intp, index of the channel in its layer.
        means: (n,) float32, mean over faces and positions.
        ranges: (n,) float32, range over faces and positions, as a fraction of the widest range in the layer.
    """

    layers: list[str]
    channels: NDArray[np.intp]
    means: Float32
    ranges: Float32


def freeze(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Makes channels constant that hardly change on faces.

    Raises:
        UsageError: The context has no faces or no bound.
    """
    if context.crops is None or not context.compact_px:
        raise UsageError(
            "pass freeze needs real faces and a bound in pixels", hint="give --calibration DIR and --compact-px PIXELS"
        )
    bound = context.compact_px
    calibration, check = _split_faces(context.crops)
    candidates = _candidates(model, calibration)
    before = {"calibration": _landmarks(model, context, calibration), "check": _landmarks(model, context, check)}

    def shift(count: int, part: str, faces: Float32) -> float:
        after = _landmarks(_frozen(model, candidates, count), context, faces)
        return difference(after, before[part], context.spec.input_size).max_px

    low, high = 0, len(candidates.layers) + 1  # `low` channels are within the bound, `high` channels are not
    while high - low > 1:
        middle = (low + high) // 2
        within_bound = shift(middle, "calibration", calibration) <= bound * MARGIN
        low, high = (middle, high) if within_bound else (low, middle)
    while (check_shift := shift(low, "check", check)) > bound and low:
        low = low * 9 // 10
    shifts = {"calibration": shift(low, "calibration", calibration), "check": check_shift}
    widest = float(candidates.ranges[low - 1]) if low else 0.0
    return _frozen(model, candidates, low), {
        "bound_px": bound,
        "channels": low,
        "candidates": len(candidates.layers),
        "widest": widest,
        "moved_px": shifts,
        "faces": {"calibration": len(calibration), "check": len(check)},
    }


def _split_faces(crops: Float32) -> tuple[Float32, Float32]:
    """Returns faces for the bisection, and other faces for the check. The crops are already in random order."""
    count = min(FACES, max(1, len(crops) // 3))
    return crops[:count], crops[count : 3 * count] if len(crops) > 1 else crops


def _landmarks(model: onnx.ModelProto, context: PassContext, faces: Float32) -> Float32:
    """Returns the landmarks of the faces, (n, L, 2) float32, x before y, fractions of the input's width and height."""
    with OrtSession(model.SerializeToString()) as session:
        return landmarks(session, context.spec, faces)


def _is_candidate_layer(node: onnx.NodeProto, graph: Graph) -> bool:
    """True if a node is a Conv or Gemm with constant weights and a constant bias.

    Each output channel then has its own filter: along axis 0, or for a Gemm along the axis that `transB` selects.
    """
    if node.op_type not in ("Conv", "Gemm") or node.input[1] not in graph.constants:
        return False
    weight = graph.constants[node.input[1]]
    outputs = weight.shape[0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1]
    return layer_bias(node, graph.constants, outputs) is not None


def _candidates(model: onnx.ModelProto, faces: Float32) -> Candidates:
    """Returns the channels that change a little, ordered by range over faces and positions.

    Channels that never change are not candidates; `compact` removes them without a bound.
    """
    graph = Graph.of(model)
    layers = {node.output[0] for node in model.graph.node if _is_candidate_layer(node, graph)} - set(graph.outputs)
    names: list[str] = []
    columns: list[NDArray[Any]] = []
    for tensors in walk(graph, faces):
        for name in layers & tensors.keys():
            chunks = tensors[name]
            reduced = tuple(axis for axis in range(chunks[0].ndim) if axis != 1)
            largest = np.max([chunk.max(axis=reduced) for chunk in chunks], axis=0)
            smallest = np.min([chunk.min(axis=reduced) for chunk in chunks], axis=0)
            spread = (largest - smallest) / max(float((largest - smallest).max()), 1e-30)
            selected = np.flatnonzero((spread > 0) & (spread <= LARGEST))
            mean = np.mean([chunk.mean(axis=reduced, dtype=np.float64) for chunk in chunks], axis=0)
            names += [name] * len(selected)
            columns.append(np.stack([selected, mean[selected], spread[selected]]))
    channels, means, ranges = np.concatenate(columns, axis=1) if columns else np.zeros((3, 0))
    order = np.argsort(ranges, kind="stable")
    return Candidates(
        layers=[names[index] for index in order],
        channels=channels[order].astype(np.intp),
        means=means[order].astype(np.float32),
        ranges=ranges[order].astype(np.float32),
    )


def _frozen(model: onnx.ModelProto, candidates: Candidates, count: int) -> onnx.ModelProto:
    """Returns a copy of the model in which the first `count` candidates are constant."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph.of(model)
    by_layer: dict[str, list[int]] = {}
    for index in range(count):
        by_layer.setdefault(candidates.layers[index], []).append(index)
    constants: dict[str, NDArray[Any]] = {}
    for node in copy.graph.node:
        if rows := by_layer.get(node.output[0]):
            weight = graph.constants[node.input[1]].copy()
            filters = weight if node.op_type == "Conv" or attribute(node, "transB", 0) else weight.T
            bias = layer_bias(node, graph.constants, len(filters))
            assert bias is not None  # `_is_candidate_layer` excludes other nodes
            bias = bias.astype(np.float32)
            filters[candidates.channels[rows]] = 0
            bias[candidates.channels[rows]] = candidates.means[rows]
            names = [f"{node.output[0]}_frozen_weight", f"{node.output[0]}_frozen_bias"]
            constants.update(zip(names, (weight, bias), strict=True))
            node.input[:] = [node.input[0], *names]
            attributes = [item for item in node.attribute if item.name != "beta"]
            del node.attribute[:]
            node.attribute.extend(attributes)
    used = {name for node in copy.graph.node for name in reads(node)} | set(graph.outputs)
    tensors = [tensor for tensor in copy.graph.initializer if tensor.name in used]
    del copy.graph.initializer[:]
    tensors += [numpy_helper.from_array(value, name) for name, value in constants.items()]
    copy.graph.initializer.extend(tensors)
    return copy


plugin = Pass(
    name="freeze",
    summary="channels that hardly change on faces become constant, within a bound in pixels (--compact-px)",
    apply=freeze,
    tolerance=1e-2,
    calibrated=True,
    uses=("crops", "compact_px"),
)
