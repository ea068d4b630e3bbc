"""Compaction: removed channels, folded constants, and channels that must stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from tests.converter.compaction.building import SIZE, Net

from lmconv.compaction.compact import Compacted, compact
from lmconv.compaction.liveness import BLOCK, MULTIPLE, TIED
from lmconv.graph.facts import parameters
from lmconv.inference.ort import OrtSession


def compacted(model: onnx.ModelProto, *, multiple: int = 1) -> Compacted:
    """Compacts a graph; asserts the same outputs, a valid graph, and that compacting again changes nothing."""
    serialised = model.SerializeToString(deterministic=True)
    result = compact(model, multiple=multiple)
    assert model.SerializeToString(deterministic=True) == serialised
    onnx.checker.check_model(result.model, full_check=True)
    for batch in (1, 3):
        images = np.random.default_rng(batch).uniform(-1, 1, (batch, 3, SIZE, SIZE)).astype(np.float32)
        before, after = (run(each, images) for each in (model, result.model))
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_allclose(after[name], before[name], atol=1e-6, rtol=1e-6)
    assert compact(result.model, multiple=multiple).model is result.model
    return result


def run(model: onnx.ModelProto, images: np.ndarray) -> Mapping[str, np.ndarray]:
    with OrtSession(model.SerializeToString()) as session:
        return session.run({"input": images})


def channels(result: Compacted) -> dict[str, int]:
    """Number of channels after compaction, by layer."""
    return {layer.name: layer.channels[1] for layer in result.layers}


def kept(result: Compacted, name: str) -> Mapping[str, int]:
    return next(layer.kept for layer in result.layers if layer.name == name)


# Removed channels


def test_a_dead_channel_is_removed_from_filter_activation_and_reader() -> None:
    net = Net()
    data = net.conv("input", 3, 6, name="a", dead=[1, 4])
    data = net.node("PRelu", data, net.weight(6, 1, 1))
    result = compacted(net.head(data, 6))
    assert channels(result) == {"a": 4, "head": 2}
    sizes = {tensor.name: list(tensor.dims) for tensor in result.model.graph.initializer}
    assert sizes["a.1"] == [4, 3, 1, 1]
    assert sizes["prelu_1.1"] == [4, 1, 1]
    assert sizes["head.1"] == [2, 4, 3, 3]


def test_a_constant_is_folded_into_the_bias_of_an_unpadded_reader() -> None:
    net = Net()
    data = net.node("Sigmoid", net.conv("input", 3, 6, name="a", dead=[0, 5], constant=0.7))
    data = net.conv(data, 6, 4, name="b", kernel=3, pads=[0, 0, 0, 0])
    assert channels(compacted(net.head(data, 4)))["a"] == 4


def test_a_constant_is_folded_through_a_chain_of_layers() -> None:
    net = Net()
    data = net.conv("input", 3, 6, name="a", dead=range(3), constant=0.5)
    weight = net.weight(4, 6, 1, 1)
    weight[:2, 3:] = 0  # two filters that read constants only
    data = net.node("Relu", net.node("Conv", data, weight, net.bias(4), name="b"))
    data = net.conv(data, 4, 4, name="c")
    assert channels(compacted(net.head(data, 4))) == {"a": 3, "b": 2, "c": 4, "head": 2}


def test_an_unread_channel_is_removed_although_it_varies() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a"))
    data = net.conv(data, 6, 4, name="b", unread=[2, 3])
    assert channels(compacted(net.head(data, 4)))["a"] == 4


def test_depthwise_filters_are_removed_with_their_channels() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="expand", dead=[0, 1]))
    data = net.node("Conv", data, net.weight(12, 1, 3, 3), net.bias(12), name="depthwise", group=6, pads=[1] * 4)
    data = net.conv(data, 12, 4, name="project", unread=[4, 5])
    result = compacted(net.head(data, 4))
    # Channels 0 and 1 are dead before the depthwise layer and constant after it; channel 2 is unread.
    assert channels(result) == {"expand": 3, "depthwise": 6, "project": 4, "head": 2}


def test_batch_normalisation_with_a_scale_of_zero_kills_its_channel() -> None:
    net = Net()
    scale = net.bias(6)
    scale[[2, 3]] = 0
    data = net.conv("input", 3, 6, name="a")
    data = net.node("BatchNormalization", data, scale, net.bias(6), net.bias(6), net.bias(6))
    data = net.conv(net.node("Relu", data), 6, 4, name="b")
    assert channels(compacted(net.head(data, 4)))["a"] == 4


def test_a_dead_gate_makes_its_channel_dead() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a"))
    gate = net.conv(net.node("GlobalAveragePool", data), 6, 3, name="squeeze")
    gate = net.node("Relu", net.conv(net.node("Relu", gate), 3, 6, name="excite", dead=[1, 2], constant=-1.0))
    data = net.conv(net.node("Mul", data, gate), 6, 4, name="b")
    result = compacted(net.head(data, 4))
    # The squeeze layer reads channels 1 and 2, which therefore stay; their gate is constant.
    assert channels(result)["a"] == 6
    assert kept(result, "excite") == {TIED: 2}


def test_se_gates_lose_the_channels_that_they_multiply() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a", dead=[0, 3]))
    gate = net.conv(net.node("ReduceMean", data, np.array([2, 3])), 6, 3, name="squeeze")
    gate = net.node("Sigmoid", net.conv(net.node("Relu", gate), 3, 6, name="excite"))
    data = net.conv(net.node("Mul", data, gate), 6, 4, name="b")
    assert channels(compacted(net.head(data, 4))) == {"a": 4, "squeeze": 3, "excite": 4, "b": 4, "head": 2}


def test_parts_of_concatenations_and_splits_lose_their_dead_channels() -> None:
    net = Net()
    parts = [net.conv("input", 3, 4, name="a", dead=[0]), net.conv("input", 3, 4, name="b", dead=[2, 3])]
    data = net.node("Concat", *parts, axis=1)
    net.nodes.append(
        onnx.helper.make_node("Split", [data, net.constant(np.array([2, 6]), "sizes")], ["c", "d"], axis=1)
    )
    data = net.conv(net.node("Concat", net.conv("d", 6, 4, name="e"), "c", axis=1), 6, 4, name="f")
    result = compacted(net.head(data, 4))
    assert channels(result) == {"a": 3, "b": 2, "e": 4, "f": 4, "head": 2}


def test_a_part_of_a_concatenation_without_channels_is_removed() -> None:
    net = Net()
    parts = [net.conv("input", 3, 4, name="a"), net.conv("input", 3, 4, name="b", dead=range(4), constant=0.3)]
    data = net.conv(net.node("Concat", *parts, axis=1), 8, 4, name="c")
    result = compacted(net.head(data, 4))
    assert channels(result)["b"] == 0
    assert [node.op_type for node in result.model.graph.node] == ["Conv", "Conv", "Conv"]


def test_slices_are_adjusted_to_removed_channels() -> None:
    net = Net()
    data = net.conv("input", 3, 8, name="a", dead=[0, 5])
    first = net.node("Slice", data, np.array([0]), np.array([4]), np.array([1]))
    second = net.node("Slice", data, np.array([4]), np.array([2**62]), np.array([-3]))
    assert channels(compacted(net.head(net.node("Add", first, second), 4)))["a"] == 8  # tied: 0 to 4, 5 to 1
    net = Net()
    data = net.conv("input", 3, 8, name="a", dead=[0, 5])
    first = net.node("Slice", data, np.array([0]), np.array([4]), np.array([1]))
    second = net.node("Slice", data, np.array([4]), np.array([2**62]), np.array([-3]))
    both = net.node("Concat", second, first, axis=1)
    assert channels(compacted(net.head(both, 8)))["a"] == 6


def test_a_linear_layer_loses_all_positions_of_a_flattened_channel() -> None:
    net = Net()
    data = net.node("Flatten", net.conv("input", 3, 5, name="a", dead=[1, 2], constant=0.4))
    out = net.node("Gemm", data, net.weight(4, 5 * SIZE**2), net.bias(4), name="fc", transB=1, alpha=0.5, beta=2.0)
    result = compacted(net.model(out))
    assert channels(result) == {"a": 3, "fc": 4}
    assert parameters(result.model) == 3 * 4 + 4 * (3 * SIZE**2 + 1)


def test_a_linear_layer_without_bias_gets_a_bias_for_a_folded_constant() -> None:
    net = Net()
    data = net.node("GlobalAveragePool", net.conv("input", 3, 5, name="a", dead=[1, 2], constant=0.4))
    data = net.node("Reshape", data, np.array([-1, 5]))
    out = net.node("MatMul", data, net.weight(5, 4), name="fc")
    result = compacted(net.model(out))
    assert channels(result) == {"a": 3, "fc": 4}
    assert result.model.graph.node[-1].op_type == "Gemm"


def test_zero_channels_are_removed_through_transposed_convolution_resize_and_pooling() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a", dead=[0, 1]))
    data = net.node("MaxPool", data, kernel_shape=[2, 2], strides=[2, 2])
    data = net.node("Resize", data, "", np.array([1, 1, 2, 2], np.float32), mode="nearest")
    data = net.node("ConvTranspose", data, net.weight(6, 4, 2, 2), net.bias(4), name="up", strides=[2, 2])
    assert channels(compacted(net.head(data, 4)))["a"] == 4


def test_sizes_of_a_resize_are_adjusted_to_removed_channels() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a", dead=[0, 1]))
    data = net.node("Resize", data, "", "", np.array([3, 6, 16, 16]), mode="linear")
    model = net.head(data, 6)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    result = compact(model)
    images = np.ones((3, 3, SIZE, SIZE), np.float32)
    np.testing.assert_allclose(run(result.model, images)["head"], run(model, images)["head"], atol=1e-6)
    assert channels(result)["a"] == 4


# Sums


def test_a_channel_of_a_sum_is_removed_if_every_writer_is_dead() -> None:
    net = Net()
    parts = [net.conv("input", 3, 6, name=name, dead=[1, index + 2]) for index, name in enumerate("abc")]
    data = net.conv(net.node("Sum", *parts), 6, 4, name="d")
    result = compacted(net.head(data, 4))
    assert channels(result) == {"a": 5, "b": 5, "c": 5, "d": 4, "head": 2}
    assert kept(result, "a") == {TIED: 1}


def test_a_block_of_dead_channels_becomes_its_shortcut() -> None:
    net = Net()
    stem = net.conv("input", 3, 4, name="stem")
    data = net.node("Relu", net.conv(stem, 4, 8, name="expand"))
    data = net.conv(data, 8, 4, name="project", dead=range(4))
    result = compacted(net.head(net.node("Add", stem, data), 4))
    assert channels(result) == {"stem": 4, "expand": 0, "project": 0, "head": 2}
    assert [node.op_type for node in result.model.graph.node] == ["Conv", "Conv"]


def test_a_block_that_adds_a_constant_becomes_the_constant() -> None:
    net = Net()
    stem = net.conv("input", 3, 4, name="stem")
    data = net.node("Relu", net.conv(stem, 4, 8, name="expand"))
    data = net.conv(data, 8, 4, name="project", dead=range(4), constant=0.25)
    result = compacted(net.head(net.node("Add", stem, data), 4))
    assert [node.op_type for node in result.model.graph.node] == ["Conv", "Add", "Conv"]


def test_channels_that_feed_only_themselves_are_removed() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="stem")
    for block in range(2):
        hidden = net.node("Relu", net.conv(data, 4, 6, name=f"expand{block}", unread=[0, 1, 2]))
        weight = net.weight(4, 6, 1, 1)
        weight[0, 1:] = 0  # channel 0 of the stage reads hidden channel 0 only,
        weight[1:, 0] = 0  # which no other channel reads,
        hidden = net.node("Conv", hidden, weight, net.bias(4), name=f"project{block}")
        data = net.node("Add", data, hidden)
    data = net.conv(data, 4, 4, name="last", unread=[0])  # and the last layer does not read channel 0
    result = compacted(net.head(data, 4))
    assert channels(result)["stem"] == 3
    assert channels(result)["expand0"] == 5


def test_a_sum_of_two_constants_is_folded_once() -> None:
    net = Net()
    parts = [net.conv("input", 3, 2, name=name, dead=[0], constant=0.5) for name in "ab"]
    data = net.conv(net.node("Add", *parts), 2, 4, kernel=3, name="c", unread=[1])
    result = compacted(net.head(net.node("Add", data, net.conv("input", 3, 4, name="d")), 4))
    assert channels(result)["a"] == channels(result)["b"] == 1


def test_dead_filters_of_a_single_input_channel_are_removed() -> None:
    net = Net()
    data = net.node("ReduceMean", "input", np.array([1]), keepdims=1)
    data = net.conv(data, 1, 6, name="a", dead=[0, 1])
    assert channels(compacted(net.head(data, 6)))["a"] == 4


# Channels that must stay


def test_a_constant_before_zero_padding_stays() -> None:
    net = Net()
    data = net.conv("input", 3, 6, name="a", dead=[0, 5], constant=0.7)
    result = compacted(net.head(data, 6))
    assert channels(result)["a"] == 6
    assert kept(result, "a") == {"zero padding of head": 2}
    assert result.layers[0].dead == 2


def test_a_constant_that_zero_padding_makes_uneven_stays() -> None:
    net = Net()
    data = net.conv("input", 3, 6, name="a", dead=[0], constant=0.7)
    data = net.node("Conv", data, net.weight(6, 1, 3, 3), net.bias(6), name="depthwise", group=6, pads=[1] * 4)
    data = net.conv(data, 6, 4, name="b")
    result = compacted(net.head(data, 4))
    assert kept(result, "depthwise") == {"constant, but not the same at every place": 1}


def test_a_channel_with_one_live_writer_stays_in_all_writers() -> None:
    net = Net()
    parts = [net.conv("input", 3, 4, name="a", dead=[0, 1]), net.conv("input", 3, 4, name="b", dead=[2])]
    result = compacted(net.head(net.conv(net.node("Add", *parts), 4, 4, name="c"), 4))
    assert (channels(result)["a"], channels(result)["b"]) == (4, 4)
    assert (kept(result, "a"), kept(result, "b")) == ({TIED: 2}, {TIED: 1})


def test_a_channel_with_one_of_two_readers_stays() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="a")
    parts = [net.conv(data, 4, 4, name="b", unread=[0, 1]), net.conv(data, 4, 4, name="c", unread=[1, 2])]
    result = compacted(net.head(net.node("Concat", *parts, axis=1), 8))
    assert channels(result)["a"] == 3


def test_a_channel_with_a_tiny_filter_stays() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="a")
    net.constants[0].CopyFrom(onnx.numpy_helper.from_array(np.full((4, 3, 1, 1), 1e-30, np.float32), "a.1"))
    model = net.head(net.node("Mul", data, np.array(1e30, np.float32)), 4)
    assert compact(model).model is model


@pytest.mark.parametrize(
    ("op", "attributes"), [("Softmax", {"axis": 1}), ("LRN", {"size": 3}), ("DepthToSpace", {"blocksize": 2})]
)
def test_an_operator_over_channels_keeps_them_and_is_named(op: str, attributes: dict[str, int]) -> None:
    net = Net()
    data = net.conv("input", 3, 8, name="a", dead=[0, 1])
    out = net.node(op, data, name="odd", **attributes)
    result = compacted(net.head(out, 2 if op == "DepthToSpace" else 8))
    assert channels(result)["a"] == 8
    assert list(result.whole.values()) == [["odd"]]
    assert list(kept(result, "a").values()) == [2]


def test_a_pad_value_computed_from_the_input_is_no_constant() -> None:
    net = Net()
    value = net.node("ReduceMean", "input", np.array([0, 1, 2, 3]), keepdims=0)
    data = net.conv("input", 3, 4, name="a", dead=[0], constant=0.5)
    data = net.node("Pad", data, np.array([0, 0, 1, 1, 0, 0, 1, 1]), value, name="pad")
    data = net.node("GlobalAveragePool", data)
    result = compact(model := net.model(net.conv(data, 4, 2, name="b")))
    images = np.random.default_rng(0).uniform(-1, 1, (1, 3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(run(result.model, images)["b"], run(model, images)["b"], atol=1e-6)
    assert result.whole["Pad: what it is told is computed"] == ["pad"]


def test_a_constant_input_of_a_prelu_with_computed_slopes_stays() -> None:
    net = Net()
    slopes = net.conv("input", 3, 4, name="slopes")
    data = net.conv("input", 3, 4, name="a", dead=range(4), constant=-0.5)
    result = compacted(net.head(net.node("PRelu", data, slopes), 4))
    assert channels(result)["a"] == 4


def test_a_bias_that_is_not_a_vector_over_outputs_stays() -> None:
    net = Net()
    data = net.node("GlobalAveragePool", net.conv("input", 3, 4, name="a", dead=[0], constant=0.5))
    data = net.node("Flatten", data)
    model = net.model(net.node("Gemm", data, net.weight(4, 4), net.bias(4).reshape(4, 1), name="fc"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    images = np.random.default_rng(0).uniform(-1, 1, (4, 3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(run(compact(model).model, images)["fc"], run(model, images)["fc"], atol=1e-6)


def test_a_value_read_by_a_subgraph_keeps_its_name() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="stem")
    data = net.node("Add", data, net.conv("input", 3, 4, name="nothing", dead=range(4)), name="sum")
    branches = {
        f"{which}_branch": onnx.helper.make_graph(
            [onnx.helper.make_node(op, ["sum"], [which])], which, [], [onnx.ValueInfoProto(name=which)]
        )
        for which, op in (("then", "Neg"), ("else", "Abs"))
    }
    condition = net.constant(np.array(True), "condition")
    net.nodes.append(onnx.helper.make_node("If", [condition], ["chosen"], name="chosen", **branches))
    result = compact(model := net.model(net.conv("chosen", 4, 2, name="b")))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(run(result.model, images)["b"], run(model, images)["b"], atol=1e-6)
    assert channels(result)["nothing"] == 0


def test_a_grouped_convolution_loses_whole_groups_only() -> None:
    net = Net()
    data = net.conv("input", 3, 9, name="a", dead=[0, 1, 2, 4])
    data = net.node("Conv", data, net.weight(6, 3, 1, 1), np.zeros(6, np.float32), name="grouped", group=3)
    result = compacted(net.head(data, 6))
    assert channels(result) == {"a": 6, "grouped": 4, "head": 2}
    assert kept(result, "a") == {BLOCK: 1}


def test_an_output_of_the_network_keeps_its_channels() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="a", dead=[0])
    out = net.conv(data, 4, 2, name="b")
    result = compacted(net.model(out, data))
    assert channels(result)["a"] == 4


def test_shared_weights_stay_whole_for_the_other_layer() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="a", dead=[1])
    shared = net.constant(net.weight(4, 4, 1, 1), "shared")
    parts = [net.node("Conv", each, shared) for each in (data, net.conv("input", 3, 4, name="b"))]
    result = compacted(net.head(net.node("Concat", *parts, axis=1), 8))
    assert channels(result)["a"] == 3


def test_a_network_without_dead_channels_is_returned_unchanged() -> None:
    net = Net()
    model = net.head(net.node("Relu", net.conv("input", 3, 6, name="a")), 6)
    assert compact(model).model is model


# Widths


@pytest.mark.parametrize(("multiple", "expected"), [(1, 9), (4, 12), (8, 16), (16, 16), (64, 20)])
def test_a_layer_keeps_a_multiple_of_channels_up_to_its_own_number(multiple: int, expected: int) -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 20, name="a", dead=range(11), constant=0.5))
    result = compacted(net.head(net.conv(data, 20, 4, name="b"), 4), multiple=multiple)
    assert channels(result)["a"] == expected
    assert kept(result, "a") == ({MULTIPLE: expected - 9} if expected > 9 else {})
