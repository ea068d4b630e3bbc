"""Rewrites PRelu as operators that ONNX Runtime computes in its blocked layout. Exact up to rounding.

ONNX Runtime has no blocked (NCHWc) kernel for PRelu. Around each PRelu, ONNX Runtime reorders the tensor out of the
blocked layout and back; in MobileFaceNet this takes more time than all convolutions. If no slope a is above 1,

    prelu(x) = x + max(0, (a - 1) x)

is a depthwise 1x1 convolution, which ONNX Runtime fuses with the Relu, and a sum. Otherwise,

    prelu(x) = max(0, x) (1 - a) + x a

is two convolutions, one of which ONNX Runtime fuses with the sum. Between convolutions, no slope needs to be above 1.
Because

    prelu(x; a) = -a prelu(-x; 1 / a),

the convolution before a channel with a slope above 1 changes the sign of the channel, and the convolutions after the
channel multiply the channel by -a. If all channels have the same slope, a slope of 1 is the identity and a slope of 0
is Relu. Any other common slope is LeakyRelu, which ONNX Runtime fuses into the preceding convolution.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx

from lmconv.graph.facts import static_shapes
from lmconv.graph.index import attribute
from lmconv.graph.rewriter import Rewriter, make
from lmconv.types import Float32, Json, Pass, PassContext


def prelu(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Rewrites each PRelu whose slopes are constant and do not vary with the position."""
    graph = Rewriter(model)
    nodes = graph.nodes("PRelu")
    shapes = static_shapes(model) if nodes else {}
    forms: Counter[str] = Counter()
    for node in nodes:
        _invert(graph, node)
        slopes = graph.constants.get(node.input[1])
        shape = shapes.get(node.input[0], ())
        form = "kept" if slopes is None or slopes.dtype != np.float32 else _form(slopes, shape)
        forms[form] += 1
        if slopes is not None and form != "kept":
            graph.replace(node, *_nodes(graph, node, slopes, form))
    graph.commit()
    return model, dict(sorted(forms.items()))


def _invert(graph: Rewriter, node: onnx.NodeProto) -> None:
    """Replaces slopes above 1 by their inverses, if only convolutions write and read the channels."""
    slopes, consumers = graph.constants.get(node.input[1]), graph.consumers(node.output[0])
    producer = graph.producer(node.input[0], "Conv")
    if slopes is None or slopes.dtype != np.float32 or slopes.ndim < 3 or slopes.shape[-3] != slopes.size:
        return
    if (
        producer is None
        or not graph.has_one_consumer(node.input[0])
        or node.output[0] in graph.outputs
        or not (slopes > 1).any()
    ):
        return
    if not _plain(graph, producer) or any(_channels(graph, consumer) != slopes.size for consumer in consumers):
        return
    inverse = 1 / np.maximum(slopes, 1)
    sign, factors = (np.where(slopes > 1, value, np.float32(1)).reshape(-1, 1, 1, 1) for value in (-1, -slopes))
    node.input[1] = graph.constant(node.input[1], np.where(slopes > 1, inverse, slopes))
    _multiply(graph, producer, 1, sign)
    if len(producer.input) > 2:
        _multiply(graph, producer, 2, sign.ravel())
    for consumer in consumers:
        _multiply(graph, consumer, 1, factors if attribute(consumer, "group", 1) > 1 else factors.reshape(1, -1, 1, 1))


def _plain(graph: Rewriter, node: onnx.NodeProto) -> bool:
    """True if a node is a 2-D convolution with constant float32 weights and bias."""
    parameters = [graph.constants.get(name) for name in node.input[1:]]
    constant = all(value is not None and value.dtype == np.float32 for value in parameters)
    return node.op_type == "Conv" and not node.domain and constant and graph.constants[node.input[1]].ndim == 4


def _channels(graph: Rewriter, node: onnx.NodeProto) -> int:
    """Returns the number of input channels of a plain convolution, see `_plain`.

    Returns 0 unless the convolution is dense, or depthwise with one output per channel.
    """
    if not _plain(graph, node):
        return 0
    outputs, inputs = graph.constants[node.input[1]].shape[:2]
    groups = attribute(node, "group", 1)
    return int(inputs) if groups == 1 else int(outputs) * (outputs == groups)


def _multiply(graph: Rewriter, node: onnx.NodeProto, index: int, factors: Float32) -> None:
    """Multiplies a constant input of a node by factors; the product is a new initializer."""
    name = node.input[index]
    node.input[index] = graph.constant(name, (graph.constants[name] * factors).astype(np.float32))


def _form(slopes: Float32, shape: tuple[int, ...]) -> str:
    """Returns the operator to write instead of a PRelu; "kept" if the PRelu stays."""
    if np.all(slopes == slopes.flat[0]):
        return {0.0: "Relu", 1.0: "Identity"}.get(float(slopes.flat[0]), "LeakyRelu")
    if len(shape) != 4 or slopes.ndim < 3 or slopes.shape[-3:] != (shape[1], 1, 1) or slopes.size != shape[1]:
        return "kept"
    return "Conv"


def _nodes(graph: Rewriter, node: onnx.NodeProto, slopes: Float32, form: str) -> list[onnx.NodeProto]:
    """Returns the nodes to write instead of a PRelu."""
    x, y = node.input[0], node.output[0]
    if form == "LeakyRelu":
        return [make(form, [x], y, alpha=float(slopes.flat[0]))]
    if form in ("Relu", "Identity"):
        return [make(form, [x], y)]
    above, below, rectified = (graph.fresh(f"{y}_{part}") for part in ("above", "below", "rectified"))
    if np.all(slopes <= 1):
        scale = _scale(graph, x, slopes - 1, below)
        return [scale, make("Relu", [below], rectified), make("Add", [rectified, x], y)]
    positive = [make("Relu", [x], rectified), _scale(graph, rectified, 1 - slopes, above)]
    return [*positive, _scale(graph, x, slopes, below), make("Add", [above, below], y)]


def _scale(graph: Rewriter, x: str, factors: Float32, output: str) -> onnx.NodeProto:
    """Returns a depthwise 1x1 convolution that multiplies each channel by its factor."""
    weights = graph.constant(f"{output}_weights", factors.reshape(-1, 1, 1, 1))
    return make("Conv", [x, weights], output, group=factors.size, kernel_shape=[1, 1])


plugin = Pass(
    name="prelu",
    summary="PReLU as depthwise 1x1 convolutions, as Relu or as LeakyRelu",
    apply=prelu,
    tolerance=1e-6,
)
