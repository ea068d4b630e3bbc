"""Rules of operators that work along the axes behind the channels: reductions, softmax, padding, resizing."""

from __future__ import annotations

import onnx

from lmconv.compaction.rules.rule import NoRule, Rule, RuleFunction, constant_input, one_to_one
from lmconv.compaction.trace import GraphTrace
from lmconv.graph.index import attribute

REDUCE = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")


def axes_of(node: onnx.NodeProto, trace: GraphTrace, rank: int, index: int = 1) -> list[int]:
    """Returns the axes of a node as indices from 0: an attribute or the constant input `index`; by default all axes."""
    constant = constant_input(trace, node, index)
    axes = attribute(node, "axes", None) if constant is None else constant.ravel().tolist()
    return [axis % rank for axis in axes or range(rank)]


def _reduce(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a reduction over axes behind the channels."""
    if attribute(node, "noop_with_empty_axes", 0) or min(axes_of(node, trace, trace.values[node.input[0]].ndim)) < 2:
        raise NoRule("it works over channels")
    return one_to_one(node, trace)


def _one_axis(default: int) -> RuleFunction:
    """Returns the rule of an operator along one axis behind the channels; `default` is the operator's default axis."""

    def along_axis(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
        if attribute(node, "axis", default) % trace.values[node.input[0]].ndim < 2:
            raise NoRule("it works over channels")
        return one_to_one(node, trace)

    return along_axis


def _pad(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a Pad that adds nothing to batch and channels."""
    rank = trace.values[node.input[0]].ndim
    pads = constant_input(trace, node, 1)
    if pads is None:
        raise NoRule("what it is told is computed")
    axes = axes_of(node, trace, rank, 3)
    amounts = dict(zip([*axes, *(axis + rank for axis in axes)], pads.ravel().tolist(), strict=True))
    if any(amounts.get(axis, 0) for axis in (0, 1, rank, rank + 1)):
        raise NoRule("it adds channels")
    return one_to_one(node, trace)


def _resize(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Rule of a Resize with constant factors or sizes of all axes."""
    for index in (2, 3):
        constant_input(trace, node, index)
    if (
        attribute(node, "axes", None) is not None
        or attribute(node, "keep_aspect_ratio_policy", b"stretch") != b"stretch"
    ):
        raise NoRule("its axes are named")
    return one_to_one(node, trace)


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(REDUCE, _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _one_axis(-1)),
    **dict.fromkeys(("ArgMax", "ArgMin"), _one_axis(0)),
    "Pad": _pad,
    "Resize": _resize,
}
