"""What compaction removes, what it folds, and what it has to leave."""

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
    """Compacts, and asserts what always holds: the same numbers, a valid graph, and nothing left to do."""
    given = model.SerializeToString(deterministic=True)
    found = compact(model, multiple=multiple)
    assert model.SerializeToString(deterministic=True) == given
    onnx.checker.check_model(found.model, full_check=True)
    for batch in (1, 3):
        images = np.random.default_rng(batch).uniform(-1, 1, (batch, 3, SIZE, SIZE)).astype(np.float32)
        before, after = (run(each, images) for each in (model, found.model))
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_allclose(after[name], before[name], atol=1e-6, rtol=1e-6)
    assert compact(found.model, multiple=multiple).model is found.model
    return found


def run(model: onnx.ModelProto, images: np.ndarray) -> Mapping[str, np.ndarray]:
    with OrtSession(model.SerializeToString()) as session:
        return session.run({"input": images})


def channels(found: Compacted) -> dict[str, int]:
    """Channels after compaction, by layer."""
    return {layer.name: layer.channels[1] for layer in found.layers}


def kept(found: Compacted, name: str) -> Mapping[str, int]:
    return next(layer.kept for layer in found.layers if layer.name == name)


# What goes


def test_a_dead_channel_goes_from_its_filter_its_activation_and_its_reader() -> None:
    net = Net()
    data = net.conv("input", 3, 6, name="a", dead=[1, 4])
    data = net.node("PRelu", data, net.weight(6, 1, 1))
    found = compacted(net.head(data, 6))
    assert channels(found) == {"a": 4, "head": 2}
    sizes = {tensor.name: list(tensor.dims) for tensor in found.model.graph.initializer}
    assert sizes["a.1"] == [4, 3, 1, 1]
    assert sizes["prelu_1.1"] == [4, 1, 1]
    assert sizes["head.1"] == [2, 4, 3, 3]


def test_a_constant_goes_into_the_bias_of_an_unpadded_reader() -> None:
    net = Net()
    data = net.node("Sigmoid", net.conv("input", 3, 6, name="a", dead=[0, 5], constant=0.7))
    data = net.conv(data, 6, 4, name="b", kernel=3, pads=[0, 0, 0, 0])
    assert channels(compacted(net.head(data, 4)))["a"] == 4


def test_a_constant_goes_through_a_chain_of_layers_that_read_nothing_else() -> None:
    net = Net()
    data = net.conv("input", 3, 6, name="a", dead=range(3), constant=0.5)
    weight = net.weight(4, 6, 1, 1)
    weight[:2, 3:] = 0  # two filters that read constants alone
    data = net.node("Relu", net.node("Conv", data, weight, net.bias(4), name="b"))
    data = net.conv(data, 4, 4, name="c")
    assert channels(compacted(net.head(data, 4))) == {"a": 3, "b": 2, "c": 4, "head": 2}


def test_a_channel_that_nobody_reads_goes_however_it_changes() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a"))
    data = net.conv(data, 6, 4, name="b", unread=[2, 3])
    assert channels(compacted(net.head(data, 4)))["a"] == 4


def test_depthwise_filters_go_with_their_channels() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="expand", dead=[0, 1]))
    data = net.node("Conv", data, net.weight(12, 1, 3, 3), net.bias(12), name="depthwise", group=6, pads=[1] * 4)
    data = net.conv(data, 12, 4, name="project", unread=[4, 5])
    found = compacted(net.head(data, 4))
    # Channels 0 and 1 are dead before it, and give the depthwise bias after it; 2 is read by nobody.
    assert channels(found) == {"expand": 3, "depthwise": 6, "project": 4, "head": 2}


def test_batch_normalisation_with_a_scale_of_zero_kills_its_channel() -> None:
    net = Net()
    scale = net.bias(6)
    scale[[2, 3]] = 0
    data = net.conv("input", 3, 6, name="a")
    data = net.node("BatchNormalization", data, scale, net.bias(6), net.bias(6), net.bias(6))
    data = net.conv(net.node("Relu", data), 6, 4, name="b")
    assert channels(compacted(net.head(data, 4)))["a"] == 4


def test_a_dead_gate_kills_what_it_multiplies() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a"))
    gate = net.conv(net.node("GlobalAveragePool", data), 6, 3, name="squeeze")
    gate = net.node("Relu", net.conv(net.node("Relu", gate), 3, 6, name="excite", dead=[1, 2], constant=-1.0))
    data = net.conv(net.node("Mul", data, gate), 6, 4, name="b")
    found = compacted(net.head(data, 4))
    # The squeeze still reads channels 1 and 2, so they stay; their gate is known.
    assert channels(found)["a"] == 6
    assert kept(found, "excite") == {TIED: 2}


def test_se_gates_lose_channels_with_what_they_gate() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a", dead=[0, 3]))
    gate = net.conv(net.node("ReduceMean", data, np.array([2, 3])), 6, 3, name="squeeze")
    gate = net.node("Sigmoid", net.conv(net.node("Relu", gate), 3, 6, name="excite"))
    data = net.conv(net.node("Mul", data, gate), 6, 4, name="b")
    assert channels(compacted(net.head(data, 4))) == {"a": 4, "squeeze": 3, "excite": 4, "b": 4, "head": 2}


def test_parts_of_concatenations_and_splits_lose_their_own() -> None:
    net = Net()
    parts = [net.conv("input", 3, 4, name="a", dead=[0]), net.conv("input", 3, 4, name="b", dead=[2, 3])]
    data = net.node("Concat", *parts, axis=1)
    net.nodes.append(
        onnx.helper.make_node("Split", [data, net.constant(np.array([2, 6]), "sizes")], ["c", "d"], axis=1)
    )
    data = net.conv(net.node("Concat", net.conv("d", 6, 4, name="e"), "c", axis=1), 6, 4, name="f")
    found = compacted(net.head(data, 4))
    assert channels(found) == {"a": 3, "b": 2, "e": 4, "f": 4, "head": 2}


def test_a_part_of_a_concatenation_without_channels_goes_altogether() -> None:
    net = Net()
    parts = [net.conv("input", 3, 4, name="a"), net.conv("input", 3, 4, name="b", dead=range(4), constant=0.3)]
    data = net.conv(net.node("Concat", *parts, axis=1), 8, 4, name="c")
    found = compacted(net.head(data, 4))
    assert channels(found)["b"] == 0
    assert [node.op_type for node in found.model.graph.node] == ["Conv", "Conv", "Conv"]


def test_slices_move_with_the_channels_before_them() -> None:
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


def test_flattened_channels_take_all_their_places_with_them() -> None:
    net = Net()
    data = net.node("Flatten", net.conv("input", 3, 5, name="a", dead=[1, 2], constant=0.4))
    out = net.node("Gemm", data, net.weight(4, 5 * SIZE**2), net.bias(4), name="fc", transB=1, alpha=0.5, beta=2.0)
    found = compacted(net.model(out))
    assert channels(found) == {"a": 3, "fc": 4}
    assert parameters(found.model) == 3 * 4 + 4 * (3 * SIZE**2 + 1)


def test_a_linear_layer_without_bias_gets_one_for_what_it_folds() -> None:
    net = Net()
    data = net.node("GlobalAveragePool", net.conv("input", 3, 5, name="a", dead=[1, 2], constant=0.4))
    data = net.node("Reshape", data, np.array([-1, 5]))
    out = net.node("MatMul", data, net.weight(5, 4), name="fc")
    found = compacted(net.model(out))
    assert channels(found) == {"a": 3, "fc": 4}
    assert found.model.graph.node[-1].op_type == "Gemm"


def test_transposed_convolution_resize_and_pooling_carry_zeros() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a", dead=[0, 1]))
    data = net.node("MaxPool", data, kernel_shape=[2, 2], strides=[2, 2])
    data = net.node("Resize", data, "", np.array([1, 1, 2, 2], np.float32), mode="nearest")
    data = net.node("ConvTranspose", data, net.weight(6, 4, 2, 2), net.bias(4), name="up", strides=[2, 2])
    assert channels(compacted(net.head(data, 4)))["a"] == 4


def test_a_resize_that_is_told_sizes_is_told_the_new_ones() -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 6, name="a", dead=[0, 1]))
    data = net.node("Resize", data, "", "", np.array([3, 6, 16, 16]), mode="linear")
    model = net.head(data, 6)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    found = compact(model)
    images = np.ones((3, 3, SIZE, SIZE), np.float32)
    np.testing.assert_allclose(run(found.model, images)["head"], run(model, images)["head"], atol=1e-6)
    assert channels(found)["a"] == 4


# Sums


def test_a_channel_of_a_sum_goes_when_every_writer_is_dead_there() -> None:
    net = Net()
    parts = [net.conv("input", 3, 6, name=name, dead=[1, index + 2]) for index, name in enumerate("abc")]
    data = net.conv(net.node("Sum", *parts), 6, 4, name="d")
    found = compacted(net.head(data, 4))
    assert channels(found) == {"a": 5, "b": 5, "c": 5, "d": 4, "head": 2}
    assert kept(found, "a") == {TIED: 1}


def test_a_block_of_dead_channels_becomes_its_shortcut() -> None:
    net = Net()
    stem = net.conv("input", 3, 4, name="stem")
    data = net.node("Relu", net.conv(stem, 4, 8, name="expand"))
    data = net.conv(data, 8, 4, name="project", dead=range(4))
    found = compacted(net.head(net.node("Add", stem, data), 4))
    assert channels(found) == {"stem": 4, "expand": 0, "project": 0, "head": 2}
    assert [node.op_type for node in found.model.graph.node] == ["Conv", "Conv"]


def test_a_block_that_only_adds_a_constant_is_that_constant() -> None:
    net = Net()
    stem = net.conv("input", 3, 4, name="stem")
    data = net.node("Relu", net.conv(stem, 4, 8, name="expand"))
    data = net.conv(data, 8, 4, name="project", dead=range(4), constant=0.25)
    found = compacted(net.head(net.node("Add", stem, data), 4))
    assert [node.op_type for node in found.model.graph.node] == ["Conv", "Add", "Conv"]


def test_channels_that_feed_only_themselves_go() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="stem")
    for block in range(2):
        hidden = net.node("Relu", net.conv(data, 4, 6, name=f"expand{block}", unread=[0, 1, 2]))
        weight = net.weight(4, 6, 1, 1)
        weight[0, 1:] = 0  # channel 0 of the stage is made from hidden channel 0,
        weight[1:, 0] = 0  # which makes nothing else,
        hidden = net.node("Conv", hidden, weight, net.bias(4), name=f"project{block}")
        data = net.node("Add", data, hidden)
    data = net.conv(data, 4, 4, name="last", unread=[0])  # and nobody reads it at the end
    found = compacted(net.head(data, 4))
    assert channels(found)["stem"] == 3
    assert channels(found)["expand0"] == 5


def test_two_constants_of_a_sum_do_not_both_stand_for_a_value() -> None:
    net = Net()
    parts = [net.conv("input", 3, 2, name=name, dead=[0], constant=0.5) for name in "ab"]
    data = net.conv(net.node("Add", *parts), 2, 4, kernel=3, name="c", unread=[1])
    found = compacted(net.head(net.node("Add", data, net.conv("input", 3, 4, name="d")), 4))
    assert channels(found)["a"] == channels(found)["b"] == 1


def test_dead_filters_of_a_single_input_channel_go() -> None:
    net = Net()
    data = net.node("ReduceMean", "input", np.array([1]), keepdims=1)
    data = net.conv(data, 1, 6, name="a", dead=[0, 1])
    assert channels(compacted(net.head(data, 6)))["a"] == 4


# What has to stay


def test_a_constant_before_zero_padding_stays() -> None:
    net = Net()
    data = net.conv("input", 3, 6, name="a", dead=[0, 5], constant=0.7)
    found = compacted(net.head(data, 6))
    assert channels(found)["a"] == 6
    assert kept(found, "a") == {"zero padding of head": 2}
    assert found.layers[0].dead == 2


def test_a_constant_that_padding_has_made_uneven_stays() -> None:
    net = Net()
    data = net.conv("input", 3, 6, name="a", dead=[0], constant=0.7)
    data = net.node("Conv", data, net.weight(6, 1, 3, 3), net.bias(6), name="depthwise", group=6, pads=[1] * 4)
    data = net.conv(data, 6, 4, name="b")
    found = compacted(net.head(data, 4))
    assert kept(found, "depthwise") == {"constant, but not the same at every place": 1}


def test_a_channel_with_one_live_writer_stays_in_all() -> None:
    net = Net()
    parts = [net.conv("input", 3, 4, name="a", dead=[0, 1]), net.conv("input", 3, 4, name="b", dead=[2])]
    found = compacted(net.head(net.conv(net.node("Add", *parts), 4, 4, name="c"), 4))
    assert (channels(found)["a"], channels(found)["b"]) == (4, 4)
    assert (kept(found, "a"), kept(found, "b")) == ({TIED: 2}, {TIED: 1})


def test_a_channel_that_one_of_two_consumers_reads_stays() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="a")
    parts = [net.conv(data, 4, 4, name="b", unread=[0, 1]), net.conv(data, 4, 4, name="c", unread=[1, 2])]
    found = compacted(net.head(net.node("Concat", *parts, axis=1), 8))
    assert channels(found)["a"] == 3


def test_a_tiny_filter_is_not_a_dead_one() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="a")
    net.constants[0].CopyFrom(onnx.numpy_helper.from_array(np.full((4, 3, 1, 1), 1e-30, np.float32), "a.1"))
    model = net.head(net.node("Mul", data, np.array(1e30, np.float32)), 4)
    assert compact(model).model is model


@pytest.mark.parametrize(
    ("op", "attributes"), [("Softmax", {"axis": 1}), ("LRN", {"size": 3}), ("DepthToSpace", {"blocksize": 2})]
)
def test_what_works_over_channels_keeps_them_and_is_named(op: str, attributes: dict[str, int]) -> None:
    net = Net()
    data = net.conv("input", 3, 8, name="a", dead=[0, 1])
    out = net.node(op, data, name="odd", **attributes)
    found = compacted(net.head(out, 2 if op == "DepthToSpace" else 8))
    assert channels(found)["a"] == 8
    assert list(found.whole.values()) == [["odd"]]
    assert list(kept(found, "a").values()) == [2]


def test_what_an_operator_is_told_by_the_input_is_no_constant() -> None:
    net = Net()
    value = net.node("ReduceMean", "input", np.array([0, 1, 2, 3]), keepdims=0)
    data = net.conv("input", 3, 4, name="a", dead=[0], constant=0.5)
    data = net.node("Pad", data, np.array([0, 0, 1, 1, 0, 0, 1, 1]), value, name="pad")
    data = net.node("GlobalAveragePool", data)
    found = compact(model := net.model(net.conv(data, 4, 2, name="b")))
    images = np.random.default_rng(0).uniform(-1, 1, (1, 3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(run(found.model, images)["b"], run(model, images)["b"], atol=1e-6)
    assert found.whole["Pad: what it is told is computed"] == ["pad"]


def test_the_slopes_of_a_prelu_may_be_a_constant_its_input_may_not() -> None:
    net = Net()
    slopes = net.conv("input", 3, 4, name="slopes")
    data = net.conv("input", 3, 4, name="a", dead=range(4), constant=-0.5)
    found = compacted(net.head(net.node("PRelu", data, slopes), 4))
    assert channels(found)["a"] == 4


def test_a_bias_that_is_no_number_for_each_output_stays() -> None:
    net = Net()
    data = net.node("GlobalAveragePool", net.conv("input", 3, 4, name="a", dead=[0], constant=0.5))
    data = net.node("Flatten", data)
    model = net.model(net.node("Gemm", data, net.weight(4, 4), net.bias(4).reshape(4, 1), name="fc"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    images = np.random.default_rng(0).uniform(-1, 1, (4, 3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(run(compact(model).model, images)["fc"], run(model, images)["fc"], atol=1e-6)


def test_a_value_that_a_subgraph_takes_keeps_its_name() -> None:
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
    found = compact(model := net.model(net.conv("chosen", 4, 2, name="b")))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(run(found.model, images)["b"], run(model, images)["b"], atol=1e-6)
    assert channels(found)["nothing"] == 0


def test_a_grouped_convolution_loses_whole_groups_alone() -> None:
    net = Net()
    data = net.conv("input", 3, 9, name="a", dead=[0, 1, 2, 4])
    data = net.node("Conv", data, net.weight(6, 3, 1, 1), np.zeros(6, np.float32), name="grouped", group=3)
    found = compacted(net.head(data, 6))
    assert channels(found) == {"a": 6, "grouped": 4, "head": 2}
    assert kept(found, "a") == {BLOCK: 1}


def test_an_output_of_the_network_keeps_its_channels() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="a", dead=[0])
    out = net.conv(data, 4, 2, name="b")
    found = compacted(net.model(out, data))
    assert channels(found)["a"] == 4


def test_weights_that_two_layers_share_stay_whole_for_the_other() -> None:
    net = Net()
    data = net.conv("input", 3, 4, name="a", dead=[1])
    shared = net.constant(net.weight(4, 4, 1, 1), "shared")
    parts = [net.node("Conv", each, shared) for each in (data, net.conv("input", 3, 4, name="b"))]
    found = compacted(net.head(net.node("Concat", *parts, axis=1), 8))
    assert channels(found)["a"] == 3


def test_a_network_without_dead_channels_comes_back_itself() -> None:
    net = Net()
    model = net.head(net.node("Relu", net.conv("input", 3, 6, name="a")), 6)
    assert compact(model).model is model


# Widths


@pytest.mark.parametrize(("multiple", "left"), [(1, 9), (4, 12), (8, 16), (16, 16), (64, 20)])
def test_a_layer_keeps_a_multiple_as_far_as_it_has_it(multiple: int, left: int) -> None:
    net = Net()
    data = net.node("Relu", net.conv("input", 3, 20, name="a", dead=range(11), constant=0.5))
    found = compacted(net.head(net.conv(data, 20, 4, name="b"), 4), multiple=multiple)
    assert channels(found)["a"] == left
    assert kept(found, "a") == ({MULTIPLE: left - 9} if left > 9 else {})
