"""How the channels of what a node gives depend on the channels of what it reads: one rule for each kind of operator.

A channel is an index of axis 1 of a value whose axis 0 is the batch. An operator that no rule fits is taken as one
that reads every channel whole; that is always true, and never removes too much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from lmconv.compaction.observe import Observed
from lmconv.graph.index import attribute, layer_bias, padded, reads

Indices: TypeAlias = NDArray[np.intp]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Link:
    """Channels of an input and of an output that are one: `outer[i]` is made of `inner[i]`; both stay, or both go."""

    input: str
    output: str
    inner: Indices
    outer: Indices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixedPrecision:
    """Outputs that are weighted sums over an input's channels.

    Attributes:
        input: Its name.
        output: What comes of it.
        weight: (outputs, inputs / blocks, ...) any float.
        taps: (outputs, inputs) bool, whether an input channel plays a part in an output.
        foldable: Whether a constant channel, the same at every place, adds a constant to every output.
        why: Why not, where not.
        blocks: Into how many groups of equal size inputs and outputs fall; each stays or goes whole.
    """

    input: str
    output: str
    weight: NDArray[Any]
    taps: Flags
    foldable: bool
    why: str = ""
    blocks: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """What a node does with channels.

    Attributes:
        node: The node.
        links: Channels that stay or go together.
        mix: Where it is a convolution or a linear layer.
        spread: Inputs of one channel that every output channel reads.
        sliced: Constant inputs that have an entry for each output channel: place and axis.
        zeroed: Output channels that are constant whatever goes in; None where there are none.
        annihilates: Whether an input channel that is zero makes the output zero.
        whole: Why it reads everything as it is; empty where it does not.
    """

    node: onnx.NodeProto
    links: list[Link] = field(default_factory=list)
    mix: MixedPrecision | None = None
    spread: list[str] = field(default_factory=list)
    sliced: list[tuple[int, int]] = field(default_factory=list)
    zeroed: Flags | None = None
    annihilates: bool = False
    whole: str = ""


class NotUnderstood(Exception):
    """No rule fits; says why."""


def rule(node: onnx.NodeProto, seen: Observed) -> Rule:
    """The rule of a node."""
    try:
        if node.domain not in ("", "ai.onnx") or node.op_type not in RULES:
            raise NotUnderstood(f"no rule for {node.op_type}")
        found = RULES[node.op_type](node, seen)
        covered = {*found.spread, *(link.input for link in found.links), found.mix.input if found.mix else ""}
        if node.op_type != "Shape" and any(name not in seen.constants for name in set(reads(node)) - covered):
            raise NotUnderstood("what it is told is computed")
        return found
    except NotUnderstood as reason:
        return Rule(node=node, whole=f"{node.op_type}: {reason}")


def _units(seen: Observed, name: str) -> int:
    units = seen.units(name)
    if units is None:
        raise NotUnderstood("a value without channels")
    return units


def _fixed(seen: Observed, node: onnx.NodeProto, place: int) -> NDArray[Any] | None:
    """A constant input, None where it is left out."""
    if len(node.input) <= place or not node.input[place]:
        return None
    if node.input[place] not in seen.constants:
        raise NotUnderstood("what it is told is computed")
    return seen.constants[node.input[place]]


def _same(seen: Observed, node: onnx.NodeProto, place: int = 0, output: int = 0) -> Link:
    """Channel by channel."""
    units = _units(seen, node.output[output])
    if _units(seen, node.input[place]) != units:
        raise NotUnderstood("the number of channels changes")
    every = np.arange(units)
    return Link(input=node.input[place], output=node.output[output], inner=every, outer=every)


def _each(node: onnx.NodeProto, seen: Observed) -> Rule:
    """One value in, one out."""
    if any(node.output[1:]):
        raise NotUnderstood("it gives more than one value")
    if node.op_type == "Dropout" and _fixed(seen, node, 2) is not None:
        raise NotUnderstood("in training mode")
    return Rule(node=node, links=[_same(seen, node)])


def _elementwise(node: onnx.NodeProto, seen: Observed) -> Rule:
    """Any number of inputs, broadcast."""
    out = node.output[0]
    units, rank = _units(seen, out), seen.values[out].ndim
    links, spread, sliced = [], [], []
    zeroed = np.zeros(units, bool)
    for place, name in enumerate(node.input):
        if name in seen.constants:
            constant = seen.constants[name]
            axis = 1 - (rank - constant.ndim)
            if constant.ndim == rank and constant.shape[0] != 1:
                raise NotUnderstood("a constant with a batch axis")
            if axis >= 0 and constant.shape[axis] == units > 1:
                sliced.append((place, axis))
                others = tuple(i for i in range(constant.ndim) if i != axis)
                zeroed |= (constant == 0).all(axis=others)
            else:
                zeroed |= bool((constant == 0).all())
        elif name:
            if seen.values[name].ndim != rank or seen.units(name) not in (1, units):
                raise NotUnderstood("it broadcasts over channels")
            if seen.units(name) == units:
                links.append(_same(seen, node, place))
            else:
                spread.append(name)
    if not links:
        raise NotUnderstood("it broadcasts over channels")
    product = node.op_type == "Mul"
    return Rule(
        node=node,
        links=links,
        spread=spread,
        sliced=sliced,
        zeroed=zeroed if product else None,
        annihilates=product,
    )


def _normalisation(node: onnx.NodeProto, seen: Observed) -> Rule:
    if any(node.output[1:]):
        raise NotUnderstood("in training mode")
    sliced = [(place, 0) for place in range(1, len(node.input))]
    scale = _fixed(seen, node, 1)
    return Rule(node=node, links=[_same(seen, node)], sliced=sliced, zeroed=np.asarray(scale == 0))


def _axes(node: onnx.NodeProto, seen: Observed, rank: int, place: int = 1) -> list[int]:
    """The axes a node works on, from an attribute or a constant input, counted from 0; all where none are named."""
    given = _fixed(seen, node, place)
    axes = attribute(node, "axes", None) if given is None else given.ravel().tolist()
    return [axis % rank for axis in axes or range(rank)]


def _reduce(node: onnx.NodeProto, seen: Observed) -> Rule:
    if attribute(node, "noop_with_empty_axes", 0) or min(_axes(node, seen, seen.values[node.input[0]].ndim)) < 2:
        raise NotUnderstood("it works over channels")
    return _each(node, seen)


def _squeeze(node: onnx.NodeProto, seen: Observed) -> Rule:
    rank = max(seen.values[node.input[0]].ndim, seen.values[node.output[0]].ndim)
    if min(_axes(node, seen, rank)) < 2:
        raise NotUnderstood("it moves the channels")
    return _each(node, seen)


def _one_axis(default: int) -> Callable[[onnx.NodeProto, Observed], Rule]:
    def along(node: onnx.NodeProto, seen: Observed) -> Rule:
        if attribute(node, "axis", default) % seen.values[node.input[0]].ndim < 2:
            raise NotUnderstood("it works over channels")
        return _each(node, seen)

    return along


def _transpose(node: onnx.NodeProto, seen: Observed) -> Rule:
    if list(attribute(node, "perm", []))[:2] != [0, 1]:
        raise NotUnderstood("it moves the channels")
    return _each(node, seen)


def _pad(node: onnx.NodeProto, seen: Observed) -> Rule:
    rank = seen.values[node.input[0]].ndim
    pads = _fixed(seen, node, 1)
    if pads is None:
        raise NotUnderstood("what it is told is computed")
    axes = _axes(node, seen, rank, 3)
    amounts = dict(zip([*axes, *(axis + rank for axis in axes)], pads.ravel().tolist(), strict=True))
    if any(amounts.get(axis, 0) for axis in (0, 1, rank, rank + 1)):
        raise NotUnderstood("it adds channels")
    return _each(node, seen)


def _resize(node: onnx.NodeProto, seen: Observed) -> Rule:
    for place in (2, 3):
        _fixed(seen, node, place)
    if (
        attribute(node, "axes", None) is not None
        or attribute(node, "keep_aspect_ratio_policy", b"stretch") != b"stretch"
    ):
        raise NotUnderstood("its axes are named")
    return _each(node, seen)


def _reshape(node: onnx.NodeProto, seen: Observed) -> Rule:
    """Channels that are cut in pieces, or put together; what is behind them may take any form."""
    before, after = seen.values[node.input[0]].shape, seen.values[node.output[0]].shape
    inner, outer = _units(seen, node.input[0]), _units(seen, node.output[0])
    if node.op_type == "Reshape":
        shape = _fixed(seen, node, 1)
        assert shape is not None
        if shape[0] not in (0, -1) and shape[0] != seen.batch:
            raise NotUnderstood("it moves the batch")
    if prod(before[1:]) != prod(after[1:]) or max(inner, outer) % min(inner, outer):
        raise NotUnderstood("it mixes channels")
    every = np.arange(max(inner, outer))
    few = every // (max(inner, outer) // min(inner, outer))
    pair = {"inner": few, "outer": every} if outer > inner else {"inner": every, "outer": few}
    return Rule(node=node, links=[Link(input=node.input[0], output=node.output[0], **pair)])


def _concat(node: onnx.NodeProto, seen: Observed) -> Rule:
    rank = seen.values[node.output[0]].ndim
    axis = attribute(node, "axis", 0) % rank
    if axis == 0 or any(name in seen.constants for name in node.input):
        raise NotUnderstood("it joins what has no channels")
    if axis > 1:
        return Rule(node=node, links=[_same(seen, node, place) for place in range(len(node.input))])
    links, start = [], 0
    for name in node.input:
        every = np.arange(_units(seen, name))
        links.append(Link(input=name, output=node.output[0], inner=every, outer=every + start))
        start += len(every)
    return Rule(node=node, links=links)


def _split(node: onnx.NodeProto, seen: Observed) -> Rule:
    _fixed(seen, node, 1)
    if attribute(node, "axis", 0) % seen.values[node.input[0]].ndim != 1 or not all(node.output):
        raise NotUnderstood("it does not split channels")
    links, start = [], 0
    for name in node.output:
        every = np.arange(_units(seen, name))
        links.append(Link(input=node.input[0], output=name, inner=every + start, outer=every))
        start += len(every)
    return Rule(node=node, links=links)


def slices(node: onnx.NodeProto, seen: Observed) -> dict[int, tuple[int, int, int]]:
    """Start, end and step of a Slice by axis, as given."""
    starts, ends, axes, steps = (_fixed(seen, node, place) for place in (1, 2, 3, 4))
    rank = seen.values[node.input[0]].ndim
    if starts is None or ends is None:
        raise NotUnderstood("what it is told is computed")
    named = range(len(starts)) if axes is None else [axis % rank for axis in axes.tolist()]
    by = [1] * len(starts) if steps is None else steps.tolist()
    return dict(zip(named, zip(starts.tolist(), ends.tolist(), by, strict=True), strict=True))


def _slice(node: onnx.NodeProto, seen: Observed) -> Rule:
    units = _units(seen, node.input[0])
    cut = slices(node, seen)
    if 0 in cut:
        raise NotUnderstood("it cuts the batch")
    if 1 not in cut:
        return _each(node, seen)
    start, stop, step = slice(*cut[1]).indices(units)
    if step != 1:
        raise NotUnderstood("its step is not 1")
    inner = np.arange(start, stop)
    return Rule(
        node=node, links=[Link(input=node.input[0], output=node.output[0], inner=inner, outer=np.arange(len(inner)))]
    )


def _gather(node: onnx.NodeProto, seen: Observed) -> Rule:
    chosen = _fixed(seen, node, 1)
    if chosen is None or chosen.ndim != 1 or attribute(node, "axis", 0) % seen.values[node.input[0]].ndim != 1:
        raise NotUnderstood("it does not choose channels")
    inner = chosen.astype(np.intp) % _units(seen, node.input[0])
    if (np.diff(inner) <= 0).any():  # OpenVINO 2026.4 computes some permutations of all channels wrongly: make none
        raise NotUnderstood("it reorders channels")
    return Rule(
        node=node, links=[Link(input=node.input[0], output=node.output[0], inner=inner, outer=np.arange(len(inner)))]
    )


def _convolution(node: onnx.NodeProto, seen: Observed) -> Rule:
    weight, group = _fixed(seen, node, 1), attribute(node, "group", 1)
    transposed = node.op_type == "ConvTranspose"
    inputs, outputs = _units(seen, node.input[0]), _units(seen, node.output[0])
    if weight is None or layer_bias(node, seen.constants, outputs) is None:
        raise NotUnderstood("what it is told is computed")
    if transposed:  # (inputs, outputs / group, ...)
        weight = _regrouped(weight, group)
    if group == inputs > 1:  # depthwise
        every = np.arange(outputs)
        link = Link(input=node.input[0], output=node.output[0], inner=every // (outputs // inputs), outer=every)
        zeroed = (weight == 0).all(axis=tuple(range(1, weight.ndim)))
        return Rule(node=node, links=[link], zeroed=np.asarray(zeroed))
    why = "transposed convolution" if transposed else "zero padding"
    unpadded = not transposed and not padded(node)
    return Rule(node=node, mix=_mix(node, weight, group, foldable=unpadded, why=why))


def _mix(node: onnx.NodeProto, weight: NDArray[Any], blocks: int = 1, **about: Any) -> MixedPrecision:
    taps = np.asarray((weight != 0).any(axis=tuple(range(2, weight.ndim))))
    if blocks > 1:
        taps = _block_diagonal(taps, blocks)
    return MixedPrecision(input=node.input[0], output=node.output[0], weight=weight, taps=taps, blocks=blocks, **about)


def _regrouped(weight: NDArray[Any], group: int) -> NDArray[Any]:
    """A transposed convolution's (inputs, outputs / group, ...) as a convolution's (outputs, inputs / group, ...)."""
    parts = [part.swapaxes(0, 1) for part in np.split(weight, group)]
    return np.concatenate(parts)


def _block_diagonal(taps: Flags, blocks: int) -> Flags:
    """(outputs, inputs / blocks) of a grouped convolution as (outputs, inputs)."""
    outputs, share = taps.shape
    full = np.zeros((outputs, share * blocks), bool)
    for block in range(blocks):
        rows = slice(block * outputs // blocks, (block + 1) * outputs // blocks)
        full[rows, block * share : (block + 1) * share] = taps[rows]
    return full


def _linear(node: onnx.NodeProto, seen: Observed) -> Rule:
    weight = _fixed(seen, node, 1)
    if weight is None or weight.ndim != 2 or seen.values[node.input[0]].ndim != 2 or attribute(node, "transA", 0):
        raise NotUnderstood("it does not multiply a matrix by a constant one")
    _units(seen, node.input[0])
    if layer_bias(node, seen.constants, _units(seen, node.output[0])) is None:
        raise NotUnderstood("what it adds is not one number for each output")
    rows = weight if attribute(node, "transB", 0) else weight.T
    return Rule(node=node, mix=_mix(node, rows, foldable=True))


def _shape(node: onnx.NodeProto, seen: Observed) -> Rule:
    """Of a shape, often the batch alone is read; then channels may go."""
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    readers = [reader for reader in seen.nodes if node.output[0] in reads(reader)]
    first = all(
        reader.op_type == "Gather"
        and reader.input[1] in seen.constants
        and not seen.constants[reader.input[1]].any()
        and reader.input[0] == node.output[0]
        for reader in readers
    )
    if (start, end) == (0, 1) or (start == 0 and readers and first and node.output[0] not in seen.outputs):
        return Rule(node=node)
    raise NotUnderstood("it counts channels")


EACH = """Abs AveragePool Cast Ceil Celu Dropout Elu Erf Exp Floor Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool
HardSigmoid HardSwish Identity LeakyRelu Log LpPool MaxPool Mish Neg Reciprocal Relu Round Selu Sigmoid Sign Softplus
Softsign Sqrt Tanh ThresholdedRelu"""
ELEMENTWISE = ("Add", "Clip", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where")
REDUCE = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")

RULES: dict[str, Callable[[onnx.NodeProto, Observed], Rule]] = {
    **dict.fromkeys(EACH.split(), _each),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCE, _reduce),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _squeeze),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _one_axis(-1)),
    **dict.fromkeys(("ArgMax", "ArgMin"), _one_axis(0)),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _normalisation),
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("Gemm", "MatMul"), _linear),
    "Transpose": _transpose,
    "Pad": _pad,
    "Resize": _resize,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Shape": _shape,
}
