"""Models of one operator, in the form that each opset has, by name and opset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)
RANDOM = np.random.default_rng(0)

Written = tuple[list[onnx.NodeProto], dict[str, Any]]
"""Nodes from `x` (2, 4, 6, 6) float32 to `y`, and constants by name."""
CASES: dict[str, tuple[range, Callable[[int], Written]]] = {}
node = helper.make_node


def case(first: int = 7, last: int = 17) -> Callable[[Callable[[int], Written]], Callable[[int], Written]]:
    """Registers a function from an opset to nodes, for a range of opsets."""

    def add(function: Callable[[int], Written]) -> Callable[[int], Written]:
        CASES[function.__name__] = range(first, last + 1), function
        return function

    return add


def opsets(name: str, among: Sequence[int] = OPSETS) -> list[int]:
    """Returns the opsets of a model."""
    return [opset for opset in among if opset in CASES[name][0]]


def written(name: str, opset: int) -> onnx.ModelProto:
    """Returns a model with constants as initializers: `x` (2, 4, 6, 6) float32 to `y` of any shape, float32."""
    nodes, constants = CASES[name][1](opset)
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4 if opset < 10 else 8)


def weights(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns random float32 weights."""
    return RANDOM.standard_normal(shape).astype(np.float32)


def argued(op: str, opset: int, since: int, inputs: list[str], values: dict[str, Any], **settings: Any) -> Written:
    """Returns a node whose `values` are attributes before the opset `since`, and int64 inputs from `since` on."""
    if opset < since:
        return [node(op, inputs, ["y"], **values, **settings)], {}
    constants = {key: np.array(value, np.int64) for key, value in values.items()}
    return [node(op, [*inputs, *constants], ["y"], **settings)], constants


def upsampled(opset: int, mode: str, height: float, width: float) -> Written:
    """Returns an Upsample of opset 7 or 9, or a Resize of opset 10."""
    scales = np.array([1, 1, height, width], np.float32)
    if opset < 9:
        return [node("Upsample", ["x"], ["y"], mode=mode, scales=scales.tolist())], {}
    return [node("Upsample" if opset < 10 else "Resize", ["x", "scales"], ["y"], mode=mode)], {"scales": scales}


@case(last=10)
def upsample_linear(opset: int) -> Written:
    return upsampled(opset, "linear", 2, 2)


@case(last=10)
def upsample_linear_by_a_fraction(opset: int) -> Written:
    return upsampled(opset, "linear", 1.5, 2.25)


@case(last=10)
def upsample_nearest(opset: int) -> Written:
    return upsampled(opset, "nearest", 2, 3)


@case(last=10)
def upsample_nearest_by_a_fraction(opset: int) -> Written:
    return upsampled(opset, "nearest", 1.7, 2.5)


@case(10, 10)
def downsample_linear(opset: int) -> Written:
    return upsampled(opset, "linear", 0.6, 0.5)


@case(10, 10)
def downsample_nearest(opset: int) -> Written:
    return upsampled(opset, "nearest", 0.5, 0.7)


@case(9, 10)
def upsample_by_computed_factors(opset: int) -> Written:
    op = "Upsample" if opset < 10 else "Resize"
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Cast", ["shape"], ["sizes"], to=TensorProto.FLOAT),
        node("Div", ["target", "sizes"], ["scales"]),
        node(op, ["x", "scales"], ["y"], mode="linear"),
    ]
    return nodes, {"target": np.array([2, 4, 9, 12], np.float32)}


def resized(mode: str, transform: str, **settings: Any) -> Written:
    """Returns a Resize of opset 11 by factors."""
    resize = node(
        "Resize", ["x", "roi", "scales"], ["y"], mode=mode, coordinate_transformation_mode=transform, **settings
    )
    return [resize], {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 1.7, 2.5], np.float32)}


@case(11)
def resize_half_pixel(opset: int) -> Written:
    return resized("linear", "half_pixel")


@case(11)
def resize_asymmetric(opset: int) -> Written:
    return resized("linear", "asymmetric")


@case(11)
def resize_align_corners(opset: int) -> Written:
    return resized("linear", "align_corners")


@case(11)
def resize_cubic(opset: int) -> Written:
    return resized("cubic", "half_pixel", cubic_coeff_a=-0.5, exclude_outside=1)


@case(11, 12)
def resize_half_pixel_for_nn(opset: int) -> Written:
    return resized("nearest", "tf_half_pixel_for_nn")


@case(11)
def resize_nearest_floor(opset: int) -> Written:
    return resized("nearest", "asymmetric", nearest_mode="floor")


@case(11)
def resize_crop(opset: int) -> Written:
    nodes, constants = resized("linear", "tf_crop_and_resize", extrapolation_value=0.5)
    return nodes, constants | {"roi": np.array([0, 0, 0.1, -0.1, 1, 1, 0.9, 1.2], np.float32)}


@case()
def batchnorm(opset: int) -> Written:
    constants = {"s": weights(4), "b": weights(4), "m": weights(4), "v": np.abs(weights(4)) + 0.5}
    return [node("BatchNormalization", ["x", *constants], ["y"], epsilon=1e-3)], constants


@case(7, 8)
def batchnorm_per_position(opset: int) -> Written:
    shape = (4, 6, 6)
    constants = {"s": weights(*shape), "b": weights(*shape), "m": weights(*shape), "v": np.abs(weights(*shape)) + 0.5}
    return [node("BatchNormalization", ["x", *constants], ["y"], spatial=0)], constants


@case(14)
def batchnorm_in_training(opset: int) -> Written:
    constants = {"s": weights(4), "b": weights(4), "m": weights(4), "v": np.abs(weights(4)) + 0.5}
    outputs = ["y", "mean", "var"]
    return [node("BatchNormalization", ["x", *constants], outputs, training_mode=1)], constants


@case()
def dropout(opset: int) -> Written:
    if opset < 12:
        return [node("Dropout", ["x"], ["y"], ratio=0.5)], {}
    return [node("Dropout", ["x", "ratio"], ["y"])], {"ratio": np.float32(0.5)}


@case(12)
def dropout_in_training(opset: int) -> Written:
    """ONNX Runtime removes such a Dropout before it runs a graph."""
    nodes = [node("Relu", ["x"], ["r"]), node("Dropout", ["r", "ratio", "t"], ["d"]), node("Exp", ["d"], ["y"])]
    return nodes, {"ratio": np.float32(0.5), "t": np.array(True)}


@case(12)
def dropout_with_its_mask(opset: int) -> Written:
    nodes = [
        node("Dropout", ["x", "ratio", "t"], ["d", "mask"]),
        node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        node("Add", ["d", "m"], ["y"]),
    ]
    return nodes, {"ratio": np.float32(0.5), "t": np.array(False)}


@case(10, 11)
def dropout_with_its_mask_and_no_ratio(opset: int) -> Written:
    nodes = [
        node("Dropout", ["x"], ["d", "mask"]),
        node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        node("Add", ["d", "m"], ["y"]),
    ]
    return nodes, {}


@case()
def clip(opset: int) -> Written:
    if opset < 11:
        return [node("Clip", ["x"], ["y"], min=-0.5, max=0.7)], {}
    return [node("Clip", ["x", "low", "high"], ["y"])], {"low": np.float32(-0.5), "high": np.float32(0.7)}


@case()
def clip_above(opset: int) -> Written:
    if opset < 11:
        return [node("Clip", ["x"], ["y"], max=0.7)], {}
    return [node("Clip", ["x", "", "high"], ["y"])], {"high": np.float32(0.7)}


@case()
def clip_nothing(opset: int) -> Written:
    return [node("Clip", ["x"], ["y"])], {}


def flattening(op: str, axis: int | None) -> Written:
    """Returns a Softmax or its kin, which flatten the axes from `axis` on before opset 13."""
    settings: dict[str, Any] = {} if axis is None else {"axis": axis}
    return [node(op, ["x"], ["y"], **settings)], {}


@case()
def softmax(opset: int) -> Written:
    return flattening("Softmax", None)


@case()
def softmax_of_three_axes(opset: int) -> Written:
    return flattening("Softmax", 1)


@case()
def softmax_of_the_last_axis(opset: int) -> Written:
    return flattening("Softmax", 3)


@case(11)
def softmax_of_a_negative_axis(opset: int) -> Written:
    return flattening("Softmax", -2)


@case()
def log_softmax(opset: int) -> Written:
    return flattening("LogSoftmax", 2)


@case()
def hardmax(opset: int) -> Written:
    return flattening("Hardmax", 2)


@case()
def hardmax_by_default(opset: int) -> Written:
    return flattening("Hardmax", None)


@case()
def pad(opset: int) -> Written:
    if opset < 11:
        return [node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 3, 0], value=0.5)], {}
    return [node("Pad", ["x", "p", "v"], ["y"])], {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "v": np.float32(0.5)}


@case()
def pad_reflect(opset: int) -> Written:
    return argued("Pad", opset, 11, ["x"], {"pads": [0, 0, 1, 2, 0, 0, 3, 1]}, mode="reflect")


@case()
def pad_away(opset: int) -> Written:
    return argued("Pad", opset, 11, ["x"], {"pads": [0, 0, -1, 2, 0, 0, 0, -2]})


@case()
def slices(opset: int) -> Written:
    return argued("Slice", opset, 10, ["x"], {"starts": [1, -4], "ends": [6, 1000], "axes": [2, 3]})


@case()
def slices_without_axes(opset: int) -> Written:
    return argued("Slice", opset, 10, ["x"], {"starts": [0, 1], "ends": [2, 3]})


@case(10)
def slices_backwards(opset: int) -> Written:
    constants = {"s": np.array([-1]), "e": np.array([-100]), "a": np.array([2]), "t": np.array([-2])}
    return [node("Slice", ["x", *constants], ["y"])], constants


def reduction(op: str, since: int = 18, **values: Any) -> Callable[[int], Written]:
    """Returns a function for a reduction of positive values over axes."""

    def build(opset: int) -> Written:
        nodes, constants = argued(op, opset, since, ["positive"], values, keepdims=0)
        return [node("Exp", ["x"], ["positive"]), *nodes], constants

    return build


for kind in ("Mean", "Max", "Min", "L1", "L2", "LogSum", "LogSumExp", "Prod", "SumSquare", "Sum"):
    since_13 = 13 if kind == "Sum" else 18
    CASES[f"reduce_{kind}"] = range(7, 18), reduction(f"Reduce{kind}", since_13, axes=[2, 3])
    CASES[f"reduce_all_{kind}"] = range(7, 18), reduction(f"Reduce{kind}", since_13)


@case(11)
def reduce_negative_axes(opset: int) -> Written:
    return argued("ReduceMean", opset, 18, ["x"], {"axes": [-1, -2]})


@case()
def squeezed(opset: int) -> Written:
    nodes, constants = argued("Unsqueeze", opset, 13, ["x"], {"axes": [0, 3]})
    nodes[0].output[0] = "u"
    if opset < 13:
        return [*nodes, node("Squeeze", ["u"], ["y"], axes=[3, 0])], constants
    return [*nodes, node("Squeeze", ["u", "last"], ["y"])], constants | {"last": np.array([3, 0])}


@case()
def squeezed_without_axes(opset: int) -> Written:
    nodes, constants = argued("Unsqueeze", opset, 13, ["x"], {"axes": [0]})
    nodes[0].output[0] = "u"
    return [*nodes, node("Squeeze", ["u"], ["y"])], constants


@case()
def split(opset: int) -> Written:
    nodes, constants = argued("Split", opset, 13, ["x"], {"split": [1, 3]}, axis=1)
    nodes[0].output[:] = ["a", "b"]
    return [*nodes, node("Concat", ["b", "a"], ["y"], axis=1)], constants


@case()
def split_evenly(opset: int) -> Written:
    return [node("Split", ["x"], ["a", "b"], axis=1), node("Sub", ["a", "b"], ["y"])], {}


@case()
def lrn(opset: int) -> Written:
    return [node("LRN", ["x"], ["y"], size=3, alpha=0.01, beta=0.6, bias=2.0)], {}


@case()
def topk(opset: int) -> Written:
    nodes, constants = argued("TopK", opset, 10, ["x"], {"k": 3}, axis=2)
    nodes[0].output[:] = ["y", "indices"]
    return nodes, {key: value.reshape(1) for key, value in constants.items()}


@case(11)
def topk_smallest(opset: int) -> Written:
    return [node("TopK", ["x", "k"], ["y", "i"], axis=2, largest=0)], {"k": np.array([2])}


@case()
def max_pool(opset: int) -> Written:
    settings: dict[str, Any] = {"ceil_mode": 1, "dilations": [1, 2]} if opset >= 10 else {}
    return [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 1], **settings)], {}


@case()
def max_pool_same(opset: int) -> Written:
    return [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER")], {}


@case()
def average_pool(opset: int) -> Written:
    settings: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 0, 1], "count_include_pad": 1}
    return [node("AveragePool", ["x"], ["y"], **settings)], {}


@case(10)
def average_pool_ceil(opset: int) -> Written:
    settings: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}
    return [node("AveragePool", ["x"], ["y"], **settings)], {}


@case(10)
def average_pool_ceil_and_padding(opset: int) -> Written:
    settings: dict[str, Any] = {
        "kernel_shape": [3, 3],
        "strides": [2, 2],
        "pads": [1, 1, 1, 1],
        "ceil_mode": 1,
    }
    settings["count_include_pad"] = 1
    return [node("AveragePool", ["x"], ["y"], **settings)], {}


@case()
def lp_pool(opset: int) -> Written:
    return [node("LpPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], p=3)], {}


@case()
def conv(opset: int) -> Written:
    return [node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 0, 0])], {"w": weights(3, 4, 3, 3), "b": weights(3)}


@case()
def conv_transpose(opset: int) -> Written:
    settings: dict[str, Any] = {"strides": [2, 2], "output_padding": [1, 1], "pads": [1, 1, 1, 1]}
    return [node("ConvTranspose", ["x", "w", "b"], ["y"], **settings)], {"w": weights(4, 3, 3, 3), "b": weights(3)}


@case()
def gemm(opset: int) -> Written:
    nodes = [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)]
    return nodes, {"w": weights(5, 144), "b": weights(5)}


@case(11)
def gemm_without_bias(opset: int) -> Written:
    return [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w"], ["y"], transB=1)], {"w": weights(5, 144)}


@case()
def prelu(opset: int) -> Written:
    return [node("PRelu", ["x", "s"], ["y"])], {"s": weights(4, 1, 1)}


@case()
def sums(opset: int) -> Written:
    nodes = [
        node("Sum", ["x", "x"], ["a"]),
        node("Max", ["a", "x"], ["b"]),
        node("Min", ["b", "a"], ["c"]),
        node("Mean", ["c", "x"], ["y"]),
    ]
    return nodes, {}


@case()
def arithmetic(opset: int) -> Written:
    nodes = [
        node("Mul", ["x", "s"], ["a"]),
        node("Add", ["a", "b"], ["c"]),
        node("Div", ["c", "d"], ["e"]),
        node("Sub", ["e", "x"], ["f"]),
        node("Mul", ["f", "f"], ["g"]),
        node("Pow", ["g", "p"], ["y"]),
    ]
    return nodes, {"s": weights(4, 1, 1), "b": weights(6), "d": np.float32(3), "p": np.float32(1.5)}


@case()
def activations(opset: int) -> Written:
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("LeakyRelu", {"alpha": 0.2}),
        ("Elu", {"alpha": 1.5}),
        ("Selu", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("Tanh", {}),
        ("Sigmoid", {}),
        ("Exp", {}),
        ("Log", {}),
        ("Neg", {}),
        ("Abs", {}),
        ("Sqrt", {}),
        ("Reciprocal", {}),
        ("Relu", {}),
        ("Ceil", {}),
    ]
    values = ["x", *(f"v{index}" for index in range(1, len(kinds))), "y"]
    return [node(op, [values[i]], [values[i + 1]], **settings) for i, (op, settings) in enumerate(kinds)], {}


@case(10)
def thresholded_relu(opset: int) -> Written:
    return [node("ThresholdedRelu", ["x"], ["y"], alpha=0.3)], {}


@case()
def cast(opset: int) -> Written:
    nodes = [node("Cast", ["x"], ["i"], to=TensorProto.INT32), node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)]
    return nodes, {}


@case()
def transposed(opset: int) -> Written:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        node("Reshape", ["t", "shape"], ["r"]),
        node("Flatten", ["r"], ["f"], axis=2),
        node("Concat", ["f", "f"], ["y"], axis=1),
    ]
    return nodes, {"shape": np.array([0, 6, -1, 2])}


@case()
def gathered(opset: int) -> Written:
    nodes = [node("Gather", ["x", "i"], ["g"], axis=2), node("Tile", ["g", "times"], ["y"])]
    return nodes, {"i": np.array([[0, 2], [5, 1]]), "times": np.array([1, 1, 2, 1, 1])}


@case(9, 10)
def scatter(opset: int) -> Written:
    return [node("Scatter", ["x", "i", "u"], ["y"], axis=2)], {"i": np.array([[[[1, 2]]]]), "u": weights(1, 1, 1, 2)}


@case()
def depth_to_space(opset: int) -> Written:
    nodes = [node("DepthToSpace", ["x"], ["d"], blocksize=2), node("SpaceToDepth", ["d"], ["y"], blocksize=2)]
    return nodes, {}


@case(11)
def depth_to_space_crd(opset: int) -> Written:
    return [node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")], {}


@case()
def arg_max(opset: int) -> Written:
    nodes = [node("ArgMax", ["x"], ["a"], axis=1, keepdims=0), node("Cast", ["a"], ["y"], to=TensorProto.FLOAT)]
    return nodes, {}


@case()
def compared(opset: int) -> Written:
    nodes = [node("Greater", ["x", "zero"], ["g"]), node("Cast", ["g"], ["m"], to=1), node("Mul", ["m", "x"], ["y"])]
    return nodes, {"zero": np.float32(0.1)}


@case(9)
def where(opset: int) -> Written:
    nodes = [node("Less", ["x", "zero"], ["g"]), node("Where", ["g", "x", "zero"], ["y"])]
    return nodes, {"zero": np.float32(0.1)}


@case(8)
def expand(opset: int) -> Written:
    return [node("Expand", ["s", "shape"], ["e"]), node("Add", ["x", "e"], ["y"])], {
        "s": weights(4, 1, 1),
        "shape": np.array([2, 4, 6, 6]),
    }


@case()
def instance_norm(opset: int) -> Written:
    return [node("InstanceNormalization", ["x", "s", "b"], ["y"])], {"s": weights(4), "b": weights(4)}


@case()
def norms(opset: int) -> Written:
    nodes = [node("LpNormalization", ["x"], ["n"], axis=1), node("GlobalAveragePool", ["n"], ["y"])]
    return nodes, {}


@case(9)
def mean_variance(opset: int) -> Written:
    return [node("MeanVarianceNormalization", ["x"], ["y"], axes=[0, 2, 3])], {}


@case()
def constants_as_nodes(opset: int) -> Written:
    value = numpy_helper.from_array(weights(4, 1, 1))
    return [node("Constant", [], ["k"], value=value), node("Mul", ["x", "k"], ["y"])], {}


@case(12)
def constants_of_numbers(opset: int) -> Written:
    nodes = [
        node("Constant", [], ["k"], value_float=1.5),
        node("Constant", [], ["s"], value_ints=[2, 144]),
        node("Mul", ["x", "k"], ["m"]),
        node("Reshape", ["m", "s"], ["y"]),
    ]
    return nodes, {}


def recurrent(op: str, gates: int, opset: int, **settings: Any) -> Written:
    """Returns an RNN, GRU or LSTM over the rows of the picture."""
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[2, 0, 1, 3]),
        node("Reshape", ["t", "shape"], ["r"]),
        node(op, ["r", "w", "rw", "b"], ["y", "h"], hidden_size=5, **settings),
    ]
    constants = {
        "shape": np.array([6, 2, 24]),
        "w": weights(1, 5 * gates, 24),
        "rw": weights(1, 5 * gates, 5),
        "b": weights(1, 10 * gates),
    }
    return nodes, constants


@case()
def lstm(opset: int) -> Written:
    return recurrent("LSTM", 4, opset)


@case()
def gru(opset: int) -> Written:
    return recurrent("GRU", 3, opset, linear_before_reset=1)


@case()
def rnn(opset: int) -> Written:
    return recurrent("RNN", 1, opset)


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    """Returns a branch whose output is that of the last node."""
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), name, [], [output])


@case()
def a_branch_with_old_operators(opset: int) -> Written:
    inner, constants = clip(opset)
    inner[0].output[0] = "clipped"
    other = softmax(opset)[0]
    other[0].output[0] = "soft"
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["more"]),
        node("If", ["more"], ["y"], then_branch=branch("then", *inner), else_branch=branch("else", *other)),
    ]
    return nodes, constants | {"zero": np.float32(0)}


@case(last=10)
def a_branch_that_upsamples(opset: int) -> Written:
    inner, constants = upsampled(opset, "linear", 2, 2)
    inner[0].output[0] = "larger"
    other, _ = upsampled(opset, "nearest", 2, 2)
    other[0].output[0] = "other"
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["more"]),
        node("If", ["more"], ["y"], then_branch=branch("then", *inner), else_branch=branch("else", *other)),
    ]
    return nodes, constants | {"zero": np.float32(0)}


@case(8)
def loop(opset: int) -> Written:
    body = helper.make_graph(
        [
            node("Softmax", ["v"], ["s"], axis=2),
            node("Add", ["s", "x"], ["w"]),
            node("Identity", ["c"], ["d"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [2, 4, 6, 6]),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 4, 6, 6]),
        ],
    )
    return [node("Loop", ["times", "go", "x"], ["y"], body=body)], {"times": np.array(3), "go": np.array(True)}


def scanned(opset: int) -> onnx.GraphProto:
    """Returns the body of a Scan: a running sum of rows."""
    shape = [4, 6]
    return helper.make_graph(
        [node("Add", ["s", "e"], ["u"]), node("Identity", ["u"], ["o"])],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("s", "e")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("u", "o")],
    )


@case(9)
def scan(opset: int) -> Written:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "shape"], ["r"]),
        node("Scan", ["start", "r"], ["last", "y"], body=scanned(opset), num_scan_inputs=1),
    ]
    return nodes, {"start": np.zeros((4, 6), np.float32), "shape": np.array([12, 4, 6])}


@case(10)
def quantised(opset: int) -> Written:
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    return nodes, {"s": np.float32(0.02), "z": np.uint8(128)}


@case(10)
def quantised_convolution(opset: int) -> Written:
    constants = {"s": np.float32(0.02), "z": np.uint8(128), "w": RANDOM.integers(-99, 99, (3, 4, 3, 3)).astype(np.int8)}
    constants |= {"ws": np.float32(0.01), "wz": np.int8(0), "os": np.float32(0.1)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "os", "z"], ["c"]),
        node("DequantizeLinear", ["c", "os", "z"], ["y"]),
    ]
    return nodes, constants


@case(16)
def grid_sample(opset: int) -> Written:
    grid = RANDOM.uniform(-1.2, 1.2, (2, 5, 5, 2)).astype(np.float32)
    return [node("GridSample", ["x", "g"], ["y"], align_corners=1)], {"g": grid}


@case(10)
def roi_align(opset: int) -> Written:
    settings: dict[str, Any] = {"output_height": 3, "output_width": 3, "sampling_ratio": 2, "spatial_scale": 0.5}
    rois = np.array([[0, 0, 8, 8], [2, 1, 9, 11]], np.float32)
    return [node("RoiAlign", ["x", "r", "b"], ["y"], **settings)], {"r": rois, "b": np.array([0, 1])}


@case(11)
def cumsum(opset: int) -> Written:
    return [node("CumSum", ["x", "a"], ["y"])], {"a": np.array(2)}


@case(12)
def einsum(opset: int) -> Written:
    return [node("Einsum", ["x", "w"], ["y"], equation="bchw,lc->bl")], {"w": weights(5, 4)}


@case(14)
def hard_swish(opset: int) -> Written:
    return [node("HardSwish", ["x"], ["y"])], {}


@case(17)
def layer_norm(opset: int) -> Written:
    return [node("LayerNormalization", ["x", "s", "b"], ["y"])], {"s": weights(6), "b": weights(6)}


@case(11)
def sequences(opset: int) -> Written:
    nodes = [
        node("SplitToSequence", ["x", "parts"], ["s"], axis=1),
        node("ConcatFromSequence", ["s"], ["y"], axis=2),
    ]
    return nodes, {"parts": np.array([2, 2])}


@case(10)
def suppression(opset: int) -> Written:
    nodes = [
        node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"]),
        node("Cast", ["kept"], ["f"], to=TensorProto.FLOAT),
        node("ReduceMax", ["f"], ["m"], keepdims=0),
        node("Add", ["x", "m"], ["y"]),
    ]
    boxes = np.array([[[0, 0, 1, 1], [0, 0.05, 1, 1], [2, 2, 3, 3]]], np.float32)
    scores = np.array([[[0.9, 0.8, 0.7]]], np.float32)
    return nodes, {"boxes": boxes, "scores": scores, "most": np.array([3]), "iou": np.array([0.5], np.float32)}
