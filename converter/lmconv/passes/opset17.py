"""Lowers a graph from opset 18 to 24 to 17 for TensorRT 8.6, whose parser documents no later opset.

ONNX's own converter cannot lower Pad and Split. If opset 17 cannot express a node, that converter stops without naming
the node. This pass rewrites every operator that opset 18 changed or added, in subgraphs too, or refuses the node by
name. Functions are inlined. Operators of other domains stay unchanged, because their definitions do not depend on this
opset. The meaning of the graph does not change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper, shape_inference

from lmconv.errors import GateFailed, InputError
from lmconv.graph import naming
from lmconv.graph.index import attribute, reads, subgraphs
from lmconv.graph.rewriter import make
from lmconv.opsets.functions import written_out
from lmconv.opsets.lowering import lowered
from lmconv.opsets.rewriting import rewrite
from lmconv.opsets.versions import STANDARD, opset_of
from lmconv.passes.qlinear import RULES as QLINEAR
from lmconv.types import FLOAT16_ROUNDING, OPSET, Json, Pass, PassContext

LOWERED_OPSET = 17
"""Opset of the lowered graph."""
IR = 8
"""IR version released with opset 17. The graph uses nothing that later IR versions added."""
HINT = "use TensorRT 10 or later, which reads opset 18; or change this node in the network"
"""Hint for a node that opset 17 cannot express."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Everything that a node of one graph can refer to, names of the enclosing graphs included.

    Attributes:
        graph: The graph of the node.
        constants: Constants by name, as arrays.
        shapes: Shapes by name; a free axis is None.
        taken: All names in use.
    """

    graph: onnx.GraphProto
    constants: Mapping[str, NDArray[Any]]
    shapes: Mapping[str, tuple[int | None, ...]]
    taken: set[str]

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Adds an initializer and returns its name: `name`, with a number appended if `name` is in use."""
        name = naming.fresh(name, self.taken)
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def shape(self, node: onnx.NodeProto) -> tuple[int | None, ...]:
        """Returns the shape of a node's first input.

        Raises:
            GateFailed: The rank is unknown.
        """
        if node.input[0] not in self.shapes:
            _refuse(node, "has an input of unknown rank")
        return self.shapes[node.input[0]]

    def constant_input(self, node: onnx.NodeProto, index: int, what: str) -> NDArray[Any] | None:
        """Returns a constant input of a node; None if the node omits this input.

        Args:
            node: The node.
            index: Index of the input.
            what: Plural noun that names the input in the error message.

        Raises:
            GateFailed: The input is computed.
        """
        if len(node.input) <= index or not node.input[index]:
            return None
        if node.input[index] not in self.constants:
            _refuse(node, f"has computed {what}")
        return self.constants[node.input[index]]


Rule = Callable[[onnx.NodeProto, Scope], list[onnx.NodeProto]]
"""Function that returns the nodes to write instead of a node; the function may change the node itself."""


def opset17(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Lowers a graph of the hub with any inputs and outputs.

    Raises:
        GateFailed: Opset 17 cannot express a node; the message names the node.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    rewrite(model, QLINEAR)
    if opset_of(model) > OPSET:
        model = _in_opset_18(model)
    changed: Counter[str] = Counter()
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    _lower(model.graph, inferred.graph, Scope(graph=model.graph, constants={}, shapes={}, taken=set()), changed)
    for entry in model.opset_import:
        entry.version = LOWERED_OPSET if entry.domain in STANDARD else entry.version
    model.ir_version = min(model.ir_version, IR)
    return model, {"changed": dict(sorted(changed.items()))}


def _in_opset_18(model: onnx.ModelProto) -> onnx.ModelProto:
    """Lowers a graph of a later opset to 18, with constant axes and without CastLike, which the parser of 8.6 lacks."""
    import onnxsim

    try:
        model = lowered(model, OPSET, "the graph")
    except InputError as error:
        raise GateFailed(error.message, hint=HINT) from error
    model, _ = onnxsim.simplify(written_out(model, ["CastLike"]), check_n=0)
    return model


def _lower(graph: onnx.GraphProto, inferred: onnx.GraphProto, enclosing: Scope, changed: Counter[str]) -> None:
    """Lowers a graph and its subgraphs in place.

    Args:
        graph: The graph.
        inferred: The same graph with inferred shapes.
        enclosing: Scope of the enclosing graph.
        changed: Counter of changed nodes by operator; is updated.
    """
    scope = Scope(
        graph=graph,
        constants={**enclosing.constants, **_constants(graph)},
        shapes={**enclosing.shapes, **_shapes(inferred)},
        taken=enclosing.taken or naming.taken(graph),
    )
    nodes: list[onnx.NodeProto] = []
    for node, inferred_node in zip(graph.node, inferred.node, strict=True):
        for inner, inferred_inner in zip(subgraphs(node), subgraphs(inferred_node), strict=True):
            _lower(inner, inferred_inner, scope, changed)
        before = node.SerializeToString()
        lowered = RULES[node.op_type](node, scope) if node.domain in STANDARD and node.op_type in RULES else [node]
        if [new.SerializeToString() for new in lowered] != [before]:
            changed[node.op_type] += 1
        nodes += lowered
    _write(graph, nodes)


def _write(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replaces the nodes of a graph. Removes constants that nothing reads any more."""
    read = {value.name for value in graph.output}.union(*(reads(node) for node in nodes))
    needed = [node for node in nodes if node.op_type != "Constant" or node.output[0] in read]
    tensors = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(needed)
    graph.initializer.extend(tensors)


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Returns the initializers and the Constant nodes of a graph as arrays, by name."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Constant" or node.domain not in STANDARD:
            continue
        if (tensor := attribute(node, "value", None)) is not None:
            constants[node.output[0]] = numpy_helper.to_array(tensor)
        elif (numbers := attribute(node, "value_ints", None)) is not None:
            constants[node.output[0]] = np.array(numbers, np.int64)
    return constants


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int | None, ...]]:
    """Returns the declared shapes of a graph's values by name; a free axis is None."""
    shapes: dict[str, tuple[int | None, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
    return shapes


def _refuse(node: onnx.NodeProto, what: str) -> NoReturn:
    """Raises the error for a node that opset 17 cannot express. `what` is a verb phrase whose subject is the node."""
    name = node.name or node.output[0]
    raise GateFailed(
        f"node {name} ({node.op_type}) {what}, which opset {LOWERED_OPSET} does not support",
        hint=HINT,
    )


def _drop(node: onnx.NodeProto, *names: str) -> None:
    """Removes attributes from a node."""
    attributes = [item for item in node.attribute if item.name not in names]
    del node.attribute[:]
    node.attribute.extend(attributes)


def _cut(node: onnx.NodeProto, count: int) -> None:
    """Keeps the first `count` inputs of a node, without empty inputs at the end."""
    inputs = list(node.input[:count])
    while inputs and not inputs[-1]:
        inputs.pop()
    node.input[:] = inputs


def _axes(axes: NDArray[Any] | list[int], rank: int) -> list[int]:
    """Returns the axes as indices from 0."""
    return [int(axis) % rank for axis in axes]


def _reduce(node: onnx.NodeProto, scope: Scope) -> list[onnx.NodeProto]:
    """Moves the axes of a reduction from an input to an attribute."""
    axes = scope.constant_input(node, 1, "axes")
    if attribute(node, "noop_with_empty_axes", 0) and (axes is None or not axes.size):
        if node.op_type not in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"):
            _refuse(node, "reduces no axes")  # some runtimes still transform each value, so Identity would differ
        return [make("Identity", [node.input[0]], node.output[0])]
    _drop(node, "noop_with_empty_axes")
    _cut(node, 1)
    if axes is not None and axes.size:
        node.attribute.append(helper.make_attribute("axes", axes.tolist()))
    return [node]


def _pad(node: onnx.NodeProto, scope: Scope) -> list[onnx.NodeProto]:
    """Replaces the pads of some axes by pads of all axes."""
    axes = scope.constant_input(node, 3, "axes")
    if axes is not None:
        pads = scope.constant_input(node, 1, "pads of some axes")
        assert pads is not None, "Pad requires the input `pads`"
        rank = len(scope.shape(node))
        all_pads = np.zeros((2, rank), np.int64)
        all_pads[:, _axes(axes, rank)] = pads.reshape(2, -1)
        node.input[1] = scope.constant(f"{node.output[0]}_pads", all_pads.ravel())
    _cut(node, 3)
    return [node]


def _split(node: onnx.NodeProto, scope: Scope) -> list[onnx.NodeProto]:
    """Replaces the number of parts by their sizes: all equal, except the last part, which has the remainder."""
    parts = attribute(node, "num_outputs", None)
    _drop(node, "num_outputs")
    if parts is None:
        return [node]
    shape = scope.shape(node)
    size = shape[attribute(node, "axis", 0) % len(shape)]
    if size is None:
        _refuse(node, f"splits a free axis into {parts} parts")
    part_size = -(-size // parts)
    sizes = np.array([*[part_size] * (parts - 1), size - part_size * (parts - 1)], np.int64)
    node.input[:] = [node.input[0], scope.constant(f"{node.output[0]}_sizes", sizes)]
    return [node]


def _resize(node: onnx.NodeProto, scope: Scope) -> list[onnx.NodeProto]:
    """Replaces factors or sizes of some axes by factors of all axes.

    Refuses antialiasing and, for sizes, an aspect-ratio policy other than the default. The policy has no effect on
    factors.
    """
    has_sizes = len(node.input) > 3 and node.input[3]
    if attribute(node, "antialias", 0):
        _refuse(node, "has antialias")
    if has_sizes and (policy := attribute(node, "keep_aspect_ratio_policy", b"stretch")) != b"stretch":
        _refuse(node, f"has keep_aspect_ratio_policy {policy.decode()}")
    if (axes := attribute(node, "axes", None)) is not None:
        _resize_all(node, scope, axes)
    _drop(node, "antialias", "keep_aspect_ratio_policy", "axes")
    return [node]


def _resize_all(node: onnx.NodeProto, scope: Scope, axes: list[int]) -> None:
    """Replaces the factors or sizes of some axes of a Resize by factors of all axes."""
    if attribute(node, "coordinate_transformation_mode", b"") == b"tf_crop_and_resize":
        _refuse(node, "crops some axes")
    shape = scope.shape(node)
    resized = _axes(axes, len(shape))
    factors = scope.constant_input(node, 2, "factors of some axes")
    if factors is None or not factors.size:
        sizes = scope.constant_input(node, 3, "sizes of some axes")
        assert sizes is not None, "Resize requires factors or sizes"
        before = [shape[axis] for axis in resized]
        if None in before:
            _refuse(node, "has sizes of axes whose input size is unknown")
        factors = np.array([_factor(old or 1, int(new)) for old, new in zip(before, sizes, strict=True)], np.float32)
    all_factors = np.ones(len(shape), np.float32)
    all_factors[resized] = factors
    node.input[:] = [node.input[0], "", scope.constant(f"{node.output[0]}_factors", all_factors)]


def _factor(old: int, new: int) -> np.float32:
    """Returns the factor from one size to another.

    Resize truncates `old * factor` to an integer, so the factor is rounded up where rounding down would lose one.
    """
    factor = np.float32(new / old)
    return factor if old * float(factor) >= new else np.nextafter(factor, np.float32(np.inf))


def _scatter(node: onnx.NodeProto, scope: Scope) -> list[onnx.NodeProto]:
    """Refuses the two reductions that opset 18 added. Scatter is otherwise unchanged."""
    if (reduction := attribute(node, "reduction", b"none")) in (b"max", b"min"):
        _refuse(node, f"has reduction {reduction.decode()}")
    return [node]


def _lp_pool(node: onnx.NodeProto, scope: Scope) -> list[onnx.NodeProto]:
    """Removes attributes that opset 17 does not have, if these have their default values."""
    if attribute(node, "ceil_mode", 0) or set(attribute(node, "dilations", [1])) != {1}:
        _refuse(node, "has ceil_mode or dilations")
    _drop(node, "ceil_mode", "dilations")
    return [node]


def _mish(node: onnx.NodeProto, scope: Scope) -> list[onnx.NodeProto]:
    """Replaces Mish by its definition x tanh(softplus(x))."""
    softplus, tanh = (naming.fresh(f"{node.output[0]}_{part}", scope.taken) for part in ("softplus", "tanh"))
    return [
        make("Softplus", [node.input[0]], softplus),
        make("Tanh", [softplus], tanh),
        make("Mul", [node.input[0], tanh], node.output[0]),
    ]


def _refuse_new(node: onnx.NodeProto, scope: Scope) -> list[onnx.NodeProto]:
    """Refuses an operator that opset 18 added."""
    _refuse(node, "is an operator of opset 18")


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
NEW = (
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im", "GroupNormalization",
    "OptionalGetElement", "OptionalHasElement",
)  # fmt: skip
"""Operators that opset 18 added. The two Optional operators existed before, but only for other types."""
RULES: dict[str, Rule] = {
    **{f"Reduce{kind}": _reduce for kind in REDUCTIONS},
    "Pad": _pad,
    "Split": _split,
    "Resize": _resize,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "LpPool": _lp_pool,
    "Mish": _mish,
    **dict.fromkeys(NEW, _refuse_new),
}
"""Rule of each operator that opset 18 changed or added, by operator."""

plugin = Pass(
    name="opset17",
    summary="lowers opset 18 to 17, for TensorRT 8.6",
    apply=opset17,
    tolerance=FLOAT16_ROUNDING,  # 0 in float32 and int8
    required=True,
    opset=LOWERED_OPSET,
)
