"""Channels that hardly change on faces taken for constant, as long as no landmark moves further than the user allows.

Weight decay leaves channels whose range is a millionth of their neighbours'. Each is replaced by its mean: its filter
becomes zero, and its bias that mean. `compact` then folds it away as it does any constant. (Set to zero instead, such
channels move PFLD's landmarks by 2.5 pixels.)

How many go is found by bisection: channels in order of their range, against that of the widest channel of their layer;
landmarks are compared on faces after each try, and at the end on other faces. The order is a guess, the bound is not.
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
from lmconv.graph.index import Graph, attribute, layer_bias
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import landmarks
from lmconv.networks.compare import difference
from lmconv.types import Float32, Json, Pass, PassContext

LARGEST = 0.1
"""Range at which a channel is no candidate any more, fractions of the widest in its layer."""
FACES = 32
"""How many faces the number of channels is found on; twice as many others check it."""
MARGIN = 0.5
"""Of the bound, how much may be used up on the faces that the number is found on: others differ."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Channels in the order in which they are taken, (n,) each: layer, channel, mean, and range by the layer's."""

    layers: list[str]
    channels: NDArray[np.intp]
    means: Float32
    ranges: Float32


def freeze(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Makes channels constant that hardly change on faces.

    Raises:
        UsageError: There are no faces, or no bound.
    """
    if context.crops is None or not context.compact_px:
        raise UsageError("channels are taken for constant on real faces alone", hint="give --calibration DIR")
    bound, crops = context.compact_px, context.crops
    found, check = _parts(crops)
    candidates = _candidates(model, found)
    before = {"calibration": _landmarks(model, context, found), "check": _landmarks(model, context, check)}

    def shift(count: int, part: str, faces: Float32) -> float:
        after = _landmarks(_frozen(model, candidates, count), context, faces)
        return difference(after, before[part], context.spec.input_size).max_px

    low, high = 0, len(candidates.layers) + 1  # so many are fine, so many are not
    while high - low > 1:
        middle = (low + high) // 2
        fine = shift(middle, "calibration", found) <= bound * MARGIN
        low, high = (middle, high) if fine else (low, middle)
    while (on_others := shift(low, "check", check)) > bound and low:
        low = low * 9 // 10
    moved = {"calibration": shift(low, "calibration", found), "check": on_others}
    widest = float(candidates.ranges[low - 1]) if low else 0.0
    return _frozen(model, candidates, low), {
        "bound_px": bound,
        "channels": low,
        "candidates": len(candidates.layers),
        "widest": widest,
        "moved_px": moved,
        "faces": {"calibration": len(found), "check": len(check)},
    }


def _parts(crops: Float32) -> tuple[Float32, Float32]:
    """Faces to find the number on, and others to check it on; crops come in an order that was drawn."""
    count = min(FACES, max(1, len(crops) // 3))
    return crops[:count], crops[count : 3 * count] if len(crops) > 1 else crops


def _landmarks(model: onnx.ModelProto, context: PassContext, faces: Float32) -> Float32:
    with OrtSession(model.SerializeToString()) as session:
        return landmarks(session, context.spec, faces)


def _layer(node: onnx.NodeProto, graph: Graph) -> bool:
    """A layer whose output channels have filters of their own: axis 0, or for Gemm the axis that transB says."""
    if node.op_type not in ("Conv", "Gemm") or node.input[1] not in graph.constants:
        return False
    weight = graph.constants[node.input[1]]
    outputs = weight.shape[0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1]
    return layer_bias(node, graph.constants, outputs) is not None


def _candidates(model: onnx.ModelProto, faces: Float32) -> Candidates:
    """Channels that change a little, by their range over faces and places; those that never do are no candidates."""
    graph = Graph.of(model)
    layers = {node.output[0] for node in model.graph.node if _layer(node, graph)} - set(graph.outputs)
    names: list[str] = []
    columns: list[NDArray[Any]] = []
    for made in walk(graph, faces):
        for name in layers & made.keys():
            others = tuple(axis for axis in range(made[name][0].ndim) if axis != 1)
            largest = np.max([chunk.max(axis=others) for chunk in made[name]], axis=0)
            smallest = np.min([chunk.min(axis=others) for chunk in made[name]], axis=0)
            spread = (largest - smallest) / max(float((largest - smallest).max()), 1e-30)
            chosen = np.flatnonzero((spread > 0) & (spread <= LARGEST))
            mean = np.mean([chunk.mean(axis=others, dtype=np.float64) for chunk in made[name]], axis=0)
            names += [name] * len(chosen)
            columns.append(np.stack([chosen, mean[chosen], spread[chosen]]))
    channels, means, ranges = np.concatenate(columns, axis=1) if columns else np.zeros((3, 0))
    order = np.argsort(ranges, kind="stable")
    return Candidates(
        layers=[names[index] for index in order],
        channels=channels[order].astype(np.intp),
        means=means[order].astype(np.float32),
        ranges=ranges[order].astype(np.float32),
    )


def _frozen(model: onnx.ModelProto, candidates: Candidates, count: int) -> onnx.ModelProto:
    """A copy whose first `count` candidates are constant."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph.of(model)
    chosen: dict[str, list[int]] = {}
    for index in range(count):
        chosen.setdefault(candidates.layers[index], []).append(index)
    made: dict[str, NDArray[Any]] = {}
    for node in copy.graph.node:
        if rows := chosen.get(node.output[0]):
            weight = graph.constants[node.input[1]].copy()
            filters = weight if node.op_type == "Conv" or attribute(node, "transB", 0) else weight.T
            added = layer_bias(node, graph.constants, len(filters))
            assert added is not None  # or it would be no candidate
            added = added.astype(np.float32)
            filters[candidates.channels[rows]] = 0
            added[candidates.channels[rows]] = candidates.means[rows]
            names = [f"{node.output[0]}_frozen_weight", f"{node.output[0]}_frozen_bias"]
            made.update(zip(names, (weight, added), strict=True))
            node.input[:] = [node.input[0], *names]
            kept = [item for item in node.attribute if item.name != "beta"]
            del node.attribute[:]
            node.attribute.extend(kept)
    used = {name for node in copy.graph.node for name in node.input}
    tensors = [tensor for tensor in copy.graph.initializer if tensor.name in used]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend([*tensors, *(numpy_helper.from_array(value, name) for name, value in made.items())])
    return copy


plugin = Pass(
    name="freeze",
    summary="channels that hardly change on faces made constant, within a bound in pixels (--compact-px)",
    apply=freeze,
    tolerance=1e-2,
    calibrated=True,
    uses=("crops", "compact_px"),
)
