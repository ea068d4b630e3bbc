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

OPERATORS_OF_8 = {
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

Operators under "" have rules of their own. Operators that compute shapes may read integers, even where the
documentation lists floats only.
"""
OPERATORS_SINCE_10 = {
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
        producers: Node that computes a value, by name of the value.
        consumers: Nodes that read a value, by name of the value.
    """

    version: int
    opset: int
    types: Types
    ranks: Mapping[str, int]
    constants: Mapping[str, NDArray[Any]]
    producers: Mapping[str, onnx.NodeProto]
    consumers: Mapping[str, list[onnx.NodeProto]]

    def constant(self, node: onnx.NodeProto, index: int) -> NDArray[Any] | None:
        """Returns the constant value of a node's input; None if the input is missing or not constant."""
        return self.constants.get(node.input[index]) if len(node.input) > index else None

    def computed(self, node: onnx.NodeProto, index: int) -> bool:
        """True if a node has this input and the input is not constant."""
        return len(node.input) > index and bool(node.input[index]) and node.input[index] not in self.constants


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
    problems = [*_check_opset(facts), *_check_inputs(model.graph, facts)]
    for graph in naming.graphs(model.graph):
        for node in graph.node:
            label = f"node {node.name or node.output[0]} ({node.op_type})"
            problems += [f"{label} {problem}" for problem in _node_problems(node, facts)]
    return problems


def _facts(model: onnx.ModelProto, version: int) -> Facts:
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    types: Types = {}
    ranks: dict[str, int] = {}
    constants: dict[str, NDArray[Any]] = {}
    producers: dict[str, onnx.NodeProto] = {}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for graph in naming.graphs(inferred.graph):
        for tensor in graph.initializer:
            constants[tensor.name] = numpy_helper.to_array(tensor)
            types[tensor.name], ranks[tensor.name] = tensor.data_type, len(tensor.dims)
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor_type = value.type.tensor_type if value.type.HasField("tensor_type") else None
            types[value.name] = tensor_type.elem_type if tensor_type else None
            if tensor_type and tensor_type.HasField("shape"):
                ranks[value.name] = len(tensor_type.shape.dim)
        for node in graph.node:
            producers.update(dict.fromkeys(node.output, node))
            for name in filter(None, dict.fromkeys(node.input)):
                consumers.setdefault(name, []).append(node)
            if node.op_type == "Constant" and (value := _constant_value(node)) is not None:
                constants[node.output[0]] = value
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    return Facts(
        version=version,
        opset=opset,
        types=types,
        ranks=ranks,
        constants=constants,
        producers=producers,
        consumers=consumers,
    )


def _constant_value(node: onnx.NodeProto) -> NDArray[Any] | None:
    """Returns the value of a Constant from any of its attributes; None unless the value is dense and numeric."""
    if (tensor := attribute(node, "value", None)) is not None:
        return numpy_helper.to_array(tensor)
    for name, dtype in (("value_int", np.int64), ("value_float", np.float32)):
        for value in (attribute(node, name, None), attribute(node, f"{name}s", None)):
            if value is not None:
                return np.array(value, dtype)
    return None


def _check_opset(facts: Facts) -> Iterator[str]:
    if facts.opset > (latest := LATEST_OPSET[facts.version]):
        yield f"the graph has opset {facts.opset}, but TensorRT {facts.version} supports {latest}: lower the opset"


def _check_inputs(graph: onnx.GraphProto, facts: Facts) -> Iterator[str]:
    for value in graph.input:
        if value.name in facts.constants:
            continue
        if not value.type.tensor_type.HasField("shape"):
            yield f"input {value.name} has no rank: give the input a shape"
        free = [index for index, dim in enumerate(value.type.tensor_type.shape.dim) if not dim.HasField("dim_value")]
        if free not in ([], [0]):
            yield f"input {value.name} has free axes {free}: only the first, the batch, may be free"


def _node_problems(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx"):
        yield f"is of the domain {node.domain}, which TensorRT's parser does not support: use standard operators"
        return
    if node.op_type not in _operators(facts.version):
        hint = "use TensorRT 10" if node.op_type in _operators(10) else "export the network without this operator"
        yield f"is not an operator of TensorRT {facts.version}'s parser: {hint}"
        return
    for rule in (_check_types, _check_float_types, _check_int64, *RULES.get(node.op_type, ())):
        yield from rule(node, facts)


def _operators(version: int) -> dict[str, str]:
    """Returns the operators of a version's parser, with the group of types that the first input may have."""
    tables = [OPERATORS_OF_8, *([OPERATORS_SINCE_10] if version >= 10 else [])]
    return {name: group for table in tables for group, names in table.items() for name in names.split()}


def _type_name(data_type: int | None) -> str:
    return TensorProto.DataType.Name(data_type).lower() if data_type is not None else "no tensor"


def _check_types(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    """Checks the element types: supported by TensorRT, and supported for this operator."""
    supported = {*TYPES, TensorProto.UNDEFINED} - ({TensorProto.BFLOAT16} if facts.version == 8 else set())
    for name in filter(None, (*node.input, *node.output)):
        if facts.types.get(name, TensorProto.FLOAT) not in supported:
            type_name = _type_name(facts.types[name])
            yield f"has {name} of type {type_name}, which TensorRT does not support: cast {name}"
            return
    group = _operators(facts.version)[node.op_type]
    data_type = facts.types.get(node.input[0]) if node.input and node.input[0] else None
    if group and data_type and data_type not in KINDS[group]:
        allowed, type_name = ", ".join(map(_type_name, KINDS[group])), _type_name(data_type)
        yield f"reads {type_name}, but TensorRT {facts.version} supports {allowed}: cast {node.input[0]} first"


def _check_float_types(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    """Checks that operands of one type variable have the same float type: a strongly typed network casts nothing."""
    operands: dict[str, list[str]] = {}
    try:
        schema_inputs = defs.get_schema(node.op_type, facts.opset, "").inputs
    except defs.SchemaError:
        return
    for index, name in enumerate(node.input):
        schema_input = schema_inputs[min(index, len(schema_inputs) - 1)] if schema_inputs else None
        if name and schema_input and schema_input.is_homogeneous:
            variable = "T" if node.op_type == "BatchNormalization" else schema_input.type_str
            operands.setdefault(variable, []).append(name)
    for names in operands.values():
        types = {facts.types.get(name) for name in names} & set(FLOATS)
        if len(types) > 1:
            type_names = " and ".join(map(_type_name, sorted(filter(None, types))))
            yield f"mixes {type_names} in {', '.join(names)}: put a Cast before one of these inputs"


def _check_int64(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    """Checks int64 constants for TensorRT 8.6, which stores int64 as int32.

    The smallest and the largest int64 mean "to the end"; TensorRT clamps both to the same meaning in int32.
    """
    if facts.version > 8:
        return
    limits = np.iinfo(np.int64)
    for name in filter(None, node.input):
        value = facts.constants.get(name)
        if value is None or value.dtype != np.int64:
            continue
        inside = (np.abs(value.astype(np.float64)) < 2**31) | (value <= limits.min + 1) | (value == limits.max)
        if not inside.all():
            yield f"reads {name} with int64 values beyond int32, which TensorRT 8 would clamp: use TensorRT 10"


def _check_quantiser(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    """Checks a quantiser: signed, symmetric, with positive scales; per tensor except for weights."""
    if len(node.input) < 3 or not node.input[2]:
        if node.op_type == "QuantizeLinear" or facts.version == 8:
            yield "has no zero point, so the result would be unsigned: add a zero point of int8 zeros"
        return
    if facts.types.get(node.input[2]) != TensorProto.INT8:
        type_name = _type_name(facts.types.get(node.input[2]))
        hint = "quantise signed and symmetrically, and do not quantise biases"
        yield f"has a zero point of {type_name}, but TensorRT supports int8 only: {hint}"
    zero, scale = facts.constant(node, 2), facts.constant(node, 1)
    if zero is None or zero.any():
        yield "has a zero point that is computed or not 0: quantise symmetrically"
    if scale is None or not (np.isfinite(scale) & (scale > 0)).all():
        yield "has scales that are computed, or not all positive and finite: quantise the network again"
        return
    if scale.dtype != np.float32 and facts.version == 8:
        yield f"has scales of {scale.dtype}, but TensorRT 8 reads float32: use float32 scales"
    if zero is not None and zero.size != scale.size:
        yield "has a different number of zero points and scales: use one zero point per scale"
    if scale.size > 1:
        yield from _check_per_channel(node, facts, scale.size)


def _check_per_channel(node: onnx.NodeProto, facts: Facts, count: int) -> Iterator[str]:
    """Checks that per-channel scales belong to constant weights, along the axis of the output channels."""
    quantiser = facts.producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else node
    has_quantiser = quantiser is not None and quantiser.op_type == "QuantizeLinear"
    source = quantiser.input[0] if quantiser and has_quantiser else node.input[0]
    if source not in facts.constants:
        yield "has per-channel scales for an activation: use one scale for the tensor"
        return
    if node.op_type == "QuantizeLinear":
        return
    for consumer in facts.consumers.get(node.output[0], []):
        rank = facts.constants[source].ndim
        expected = {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(consumer.op_type)
        if consumer.op_type == "Gemm":
            expected = 0 if attribute(consumer, "transB", 0) else 1
        axis = attribute(node, "axis", 1)
        if expected is not None and (not rank or axis % rank != expected):
            yield f"has {count} scales along axis {axis}, but {consumer.op_type} needs axis {expected}: quantise again"


def _check_dequantiser(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if node.input and facts.types.get(node.input[0]) not in (TensorProto.INT8, None):
        type_name = _type_name(facts.types[node.input[0]])
        yield f"reads {type_name}, but TensorRT dequantises int8 only: quantise signed, and leave biases float"


def _check_cast(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if attribute(node, "to", 0) == TensorProto.UINT8 and not _is_output(node, facts):
        yield "casts to uint8 inside the graph, which TensorRT supports for inputs and outputs only: cast to int32"


def _is_output(node: onnx.NodeProto, facts: Facts) -> bool:
    return node.output[0] not in facts.consumers


def _check_pool(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if facts.ranks.get(node.input[0], 4) not in (4, 5):
        yield "pools along one axis, but TensorRT pools along two or three: add an axis of size 1"
    if len(node.output) > 1 and node.output[1]:
        yield "outputs the indices of its maxima, which TensorRT does not support: export without this output"
    if set(attribute(node, "dilations", [1])) != {1}:
        yield "has dilations, which TensorRT's pooling does not support: export the network without dilations"


def _check_resize(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    supported = {
        "mode": ("nearest", "linear"),
        "coordinate_transformation_mode": (
            "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners",
        ),
        "keep_aspect_ratio_policy": ("stretch",),
    }  # fmt: skip
    for name, values in supported.items():
        value = attribute(node, name, values[0].encode()).decode()
        if value not in values:
            yield f"has {name} {value}, but TensorRT supports {', '.join(values)}: use a supported {name}"
    if attribute(node, "antialias", 0):
        yield "has antialias, which TensorRT does not support: export the network without antialias"


def _require_constant(*indices: int, since: int = 8, until: int = 11) -> Rule:
    """Returns a rule: some inputs must be constant in some versions.

    Args:
        indices: Indices of the inputs.
        since: First major version of TensorRT that needs constants.
        until: Last major version of TensorRT that needs constants.
    """

    def rule(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
        for index in indices:
            if since <= facts.version <= until and facts.computed(node, index):
                problem = f"has the computed input {node.input[index]}, which must be constant for TensorRT"
                yield f"{problem}: fix the shapes before this node"

    return rule


def _check_reduction(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    supported = facts.version >= 10 and node.op_type == "ScatterElements"
    if not supported and (reduction := attribute(node, "reduction", b"none").decode()) != "none":
        problem = f"has reduction {reduction}, which TensorRT {facts.version} does not support"
        yield f"{problem}: export the network without a reduction"


def _check_training(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    training = facts.constant(node, 2)
    if facts.computed(node, 2) or (training is not None and training.any()):
        yield "is in training mode: export the network in eval mode"


def _check_outputs(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if any(name in facts.consumers for name in node.output[1:]):
        yield "has other outputs than its first output, which TensorRT does not support: export without these outputs"


def _check_pad(node: onnx.NodeProto, facts: Facts) -> Iterator[str]:
    if facts.version == 8 and attribute(node, "mode", b"constant") == b"wrap":
        yield "has mode wrap, which TensorRT 8 does not support: use TensorRT 10"


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
RULES: dict[str, tuple[Rule, ...]] = {
    "QuantizeLinear": (_check_quantiser,),
    "DequantizeLinear": (_check_dequantiser, _check_quantiser),
    "Cast": (_check_cast,),
    "AveragePool": (_check_pool,),
    "MaxPool": (_check_pool,),
    "LpPool": (_check_pool,),
    "Resize": (_check_resize,),
    "Upsample": (_check_resize,),
    "Squeeze": (_require_constant(1),),
    "Unsqueeze": (_require_constant(1),),
    "Slice": (_require_constant(3, until=8),),
    "CumSum": (_require_constant(1),),
    "InstanceNormalization": (_require_constant(1, 2, until=8),),
    "ScatterElements": (_check_reduction,),
    "ScatterND": (_check_reduction,),
    "Dropout": (_check_training,),
    "LayerNormalization": (_check_outputs,),
    "Pad": (_check_pad,),
    **{f"Reduce{reduction}": (_require_constant(1),) for reduction in REDUCTIONS},
}
"""Documented restrictions of single operators, in addition to the element types."""
