"""Opset 18 lowered to opset 17: random graphs of each changed operator, and refusals by name."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, defs, helper, numpy_helper
from tests.converter.passes.building import SPEC, node, normal, small
from tests.generated.networks import sample
from tests.generated.properties import gap, images

from lmconv.errors import GateFailed
from lmconv.inference.ort import OrtSession
from lmconv.passes import opset17
from lmconv.types import PassContext

AXES = st.lists(st.sampled_from([0, 1, 2, 3, -1, -2, -3, -4]), unique_by=lambda axis: axis % 4, max_size=4)
EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """Applies the pass to a copy; asserts that the result is valid in opset 17 and computes the same outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    result, _ = opset17.plugin.apply(copy, PassContext(spec=SPEC))
    onnx.checker.check_model(result, full_check=True)
    assert [(entry.domain, entry.version) for entry in result.opset_import if not entry.domain] == [("", 17)]
    images = {"x": np.abs(normal(2, 8, 6, 6)) + 0.1}
    before, after = (OrtSession(each.SerializeToString()).run(images) for each in (model, result))
    assert list(before) == list(after)
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-5)  # factors may be rounded differently
    return result


def refused(model: onnx.ModelProto, *parts: str) -> None:
    """Asserts that the pass refuses a graph with a message that contains these parts."""
    with pytest.raises(GateFailed) as raised:
        opset17.plugin.apply(model, PassContext(spec=SPEC))
    assert raised.value.exit_code == 1
    for part in (*parts, "opset 17 does not support", "TensorRT 10"):
        assert part in str(raised.value)


def integers(*values: int) -> Any:
    return np.array(values, np.int64)


def test_every_new_or_changed_operator_of_opset_18_has_a_rule() -> None:
    standard = [schema for schema in defs.get_all_schemas_with_history() if not schema.domain]
    assert {schema.name for schema in standard if schema.since_version == 18} == set(opset17.RULES)


@EXAMPLES
@given(kind=st.sampled_from(opset17.REDUCTIONS), axes=st.none() | AXES, keep=st.booleans(), held=st.booleans())
def test_reductions_get_their_axes_as_an_attribute(kind: str, axes: list[int] | None, keep: bool, held: bool) -> None:
    reduce = node(f"Reduce{kind}", "x axes" if axes is not None else "x", "y", keepdims=int(keep))
    constants = {"axes": integers(*(axes or []))}
    if held:
        constant = helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(constants["axes"]))
        result = lowered(small([constant, reduce], {}))
    else:
        result = lowered(small([reduce], constants))
    assert [list(each.input) for each in result.graph.node] == [["x"]]
    assert not result.graph.initializer


def test_a_reduction_of_no_axes_that_reduces_nothing_is_an_identity() -> None:
    result = lowered(small([node("ReduceMean", "x", "y", noop_with_empty_axes=1)], {}))
    assert [each.op_type for each in result.graph.node] == ["Identity"]
    refused(small([node("ReduceL2", "x", "y", noop_with_empty_axes=1)], {}), "node y (ReduceL2)", "reduces no axes")


def test_a_reduction_along_computed_axes_is_refused() -> None:
    nodes = [node("Shape", "x", "shape"), node("Slice", "shape zero one", "axes"), node("ReduceMax", "x axes", "y")]
    model = small([*nodes[:2], node("Add", "x x", "y")], {"zero": integers(0), "one": integers(1)})
    del model.graph.node[2]
    model.graph.node.append(nodes[2])
    refused(model, "node y (ReduceMax)", "computed axes")


@EXAMPLES
@given(axes=AXES.filter(bool), data=st.data(), mode=st.sampled_from(["constant", "reflect", "edge"]))
def test_pads_of_some_axes_become_pads_of_all_axes(axes: list[int], data: Any, mode: str) -> None:
    least = -1 if mode == "constant" else 0
    one = st.integers(least, 2)
    pads = [0 if axis % 4 == 0 else data.draw(one) for axis in (*axes, *axes)]
    value = "v" if mode == "constant" and data.draw(st.booleans()) else "-"
    constants = {"pads": integers(*pads), "axes": integers(*axes), "v": np.array(2.5, np.float32)}
    result = lowered(small([node("Pad", f"x pads {value} axes", "y", mode=mode)], constants))
    (pad,) = result.graph.node
    assert len(pad.input) <= 3
    assert next(tensor.dims for tensor in result.graph.initializer if tensor.name == pad.input[1]) == [8]


def test_computed_pads_of_all_axes_stay() -> None:
    nodes = [node("Mul", "pads two", "twice"), node("Pad", "x twice", "y")]
    model = small([node("Pad", "x pads", "y")], {"pads": integers(0, 0, 1, 1, 0, 0, 1, 1), "two": integers(2)})
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(nodes)
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8, "h", "w"]))
    assert [each.op_type for each in lowered(model).graph.node] == ["Mul", "Pad"]


@EXAMPLES
@given(axis=st.sampled_from([1, 2, 3, -1, -2]), parts=st.integers(1, 5))
def test_a_split_into_equal_or_uneven_parts_gets_explicit_sizes(axis: int, parts: int) -> None:
    size = (2, 8, 6, 6)[axis]
    if -(-size // parts) * (parts - 1) >= size:
        parts = 2
    outputs = [f"y{part}" for part in range(parts)]
    split = helper.make_node("Split", ["x"], outputs, axis=axis, num_outputs=parts)
    result = lowered(small([split], {}, outputs=outputs))
    (sizes,) = (numpy_helper.to_array(tensor) for tensor in result.graph.initializer)
    assert sizes.sum() == size


def test_a_split_of_a_free_axis_is_refused() -> None:
    split = helper.make_node("Split", ["x"], ["y", "z"], axis=0, num_outputs=2)
    model = small([split], {}, outputs=["y", "z"])
    refused(model, "node y (Split)", "splits a free axis into 2 parts")


@EXAMPLES
@given(
    axes=st.sampled_from([[2, 3], [3, 2], [-1], [2]]),
    sized=st.booleans(),
    factor=st.sampled_from([2.0, 0.5, 1.5, 7 / 6, 5 / 6, 11 / 6, 25 / 6]),
    how=st.sampled_from(
        [
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        ]
    ),
)
def test_a_resize_of_some_axes_gets_factors_of_all_axes(
    axes: list[int], sized: bool, factor: float, how: dict[str, str]
) -> None:
    constants = {
        "factors": np.full(len(axes), factor, np.float32),
        "sizes": integers(*[round(6 * factor)] * len(axes)),
    }
    inputs = "x - - sizes" if sized else "x - factors"
    model = small([node("Resize", inputs, "y", axes=axes, antialias=0, **how)], constants)
    (resize,) = lowered(model).graph.node
    assert not {"axes", "antialias", "keep_aspect_ratio_policy"} & {item.name for item in resize.attribute}


@pytest.mark.parametrize(
    ("inputs", "how", "reason"),
    [
        ("x - factors", {"mode": "linear", "antialias": 1}, "antialias"),
        ("x - - sizes", {"keep_aspect_ratio_policy": "not_larger", "axes": [2, 3]}, "keep_aspect_ratio_policy"),
    ],
)
def test_new_options_of_a_resize_are_refused(inputs: str, how: dict[str, Any], reason: str) -> None:
    constants = {"factors": np.array([1, 1, 0.5, 0.5], np.float32), "sizes": integers(3, 3)}
    refused(small([node("Resize", inputs, "y", **how)], constants), "node y (Resize)", reason)


@pytest.mark.parametrize("kind", ["ScatterElements", "ScatterND"])
@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_keeps_old_reductions_and_refuses_new_reductions(kind: str, reduction: str) -> None:
    constants: dict[str, Any] = {"places": np.zeros((1, 1, 1, 1), np.int64), "new": normal(1, 1, 1, 1)}
    if kind == "ScatterND":
        constants = {"places": integers(1).reshape(1, 1), "new": normal(1, 8, 6, 6)}
    model = small([node(kind, "x places new", "y", reduction=reduction)], constants)
    if reduction in ("max", "min"):
        refused(model, f"node y ({kind})", f"reduction {reduction}")
    else:
        lowered(model)


def test_an_lp_pool_loses_attributes_with_default_values() -> None:
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    result = lowered(small([node("LpPool", "x", "y", **window, ceil_mode=0, dilations=[1, 1])], {}))
    assert {item.name for item in result.graph.node[0].attribute} == {"kernel_shape", "strides"}
    refused(small([node("LpPool", "x", "y", **window, dilations=[2, 2])], {}), "node y (LpPool)", "dilations")


def test_mish_becomes_softplus_tanh_and_mul() -> None:
    result = lowered(small([node("Mish", "x", "y")], {}))
    assert [each.op_type for each in result.graph.node] == ["Softplus", "Tanh", "Mul"]


def test_a_new_operator_is_refused_by_name() -> None:
    model = small([node("CenterCropPad", "x size", "y", axes=[2, 3])], {"size": integers(4, 4)})
    refused(model, "node y (CenterCropPad)", "is an operator of opset 18")


def branch(name: str, factor: float) -> onnx.GraphProto:
    """A subgraph that computes a mean times a factor; the axes of the mean are a value of the outer graph."""
    nodes = [node("ReduceMean", "x axes", f"{name}_mean"), node("Mul", f"{name}_mean {name}_factor", name)]
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4)
    return helper.make_graph(
        nodes, name, [], [output], [numpy_helper.from_array(np.array(factor, np.float32), f"{name}_factor")]
    )


def test_subgraphs_are_lowered_too() -> None:
    nodes = [
        node("ReduceMax", "x", "largest", keepdims=0),
        node("Greater", "largest zero", "positive"),
        helper.make_node("If", ["positive"], ["y"], name="y", then_branch=branch("a", 2), else_branch=branch("b", 3)),
    ]
    result = lowered(small(nodes, {"axes": integers(2, 3), "zero": np.array(0, np.float32)}))
    inner = [list(graph.node[0].input) for graph in (item.g for item in result.graph.node[2].attribute)]
    assert inner == [["x"], ["x"]]
    assert [tensor.name for tensor in result.graph.initializer] == ["zero"]


def test_a_refused_node_in_a_subgraph_is_named() -> None:
    inner = branch("a", 2)
    inner.node[0].CopyFrom(node("ReduceL1", "x", "a_mean", noop_with_empty_axes=1))
    model = small(
        [
            node("ReduceMax", "x", "largest", keepdims=0),
            node("Greater", "largest zero", "positive"),
            helper.make_node("If", ["positive"], ["y"], then_branch=inner, else_branch=branch("b", 3)),
        ],
        {"axes": integers(2, 3), "zero": np.array(0, np.float32)},
    )
    refused(model, "node a_mean (ReduceL1)")


def test_functions_are_inlined() -> None:
    model = small([node("ReduceMean", "x axes", "y")], {"axes": integers(1)})
    model.graph.node[0].CopyFrom(helper.make_node("mean", ["x", "axes"], ["y"], domain="own"))
    body = [helper.make_node("ReduceMean", ["data", "along"], ["result"])]
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "mean", ["data", "along"], ["result"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    result = lowered(model)
    assert [each.op_type for each in result.graph.node] == ["ReduceMean"]
    assert not result.functions


def test_random_networks_compute_the_same_outputs() -> None:
    changed, refusals = Counter[str](), 0
    for generated in sample(60):
        copy = onnx.ModelProto()
        copy.CopyFrom(generated.model)
        try:
            result, decisions = opset17.plugin.apply(copy, PassContext(spec=SPEC))
        except GateFailed:  # an Identity hides a shape
            refusals += 1
            continue
        onnx.checker.check_model(result, full_check=True)
        changed.update(decisions["changed"])
        inputs = images(generated)
        before, after = (OrtSession(model.SerializeToString()).run(inputs) for model in (generated.model, result))
        assert gap(after, before) <= 1e-6, generated.recipe
    assert {"ReduceMean", "Resize", "Split"} <= set(changed)
    assert refusals <= 2
