"""Habits of exporters and of people: constants, functions, other domains, names, inputs, outputs and control flow."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.corpus.nodes import CHANNELS, MAP, Graph, around, constant, vector, weights
from tests.corpus.registry import POINTS, SIDE, file

MICROSOFT = (("com.microsoft", 1),)
BOTH = (13, 17)


@file("weights in Constant nodes", 9, 13, 17, 21)
def constant_nodes(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    output = graph.head(graph.stem())
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializers]
    graph.nodes, graph.initializers = [*nodes, *graph.nodes], []
    return graph.model(output)


@file("weights behind Identity nodes, and one weight used twice", *BOTH)
def identities(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        shared = graph.add("Identity", weights("shared", CHANNELS, CHANNELS, 1, 1))
        return str(graph.add("Conv", graph.add("Relu", graph.add("Conv", x, shared)), shared))

    return around(opset, construct)


@file("weights in float16 cast to float32", *BOTH)
def half_weights(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        half = numpy_helper.to_array(weights("middle", CHANNELS, CHANNELS, 1, 1)).astype(np.float16)
        layer = graph.add("Cast", numpy_helper.from_array(half, "half"), to=TensorProto.FLOAT)
        return str(graph.add("Conv", x, layer))

    return around(opset, construct)


@file("a Constant of each short form: floats, ints, a number", 13, 18)
def short_constants(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        scale = graph.add("Constant", value_float=1.5)
        shift = graph.add(
            "Reshape", graph.add("Constant", value_floats=[0.1] * CHANNELS), constant("s", [1, CHANNELS, 1, 1])
        )
        flat = graph.add("Reshape", x, graph.add("Constant", value_ints=[0, CHANNELS, MAP, MAP]))
        return str(graph.add("Add", graph.add("Mul", flat, scale), shift))

    return around(opset, construct)


@file("a function of the file itself", 13, 17, 21)
def function(opset: int) -> onnx.ModelProto:
    body = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    swish = helper.make_function("my.layers", "Swish", ["x"], ["y"], body, [helper.make_opsetid("", opset)])

    def construct(graph: Graph, x: str) -> str:
        return str(graph.add("Swish", graph.conv(x, "middle", CHANNELS, CHANNELS), domain="my.layers"))

    return around(opset, construct, domains=(("my.layers", 1),), functions=[swish])


@file("a function that calls another function, with an attribute", 17, 21)
def nested_function(opset: int) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my.layers", 1)]
    leaky = helper.make_node("LeakyRelu", ["x"], ["y"])
    alpha = leaky.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    alpha.ref_attr_name = "slope"
    inner = helper.make_function("my.layers", "Act", ["x"], ["y"], [leaky], imports, ["slope"])
    call = helper.make_node("Act", ["x"], ["z"], domain="my.layers", slope=0.2)
    outer = helper.make_function(
        "my.layers", "Twice", ["x"], ["y"], [call, helper.make_node("Add", ["x", "z"], ["y"])], imports
    )

    def construct(graph: Graph, x: str) -> str:
        return str(graph.add("Twice", x, domain="my.layers"))

    return around(opset, construct, domains=(("my.layers", 1),), functions=[inner, outer])


@file("com.microsoft: FusedConv, as ONNX Runtime saves its optimised graph", *BOTH)
def fused_conv(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        options = {"kind": "FusedConv", "domain": "com.microsoft", "activation": "Relu"}
        return graph.conv(x, "middle", CHANNELS, CHANNELS, **options)  # type: ignore[arg-type]

    return around(opset, construct, domains=MICROSOFT)


@file("com.microsoft: Gelu, FastGelu, QuickGelu and BiasGelu", *BOTH)
def contributed_gelus(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        last = graph.add("Transpose", x, perm=[0, 2, 3, 1])
        last = graph.add("BiasGelu", last, vector("bias", -0.1, 0.1), domain="com.microsoft")
        x = graph.add("Transpose", last, perm=[0, 3, 1, 2])
        for kind in ("Gelu", "FastGelu", "QuickGelu"):
            x = graph.add(kind, x, domain="com.microsoft")
        return x

    return around(opset, construct, domains=MICROSOFT)


@file("com.microsoft: SkipLayerNormalization and FusedMatMul", *BOTH)
def contributed_norms(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        flat = graph.add("Reshape", x, constant("flat", [0, CHANNELS, MAP * MAP]))
        tokens = graph.add("Transpose", flat, perm=[0, 2, 1])
        layer = weights("mix", CHANNELS, CHANNELS)
        mixed = graph.add("FusedMatMul", tokens, layer, domain="com.microsoft", alpha=0.5, transB=1)
        numbers = vector("scale", 0.5, 1.5), vector("shift", -0.2, 0.2)
        norm = graph.add("SkipLayerNormalization", tokens, mixed, *numbers, domain="com.microsoft", epsilon=1e-5)
        return str(
            graph.add("Reshape", graph.add("Transpose", norm, perm=[0, 2, 1]), constant("b", [0, CHANNELS, MAP, MAP]))
        )

    return around(opset, construct, domains=MICROSOFT)


@file("an operator of a domain that nobody knows", *BOTH)
def unknown_domain(opset: int) -> onnx.ModelProto:
    return around(opset, lambda graph, x: graph.add("Swirl", x, domain="com.example"), domains=(("com.example", 1),))


@file("an If whose condition is known", *BOTH)
def known_branch(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        branches = {
            f"{name}_branch": helper.make_graph(
                [helper.make_node(kind, [x], [kind])], name, [], [helper.make_tensor_value_info(kind, 1, None)]
            )
            for name, kind in (("then", "Relu"), ("else", "Neg"))
        }
        return str(graph.add("If", constant("yes", True, np.bool_), **branches))

    return around(opset, construct)


@file("an If on the mean of the pixels", *BOTH)
def branch_on_pixels(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        branches = {
            f"{name}_branch": helper.make_graph(
                [helper.make_node(kind, [x], [kind])], name, [], [helper.make_tensor_value_info(kind, 1, None)]
            )
            for name, kind in (("then", "Tanh"), ("else", "Sigmoid"))
        }
        mean = graph.add("ReduceMean", "image", keepdims=0)
        return str(graph.add("If", graph.add("Greater", mean, constant("limit", 0.4, np.float32)), **branches))

    return around(opset, construct, inputs=(("image", 1, [1, 3, SIDE, SIDE]),))


@file("a Loop of three steps", *BOTH)
def loop(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        values = [("i", TensorProto.INT64), ("go", TensorProto.BOOL), ("state", TensorProto.FLOAT)]
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["on"]),
                helper.make_node("Tanh", ["state"], ["half"]),
                helper.make_node("Add", ["half", x], ["next"]),
            ],
            "body",
            [helper.make_tensor_value_info(name, kind, [] if kind != 1 else None) for name, kind in values],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
            ],
        )
        return str(graph.add("Loop", constant("steps", 3), constant("yes", True, np.bool_), x, body=body))

    return around(opset, construct)


@file("a sequence of parts: SplitToSequence and SequenceAt", *BOTH)
def sequence(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        parts = graph.add("SplitToSequence", x, constant("size", CHANNELS // 2), axis=1)
        one, two = (graph.add("SequenceAt", parts, constant(f"at{place}", place)) for place in (0, 1))
        return str(graph.add("Concat", two, one, axis=1))

    return around(opset, construct)


@file("random numbers in the graph", *BOTH)
def random(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        return str(graph.add("Add", x, graph.add("RandomNormalLike", x)))

    return around(opset, construct)


@file("dropout in training mode", *BOTH)
def dropout_in_training(opset: int) -> onnx.ModelProto:
    def construct(graph: Graph, x: str) -> str:
        return str(graph.add("Dropout", x, constant("ratio", 0.5, np.float32), constant("train", True, np.bool_)))

    return around(opset, construct)


@file("names with other letters, slashes and spaces; no names of nodes", *BOTH)
def names(opset: int) -> onnx.ModelProto:
    model = around(opset, lambda graph, x: graph.add("Relu", graph.conv(x, "middle", CHANNELS, CHANNELS)))
    new = {tensor.name: f"/größe/{tensor.name} : 重み" for tensor in model.graph.initializer}
    for node in model.graph.node:
        node.name = ""
        node.input[:] = [new.get(name, name.replace("v", "stage 1/v")) for name in node.input]
        node.output[:] = [name.replace("v", "stage 1/v") for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = new[tensor.name]
    model.graph.output[0].name = model.graph.node[-1].output[0]
    return model


@file("the input is called `landmarks`, the output `input`", *BOTH)
def exchanged_names(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    output = graph.head(graph.stem("landmarks"))
    graph.nodes[-1].output[0] = "input"
    assert output != "input"
    return graph.model("input", inputs=(("landmarks", TensorProto.FLOAT, ["N", 3, SIDE, SIDE]),))


@file("a fixed batch of four", *BOTH)
def batch_of_four(opset: int) -> onnx.ModelProto:
    return _sized(opset, [4, 3, SIDE, SIDE], [4, 2 * POINTS])


@file("a batch of -1", *BOTH)
def batch_of_minus_one(opset: int) -> onnx.ModelProto:
    return _sized(opset, [-1, 3, SIDE, SIDE], [-1, 2 * POINTS])


@file("unnamed sizes of batch and output", *BOTH)
def unnamed_sizes(opset: int) -> onnx.ModelProto:
    return _sized(opset, [None, 3, SIDE, SIDE], [None, None])


@file("free height and width, and `--input`", *BOTH, options={"shape": f"3x{SIDE}x{SIDE}"})
def free_size(opset: int) -> onnx.ModelProto:
    return _sized(opset, ["N", 3, "H", "W"], ["N", 2 * POINTS])


def _sized(opset: int, image: list[int | str | None], output: list[int | str | None]) -> onnx.ModelProto:
    graph = Graph(opset)
    name = graph.head(graph.stem())
    return graph.model(name, inputs=(("image", TensorProto.FLOAT, image),), outputs=[(name, TensorProto.FLOAT, output)])


@file("an output without a shape", *BOTH)
def output_without_a_shape(opset: int) -> onnx.ModelProto:
    model = around(opset, lambda graph, x: graph.add("Relu", x))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


@file("an output without a batch axis: (2L)", *BOTH)
def flat_output(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    output = graph.add("Reshape", graph.head(graph.stem()), constant("flat", [-1]))
    image = ("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    return graph.model(output, inputs=(image,), outputs=[(output, TensorProto.FLOAT, [2 * POINTS])])


@file("an output of points first: (L, 2), for one image", *BOTH)
def output_of_points(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    output = graph.add("Reshape", graph.head(graph.stem()), constant("pairs", [-1, 2]))
    image = ("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    return graph.model(output, inputs=(image,), outputs=[(output, TensorProto.FLOAT, [POINTS, 2])])


@file("features and landmarks, and `--output 1`", *BOTH, options={"output": "1"}, expected=lambda output: output[1])
def second_output(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    maps = graph.stem()
    output = graph.head(maps)
    described = [(maps, TensorProto.FLOAT, ["N", CHANNELS, MAP, MAP]), (output, TensorProto.FLOAT, ["N", 2 * POINTS])]
    return graph.model(output, outputs=described)


@file("an output in float64", *BOTH)
def double_output(opset: int) -> onnx.ModelProto:
    graph = Graph(opset)
    output = graph.add("Cast", graph.head(graph.stem()), to=TensorProto.DOUBLE)
    return graph.model(output, outputs=[(output, TensorProto.DOUBLE, ["N", 2 * POINTS])])
