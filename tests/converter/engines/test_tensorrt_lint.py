"""Lint for TensorRT: graphs that break one rule each, and graphs that break no rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lmconv.engines.lint import LATEST_OPSET, VERSIONS, complaints

FLOAT, HALF, BYTE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


def graph(
    *nodes: onnx.NodeProto,
    shape: Any = ("N", 8, 6, 6),
    kind: int = FLOAT,
    gives: int = FLOAT,
    opset: int = 17,
    **constants: NDArray[Any],
) -> onnx.ModelProto:
    """Builds a graph from `x` to `y`.

    Args:
        nodes: The nodes.
        shape: Shape of `x`.
        kind: Element type of `x`.
        gives: Element type of `y`.
        opset: Opset of the graph.
        constants: Initializers by name.
    """
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", gives, [None] * 4)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """Makes a node, named after its output; `-` is an omitted input."""
    read = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, read, output.split(), name=output.split()[0], **attributes)


def filters(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


def integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


STEP = np.array(0.5, np.float32)
ZERO = np.array(0, np.int8)


def quantised(**changes: NDArray[Any]) -> onnx.ModelProto:
    """A convolution between Q/DQ pairs in the form that TensorRT supports; `changes` replace constants."""
    constants: dict[str, Any] = {
        "x_step": STEP, "x_zero": ZERO,
        "w": filters(4, 8, 3, 3), "w_step": filters(4), "w_zero": np.zeros(4, np.int8), "b": filters(4),
    }  # fmt: skip
    return graph(
        node("QuantizeLinear", "x x_step x_zero", "x_q"),
        node("DequantizeLinear", "x_q x_step x_zero", "x_dq"),
        node("QuantizeLinear", "w w_step w_zero", "w_q", axis=0),
        node("DequantizeLinear", "w_q w_step w_zero", "w_dq", axis=0),
        node("Conv", "x_dq w_dq b", "y"),
        **{**constants, **changes},
    )


def half() -> onnx.ModelProto:
    """A convolution in float16 between casts, and a convolution in float32 after them."""
    return graph(
        node("Cast", "x", "x_half", to=HALF),
        node("Conv", "x_half w", "made"),
        node("Cast", "made", "made_float", to=FLOAT),
        node("Conv", "made_float w_float", "y"),
        w=filters(4, 8, 3, 3).astype(np.float16),
        w_float=filters(4, 4, 1, 1),
    )


def image() -> onnx.ModelProto:
    """A uint8 picture (N, H, W, 3) that becomes float32 planes."""
    return graph(
        node("Cast", "x", "floats", to=FLOAT),
        node("Transpose", "floats", "planes", perm=[0, 3, 1, 2]),
        node("Conv", "planes w", "y"),
        kind=BYTE,
        shape=("N", 6, 6, 3),
        w=filters(4, 3, 3, 3),
    )


def to_the_end() -> onnx.ModelProto:
    """A Slice that removes the first row."""
    return graph(node("Slice", "x one end two", "y"), one=integers(1), end=integers(2**63 - 1), two=integers(2))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("clean", [quantised, half, image, to_the_end])
def test_a_clean_graph_has_no_complaint(clean: Any, version: int) -> None:
    model = clean()
    onnx.checker.check_model(model, full_check=True)
    assert complaints(model, version) == []


CONV = node("Conv", "x w", "y")
BROKEN: dict[str, tuple[onnx.ModelProto, tuple[int, ...], tuple[str, ...]]] = {
    "opset": (graph(node("Relu", "x", "y"), opset=18), (8,), ("opset 18", "supports 17", "lower the opset")),
    "another domain": (
        graph(helper.make_node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft"), w=filters(4, 8, 3, 3)),
        VERSIONS,
        ("node y (FusedConv)", "domain com.microsoft"),
    ),
    "an operator that it does not have": (
        graph(node("Det", "x", "y")), VERSIONS, ("node y (Det)", "not an operator", "export the network without this"),
    ),
    "an operator that came later": (graph(node("Mish", "x", "y"), opset=18), (8,), ("(Mish)", "use TensorRT 10")),
    "double": (
        graph(node("Cast", "x", "y", to=TensorProto.DOUBLE), gives=TensorProto.DOUBLE), VERSIONS, ("double", "cast y"),
    ),
    "strings": (
        graph(node("Cast", "x", "y", to=TensorProto.STRING), gives=TensorProto.STRING), VERSIONS, ("string",),
    ),
    "sequences": (
        graph(node("SequenceConstruct", "x x", "s"), node("ConcatFromSequence", "s", "y", axis=1)),
        VERSIONS,
        ("(SequenceConstruct)",),
    ),
    "bytes within": (
        graph(node("Transpose", "x", "t"), node("Cast", "t", "y", to=FLOAT), kind=BYTE),
        VERSIONS,
        ("node t (Transpose)", "reads uint8", "cast x first"),
    ),
    "a cast to bytes": (
        graph(node("Cast", "x", "b", to=BYTE), node("Cast", "b", "y", to=FLOAT)), VERSIONS, ("node b (Cast)", "uint8"),
    ),
    "mixed floats": (
        graph(CONV, kind=FLOAT, w=filters(4, 8, 3, 3).astype(np.float16)),
        VERSIONS,
        ("node y (Conv)", "mixes float and float16 in x, w", "put a Cast"),
    ),
    "a batch normalisation of mixed floats": (
        graph(node("BatchNormalization", "x s s s s", "y"), kind=HALF, gives=HALF, s=filters(8)),
        VERSIONS,
        ("node y (BatchNormalization)", "mixes float and float16"),
    ),
    "int64 beyond int32": (
        graph(node("Add", "x k", "y"), kind=TensorProto.INT64, gives=TensorProto.INT64, k=integers(2**40)),
        (8,),
        ("node y (Add)", "beyond int32", "TensorRT 10"),
    ),
    "an input without a rank": (graph(node("Relu", "x", "y"), shape=None), VERSIONS, ("input x has no rank",)),
    "another free axis": (
        graph(node("Relu", "x", "y"), shape=("N", 8, "h", "w")), VERSIONS, ("input x has free axes [0, 2, 3]",),
    ),
    "unsigned": (
        quantised(x_zero=np.array(0, np.uint8)), VERSIONS, ("node x_q (QuantizeLinear)", "zero point of uint8"),
    ),
    "a zero point that is not 0": (quantised(x_zero=np.array(3, np.int8)), VERSIONS, ("node x_q", "symmetrically")),
    "no zero point": (
        graph(node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s", "y"), s=STEP),
        VERSIONS,
        ("node q (QuantizeLinear)", "has no zero point", "int8 zeros"),
    ),
    "a negative step": (quantised(x_step=-STEP), VERSIONS, ("node x_q", "not all positive")),
    "an infinite step": (quantised(x_step=STEP * np.float32("inf")), VERSIONS, ("node x_q", "finite")),
    "fewer zero points than steps": (
        quantised(w_zero=np.zeros(1, np.int8)), VERSIONS, ("node w_q", "a different number of zero points and scales"),
    ),
    "an activation by channel": (
        quantised(x_step=filters(8), x_zero=np.zeros(8, np.int8)), VERSIONS, ("node x_q", "one scale for the tensor"),
    ),
    "weights along another axis": (
        graph(
            node("QuantizeLinear", "w s z", "q", axis=1),
            node("DequantizeLinear", "q s z", "d", axis=1),
            node("Conv", "x d", "y"),
            w=filters(4, 8, 3, 3), s=filters(8), z=np.zeros(8, np.int8),
        ),
        VERSIONS,
        ("node d (DequantizeLinear)", "along axis 1", "Conv needs axis 0"),
    ),
    "a bias of int32": (
        graph(
            node("DequantizeLinear", "b s z", "d", axis=0), node("Conv", "x w d", "y"),
            w=filters(4, 8, 3, 3), b=np.ones(4, np.int32), s=filters(4), z=np.zeros(4, np.int32),
        ),
        VERSIONS,
        ("node d (DequantizeLinear)", "reads int32", "leave biases float"),
    ),
    "a pooling along one axis": (
        graph(node("MaxPool", "x", "y", kernel_shape=[2]), shape=("N", 8, 6)), VERSIONS, ("(MaxPool)", "one axis"),
    ),
    "the places of maxima": (
        graph(node("MaxPool", "x", "y places", kernel_shape=[2, 2])), VERSIONS, ("indices of its maxima",),
    ),
    "a pooling with gaps": (
        graph(node("MaxPool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2])), VERSIONS, ("dilations",),
    ),
    "a cubic resize": (
        graph(node("Resize", "x - f", "y", mode="cubic"), f=np.array([1, 1, 2, 2], np.float32)),
        VERSIONS,
        ("node y (Resize)", "mode cubic", "nearest, linear"),
    ),
    "an antialiased resize": (
        graph(node("Resize", "x - f", "y", mode="linear", antialias=1), opset=18, f=filters(4)),
        VERSIONS,
        ("antialias",),
    ),
    "computed axes": (
        graph(node("Shape", "x", "s"), node("Slice", "s i j", "a"), node("ReduceSum", "x a", "y"),
              i=integers(0), j=integers(1)),
        VERSIONS,
        ("node y (ReduceSum)", "has the computed input a"),
    ),
    "a scattering that adds": (
        graph(node("ScatterND", "x i u", "y", reduction="add"), i=np.zeros((1, 1), np.int64), u=filters(1, 8, 6, 6)),
        VERSIONS,
        ("node y (ScatterND)", "reduction add"),
    ),
    "a dropout in training": (
        graph(node("Dropout", "x - t", "y"), t=np.array(True)), VERSIONS, ("node y (Dropout)", "eval mode"),
    ),
    "moments that a normalisation gives": (
        graph(node("LayerNormalization", "x s", "n m"), node("Add", "n m", "y"), s=filters(6)),
        VERSIONS,
        ("node n (LayerNormalization)", "first output"),
    ),
    "pads that wrap around": (
        graph(node("Pad", "x p", "y", mode="wrap"), p=integers(0, 0, 1, 1, 0, 0, 1, 1)), (8,), ("mode wrap",),
    ),
    "within a branch": (
        graph(
            node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m zero", "c"),
            helper.make_node("If", ["c"], ["y"], **{
                f"{name}_branch": helper.make_graph(
                    [node("Det", "x", name)], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
                )
                for name in ("then", "else")
            }),
            zero=np.array(0, np.float32),
        ),
        VERSIONS,
        ("node then (Det)",),
    ),
}  # fmt: skip
"""By rule: a graph, the versions that refuse the graph, and parts of the complaint."""


@pytest.mark.parametrize("rule", BROKEN)
def test_a_graph_that_breaks_a_rule_has_a_complaint(rule: str) -> None:
    model, versions, parts = BROKEN[rule]
    for version in VERSIONS:
        lines = complaints(model, version)
        matches = [line for line in lines if all(part in line for part in parts)]
        assert bool(matches) == (version in versions), lines


def test_float16_scales_need_a_version_after_8() -> None:
    model = graph(
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y"),
        kind=HALF, gives=HALF, opset=19, s=STEP.astype(np.float16), z=ZERO,
    )  # fmt: skip
    assert complaints(model, 10) == complaints(model, 11) == []
    assert any("TensorRT 8 reads float32" in line for line in complaints(model, 8))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_latest_documented_opset_is_accepted(version: int) -> None:
    assert complaints(graph(node("Relu", "x", "y"), opset=LATEST_OPSET[version]), version) == []
    assert complaints(graph(node("Relu", "x", "y"), opset=LATEST_OPSET[version] + 1), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_constant_node_is_recognised_with_any_attribute(version: int) -> None:
    constants = [node("Constant", "", "axes", value_ints=[2, 3]), node("Constant", "", "axis", value_int=2)]
    model = graph(*constants, node("ReduceMean", "x axes", "mean"), node("CumSum", "mean axis", "y"), opset=18)
    assert [line for line in complaints(model, version) if "opset" not in line] == []
