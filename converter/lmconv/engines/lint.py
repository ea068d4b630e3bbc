"""Finds the parts of an ONNX graph that TensorRT would refuse or compute differently, as its parser documents.

Sources: onnx-tensorrt's docs/operators.md of 8.5 (8.6 has the same opset and operators, plus the operators that its
changelog adds) and of 10.15, its docs/Changelog.md, and NVIDIA's ONNX opset guide for 11. The lint does not judge
undocumented cases, in order not to refuse a graph that TensorRT accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, defs, numpy_helper, shape_inference

from lmconv.graph import naming
from lmconv.graph.index import attribute

VERSIONS = (8, 10, 11)
LATEST_OPSET = {8: 17, 10: 24, 11: 25}

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
INTEGERS = (TensorProto.INT32, TensorProto.INT64)
KINDS = {
    "float": FLOATS,
    "number": (*FLOATS, *INTEGERS),
    "any": (*FLOATS, *INTEGERS, TensorProto.BOOL),
    "bool": (TensorProto.BOOL,),
}
"""Groups of element types in the tables of operators."""
TYPES = {*KINDS["any"], TensorProto.INT8, TensorProto.UINT8}

EIGHT = {
    "float": """
        Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos Cosh
        CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample
        GroupNormalization GRU HardSigmoid HardSwish InstanceNormalization IsInf LayerNormalization LeakyRelu Log
        LogSoftmax LRN LSTM LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization NonMaxSuppression
        PRelu QuantizeLinear RandomNormalLike RandomUniformLike Reciprocal Relu Resize RNN RoiAlign Round Selu Sigmoid
        Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample
    """,
    "number": """
        Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean Min Mod Mul
        Neg NonZero Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
        ReduceProd ReduceSum ReduceSumSquare ReverseSequence Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth
        Sub Sum TopK
    """,
    "any": """
        Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot
        RandomNormal RandomUniform Reshape Scan Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where
    """,
    "bool": "And Not Or Xor",
    "": "Cast DequantizeLinear",
}
"""Operators of TensorRT 8.6's parser, by the group of types that the first input may have.

Operators under "" have rules of their own. Integers are also allowed where the documentation does not list integers
but shapes are computed with the operator.
"""
SINCE_TEN = {
    "float": "BlackmanWindow DeformConv Hardmax HammingWindow HannWindow Mish RMSNormalization STFT",
    "number": "Gelu",
    "any": "CastLike",
}

Types: TypeAlias = dict[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about a graph that the rules use.

    Attributes:
        version: Major version of TensorRT.
        opset: Version of the standard operator set.
        types: Element types by name; None for a value that is not a tensor.
        ranks: Ranks by name, if known.
        constants: Constant values by name.
        makers: Node that computes a value, by name of the value.
        readers: Nodes that read a value, by name of the value.
    """

    version: int
    opset: int
    types: Types
    ranks: Mapping[str, int]
    constants: Mapping[str, NDArray[Any]]
    makers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, list[onnx.NodeProto]]

    def constant(self, node: onnx.NodeProto, place: int) -> NDArray[Any] | None:
        """Returns the constant value of a node's input; None if the input is missing or not constant."""
        return self.constants.get(node.input[place]) if len(node.input) > place else None

    def computed(self, node: onnx.NodeProto, place: int) -> bool:
        """True if a node has this input and the input is not constant."""
        return len(node.input) > place and bool(node.input[place]) and node.input[place] not in self.constants


Rule: TypeAlias = Callable[[onnx.NodeProto, Facts], Iterator[str]]
"""Yields the problems of a node, each with a hint."""


def complaints(model: onnx.ModelProto, version: int) -> list[str]:
    """Returns the parts of a graph that TensorRT would refuse or silently compute differently.

    Args:
        model: The model as TensorRT's parser would get it.
        version: Major version of TensorRT; 8 stands for 8.6.

    Returns:
        One line for each problem, with the node and a hint.
    """
    facts = _facts(model, version)
    graphs = list(naming.graphs(model.graph))
    found = [*_opset(facts), *_inputs(model.graph, facts)]
    for graph in graphs:
        for node in graph.node:
            found += [f"node {node.name or node.output[0]} ({node.op_type}) {what}" for what in _of(node, facts)]
    return found


def _facts(model: onnx.ModelProto, version: int) -> Facts:
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    types: Types = {}
    ranks: dict[str, int] = {}
    constants: dict[str, NDArray[Any]] = {}
    makers: dict[str, onnx.NodeProto] = {}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for graph in naming.graphs(inferred.graph):
        for tensor in graph.initializer:
            constants[tensor.name] = numpy_helper.to_array(tensor)
            types[tensor.name], ranks[tensor.name] = tensor.data_type, len(tensor.dims)
        for value in (*graph.input, *graph.value_info, *graph.output):
            held = value.type.tensor_type if value.type.HasField("tensor_type") else None
            types[value.name] = held.elem_type if held else None
            if held and held.HasField("shape"):
                ranks[value.name] = len(held.shape.dim)
        for node in graph.node:
            makers.update(dict.fromkeys(node.output, node))
            for name in filter(None, dict.fromkeys(node.input)):
                readers.setdefault(name, []).append(node)
            if node.op_type == "Constant" and (value := _held(node)) is not None:
                constants[node.output[0]] = value
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    return Facts(
        version=version, opset=opset, types=types, ranks=ranks, constants=constants, makers=makers, readers=readers
    )


def _held(node: onnx.NodeProto) -> NDArray[Any] | None:
    """Returns the value of a Constant from any of its attributes; None unless the value is dense and numeric."""
    if (tensor := attribute(node, "value", None)) is not None:
        return numpy_helper.to_array(tensor)
    for name, kind in (("value_int", np.int64), ("value_float", np.float32)):
        for given in (attribute(node, name, None), attribute(node, f"{name}s", None)):
            if given is not None:
                return np.array(given, kind)
    return None


def _opset(facts: Facts) -> Iterator[str]:
    if facts.opset > (latest := LATEST_OPSET[facts.version]):
        yield f"the graph is of opset {facts.opset}, and TensorRT {facts.version} knows {latest}: lower it"


def _inputs(graph: onnx.GraphProto, facts: Facts) -> Iterator[str]:
    for value in graph.input:
        if value.name in facts.constants:
            continue
        if not value.type.tensor_type.HasField("shape"):
            yield f"input {value.name} has no rank: give it a shape"
        free = [place for place, dim in enumerate(value.type.tensor_type.shape.dim) if not dim.HasField("dim_value")]
        if free not in ([], [0]):
            yield f"input {value.name} has free axes {free}: only the first, the batch, may be free"


def _of(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx"):
        yield f"is of the domain {node.domain}, which TensorRT's parser does not know: use operators of the standard"
        return
    if node.op_type not in _operators(facts.version):
        hint = "use TensorRT 10" if node.op_type in _operators(10) else "export the network without it"
        yield f"is no operator of TensorRT {facts.version}'s parser: {hint}"
        return
    for rule in (_types, _alike, _narrow, *RULES.get(node.op_type, ())):
        yield from rule(node, facts)


def _operators(version: int) -> dict[str, str]:
    """Returns the operators of a version's parser, with the group of types that the first input may have."""
    tables = [EIGHT, *([SINCE_TEN] if version >= 10 else [])]
    return {name: kind for table in tables for kind, names in table.items() for name in names.split()}


def _called(kind: int | None) -> str:
    return TensorProto.DataType.Name(kind).lower() if kind is not None else "no tensor"


def _types(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    """Checks the element types: supported by TensorRT, and supported for this operator."""
    known = {*TYPES, TensorProto.UNDEFINED} - ({TensorProto.BFLOAT16} if facts.version == 8 else set())
    for name in filter(None, (*node.input, *node.output)):
        if facts.types.get(name, TensorProto.FLOAT) not in known:
            yield f"has {name} of {_called(facts.types[name])}, which TensorRT does not compute in: cast it"
            return
    kind = _operators(facts.version)[node.op_type]
    given = facts.types.get(node.input[0]) if node.input and node.input[0] else None
    if kind and given and given not in KINDS[kind]:
        allowed = ", ".join(map(_called, KINDS[kind]))
        yield f"reads {_called(given)}, and TensorRT {facts.version} has it for {allowed}: cast {node.input[0]} before"


def _alike(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    """Checks that operands of one type variable have the same float type: a strongly typed network casts nothing."""
    places: dict[str, list[str]] = {}
    try:
        formal = defs.get_schema(node.op_type, facts.opset, "").inputs
    except defs.SchemaError:
        return
    for place, name in enumerate(node.input):
        described = formal[min(place, len(formal) - 1)] if formal else None
        if name and described and described.is_homogeneous:
            symbol = "T" if node.op_type == "BatchNormalization" else described.type_str
            places.setdefault(symbol, []).append(name)
    for names in places.values():
        found = {facts.types.get(name) for name in names} & set(FLOATS)
        if len(found) > 1:
            kinds = " and ".join(map(_called, sorted(filter(None, found))))
            yield f"mixes {kinds} in {', '.join(names)}: put a Cast before one"


def _narrow(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    """Checks int64 constants for TensorRT 8.6, which stores int64 as int32.

    The smallest and the largest int64 mean "to the end"; TensorRT clamps both to the same meaning in int32.
    """
    if facts.version > 8:
        return
    ends = np.iinfo(np.int64)
    for name in filter(None, node.input):
        value = facts.constants.get(name)
        if value is None or value.dtype != np.int64:
            continue
        inside = (np.abs(value.astype(np.float64)) < 2**31) | (value <= ends.min + 1) | (value == ends.max)
        if not inside.all():
            yield f"reads {name}, whose int64 values are beyond int32: TensorRT 8 would cut them, use TensorRT 10"


def _quantise(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    """Checks a quantiser: signed, symmetric, with positive scales; per tensor except for weights."""
    if len(node.input) < 3 or not node.input[2]:
        if node.op_type == "QuantizeLinear" or facts.version == 8:
            yield "has no zero point, and would be unsigned: give it one, int8 zeros"
        return
    if facts.types.get(node.input[2]) != TensorProto.INT8:
        kind = _called(facts.types.get(node.input[2]))
        yield f"has a zero point of {kind}, and TensorRT has int8: quantise signed and symmetric, biases not at all"
    zero, scale = facts.constant(node, 2), facts.constant(node, 1)
    if zero is None or zero.any():
        yield "has a zero point that is computed or not 0: quantise symmetrically"
    if scale is None or not (np.isfinite(scale) & (scale > 0)).all():
        yield "has steps that are computed, or not all positive and finite: quantise it anew"
        return
    if scale.dtype != np.float32 and facts.version == 8:
        yield f"has steps of {scale.dtype}, and TensorRT 8 reads float32: give it those"
    if zero is not None and zero.size != scale.size:
        yield "has not as many zero points as steps: give it one for each"
    if scale.size > 1:
        yield from _per_channel(node, facts, scale.size)


def _per_channel(node: onnx.NodeProto, facts: Facts, count: int) -> Iterator[str]:
    """Checks that per-channel scales belong to constant weights, along the axis of the output channels."""
    pair = facts.makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else node
    source = pair.input[0] if pair is not None and pair.op_type == "QuantizeLinear" else node.input[0]
    if source not in facts.constants:
        yield "has a step for each channel of an activation: give it one for all"
        return
    if node.op_type == "QuantizeLinear":
        return
    for reader in facts.readers.get(node.output[0], []):
        rank = facts.constants[source].ndim
        wanted = {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(reader.op_type)
        if reader.op_type == "Gemm":
            wanted = 0 if attribute(reader, "transB", 0) else 1
        axis = attribute(node, "axis", 1)
        if wanted is not None and (not rank or axis % rank != wanted):
            yield f"has a step for each {count} along axis {axis}, and {reader.op_type} needs axis {wanted}"


def _dequantise(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if node.input and facts.types.get(node.input[0]) not in (TensorProto.INT8, None):
        kind = _called(facts.types[node.input[0]])
        yield f"reads {kind}, and TensorRT restores int8 only: quantise signed, and leave biases float"


def _cast(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if attribute(node, "to", 0) == TensorProto.UINT8 and not _is_output(node, facts):
        yield "casts to uint8 within the graph, which TensorRT has for inputs and outputs only: cast to int32"


def _is_output(node: onnx.NodeProto, facts: Facts) -> bool:
    return node.output[0] not in facts.readers


def _pool(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if facts.ranks.get(node.input[0], 4) not in (4, 5):
        yield "pools along one axis, and TensorRT along two or three: add an axis of size 1"
    if len(node.output) > 1 and node.output[1]:
        yield "gives the places of its maxima, which TensorRT does not: export the network without them"
    if set(attribute(node, "dilations", [1])) != {1}:
        yield "has dilations, which TensorRT's pooling does not: export the network without them"


def _resize(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    known = {
        "mode": ("nearest", "linear"),
        "coordinate_transformation_mode": (
            "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners",
        ),
        "keep_aspect_ratio_policy": ("stretch",),
    }  # fmt: skip
    for name, values in known.items():
        value = attribute(node, name, values[0].encode()).decode()
        if value not in values:
            yield f"has {name} {value}, and TensorRT knows {', '.join(values)}: use one of these"
    if attribute(node, "antialias", 0):
        yield "has antialias, which TensorRT does not: export the network without it"


def _constant(*places: int, since: int = 8, until: int = 11) -> Rule:
    """Returns a rule: some inputs must be constant in some versions.

    Args:
        places: Indices of the inputs.
        since: First major version of TensorRT that needs constants.
        until: Last major version of TensorRT that needs constants.
    """

    def rule(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
        for place in places:
            if since <= facts.version <= until and facts.computed(node, place):
                yield f"computes its input {node.input[place]}, which TensorRT wants constant: fix the shape before it"

    return rule


def _reduction(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    known = facts.version >= 10 and node.op_type == "ScatterElements"
    if not known and (reduction := attribute(node, "reduction", b"none").decode()) != "none":
        yield f"has reduction {reduction}, which TensorRT {facts.version} does not: export the network without it"


def _training(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    training = facts.constant(node, 2)
    if facts.computed(node, 2) or (training is not None and training.any()):
        yield "is in training mode: export the network in eval mode"


def _first_output(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if any(name in facts.readers for name in node.output[1:]):
        yield "gives more than its first output, which TensorRT does not: export the network without them"


def _pad(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if facts.version == 8 and attribute(node, "mode", b"constant") == b"wrap":
        yield "wraps around, which TensorRT 8 does not: use TensorRT 10"


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
RULES: dict[str, tuple[Rule, ...]] = {
    "QuantizeLinear": (_quantise,),
    "DequantizeLinear": (_dequantise, _quantise),
    "Cast": (_cast,),
    "AveragePool": (_pool,),
    "MaxPool": (_pool,),
    "LpPool": (_pool,),
    "Resize": (_resize,),
    "Upsample": (_resize,),
    "Squeeze": (_constant(1),),
    "Unsqueeze": (_constant(1),),
    "Slice": (_constant(3, until=8),),
    "CumSum": (_constant(1),),
    "InstanceNormalization": (_constant(1, 2, until=8),),
    "ScatterElements": (_reduction,),
    "ScatterND": (_reduction,),
    "Dropout": (_training,),
    "LayerNormalization": (_first_output,),
    "Pad": (_pad,),
    **{f"Reduce{kind}": (_constant(1),) for kind in REDUCTIONS},
}
"""Documented restrictions of single operators, in addition to the element types."""
