"""Static int8 quantisation of a CNN's ONNX graph: what is quantised, with which numbers, written as Q/DQ nodes.

The result is an ordinary graph of the standard domain: `QuantizeLinear` and `DequantizeLinear` around float operators,
which runtimes fuse to integer kernels. Four steps: `plan` chooses tensors, `equalise` moves scale between channels,
`calibrate` walks the int8 network, fixing ranges and biases on the way, `emit` writes the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.types import Float32, Float64, Json

Chunks: TypeAlias = list[NDArray[Any]]
"""One value of the graph for all calibration crops, in pieces of a few crops along axis 0."""

WEIGHTED = {"Conv", "Gemm", "MatMul"}
COMBINING = {"Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul"}
CARRYING = {"Flatten", "Identity", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
ACTIVATIONS = {"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid"}
COMMUTING = {"Add", "AveragePool", "GlobalAveragePool", "LeakyRelu", "MaxPool", "PRelu", "Relu"}
"""A positive scale per channel may be applied before or after these."""

CHUNK = 8
POSITIONS = 16
DAMPING = 0.01
LARGEST_WEIGHT = 127
LARGEST_PAIR = 128
"""Two int8 weights of one sign may have this sum where uint8 activations are multiplied without AVX512-VNNI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to quantise; the defaults were chosen by cross-validation on PFLD and MobileFaceNet.

    Attributes:
        activations: `"uint8"` asymmetric, or `"int8"` symmetric.
        balance: Share of a channel's range that equalisation moves into the weights of a dense reader, 0 to 1.
        adaptive_rounding: Whether weights are rounded together, for the layer's output, rather than to the nearest.
        correct_bias: Whether the mean error of every layer goes to its bias.
        bracket_prelu: Whether a PRelu's input is quantised too. ONNX Runtime fuses the layer before it only then;
            OpenVINO and TensorRT would rather fuse the PRelu.
        float_head: Whether a fully connected last layer stays float: it is small, and its errors are the landmarks'.
        crops: Most crops used, evenly spread.
    """

    activations: Literal["uint8", "int8"]
    balance: float = 0.5
    adaptive_rounding: bool = True
    correct_bias: bool = True
    bracket_prelu: bool = True
    float_head: bool = True
    crops: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """real = scale * (integer - zero_point), with integers in [low, high]."""

    scale: float
    zero_point: int
    low: int
    high: int

    def snap(self, x: Float32) -> Float32:
        """The nearest representable value of each element of `x`, float32 of any shape."""
        scale = np.float32(self.scale)
        integers = np.rint(x / scale)
        np.clip(integers, self.low - self.zero_point, self.high - self.zero_point, out=integers)
        snapped: Float32 = np.multiply(integers, scale, out=integers)
        return snapped


def make_affine(low: float, high: float, kind: str) -> Affine:
    """Covers the observed [low, high] and represents 0 exactly, which zero padding needs.

    Nothing is clipped: after equalisation the extremes of a tensor carry landmarks, and clipping for the least L2 or L3
    error cost accuracy.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if kind == "int8":
        return Affine(scale=float(np.float32(max(-low, high) / 127)) or 1.0, zero_point=0, low=-128, high=127)
    scale = float(np.float32((high - low) / 255)) or 1.0
    return Affine(scale=scale, zero_point=round(-low / scale), low=0, high=255)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An index of an ONNX graph; `constants` may be replaced, the nodes may not."""

    proto: onnx.GraphProto
    opsets: list[onnx.OperatorSetIdProto]
    constants: dict[str, NDArray[Any]]
    consumers: dict[str, list[onnx.NodeProto]]
    inputs: list[str]
    outputs: list[str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Graph:
        """Indexes `model`."""
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                consumers.setdefault(name, []).append(node)
        return cls(
            proto=model.graph,
            opsets=list(model.opset_import),
            constants=constants,
            consumers=consumers,
            inputs=[value.name for value in model.graph.input if value.name not in constants],
            outputs=[value.name for value in model.graph.output],
        )

    def computed(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of `node` that are not constant."""
        return [name for name in node.input if name and name not in self.constants]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value."""
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def restored(name: str) -> str:
    """The name of a tensor after its Q/DQ pair."""
    return f"{name}_dequantized"


# --- plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes int8.

    Attributes:
        layers: Nodes with int8 weights, by the name of their output.
        readers: Nodes that read quantised activations, by the name of their output; all others read the float ones.
        tensors: Activations to quantise.
        source: For a tensor that only moves another's values, that other one: they share scale and zero point.
    """

    layers: dict[str, onnx.NodeProto]
    readers: set[str]
    tensors: set[str]
    source: dict[str, str]

    def rewire(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy of `node` that reads quantised activations where it should."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.output[0] in self.readers:
            copy.input[:] = [restored(name) if name in self.tensors else name for name in node.input]
        return copy


def plan(graph: Graph, settings: Settings) -> Plan:
    """Chooses layers and tensors: what an int8 operator reads is quantised, and nothing else.

    So an activation function stays between its layer and the Q node, where runtimes fuse it, and the outputs of the
    network keep full resolution.
    """
    features = _features(graph)
    layers = {node.output[0]: node for node in graph.proto.node if _is_layer(graph, node, features)}
    if settings.float_head and len(layers) > 1 and next(reversed(layers.values())).op_type != "Conv":
        layers.popitem()
    tensors: set[str] = set()
    readers: set[str] = set()
    for node in reversed(graph.proto.node):
        wanted = tensors.intersection(_after_activation(graph, node))
        if node.output[0] in layers or (wanted and _is_integer(graph, node, features, settings)):
            tensors.update(graph.computed(node))
            readers.add(node.output[0])
    source: dict[str, str] = {}
    for node in graph.proto.node:
        if node.op_type in CARRYING and node.output[0] in tensors and node.output[0] in readers:
            source[node.output[0]] = source.get(node.input[0], node.input[0])
    return Plan(layers=layers, readers=readers, tensors=tensors, source=source)


def _features(graph: Graph) -> set[str]:
    """Float tensors reached from the inputs through operators we know: never a computed shape."""
    known = WEIGHTED | COMBINING | CARRYING | ACTIVATIONS
    features = {value.name for value in graph.proto.input if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    for node in graph.proto.node:
        read = graph.computed(node)
        if node.op_type in known and not node.domain and read and read[0] in features:
            features.update(node.output)
    return features


def _is_layer(graph: Graph, node: onnx.NodeProto, features: set[str]) -> bool:
    """Whether a node is linear in one activation, with constant float weights and bias."""
    if node.op_type not in WEIGHTED or node.domain or graph.computed(node) != [node.input[0]]:
        return False
    if node.input[0] not in features or graph.constants[node.input[1]].dtype != np.float32:
        return False
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        return plain and not attribute(node, "transA", 0)
    return node.op_type == "Conv" or graph.constants[node.input[1]].ndim == 2


def _is_integer(graph: Graph, node: onnx.NodeProto, features: set[str], settings: Settings) -> bool:
    """Whether a node without weights computes on quantised activations."""
    read = graph.computed(node)
    if node.domain or not read or not features.issuperset(read):
        return False
    if node.op_type in COMBINING:
        return len(read) == len(node.input)
    return node.op_type in CARRYING or (node.op_type == "PRelu" and settings.bracket_prelu)


def _after_activation(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """A node's output, and what its activation function makes of it."""
    name = node.output[0]
    following = graph.consumers.get(name, [])
    alone = len(following) == 1 and following[0].op_type in ACTIVATIONS
    return [name, following[0].output[0]] if alone else [name]


# --- equalise


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Tensors whose channels may be scaled together, the convolutions that write them and those that read them."""

    tensors: set[str]
    writers: list[onnx.NodeProto]
    readers: list[onnx.NodeProto]


def equalise(graph: Graph, chosen: Plan, crops: Float32, balance: float) -> int:
    """Scales channels between convolutions so that they share one quantisation step fairly.

    Where only convolutions write and read a set of tensors, joined by operators that commute with a positive scale per
    channel, the network is unchanged when channel c is divided by s_c > 0 where it is written and multiplied where it
    is read (cross-layer equalisation, Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
    Correction"; here along residual chains too). Output channels have a weight scale of their own, so where only
    depthwise convolutions read, s is the channel's full range. A dense one mixes channels and s widens the range of its
    weights: there s is the `balance`-th power of the range, as in SmoothQuant (Xiao et al. 2023).

    Returns:
        How many sets of tensors were equalised; their weights in `graph.constants` are replaced.
    """
    links = [link for link in find_links(graph) if link.tensors & chosen.tensors]
    ranges = _channel_ranges(graph, chosen.tensors, crops)
    for link in links:
        known = [ranges[name] / max(float(ranges[name].max()), 1e-30) for name in link.tensors & chosen.tensors]
        relative = np.max(known, axis=0)
        depthwise = all(attribute(node, "group", 1) > 1 for node in link.readers)
        scale = np.where(relative > 1e-4, relative, 1.0) ** (1.0 if depthwise else balance)
        _scale_channels(graph, link, scale.astype(np.float32).reshape(-1, 1, 1, 1))
    return len(links)


def _scale_channels(graph: Graph, link: Link, column: Float32) -> None:
    """Divides channels by `column` (C, 1, 1, 1) where they are written, multiplies where they are read."""
    for node in link.writers:
        graph.constants[node.input[1]] = graph.constants[node.input[1]] / column
        if len(node.input) > 2:
            graph.constants[node.input[2]] = graph.constants[node.input[2]] / column.ravel()
    for node in link.readers:
        over_inputs = column if attribute(node, "group", 1) > 1 else column.reshape(1, -1, 1, 1)
        graph.constants[node.input[1]] = graph.constants[node.input[1]] * over_inputs


def find_links(graph: Graph) -> list[Link]:
    """Every set of tensors that can be equalised, in the graph's order."""
    home: dict[str, set[str]] = {}
    for node in graph.proto.node:
        for name in (*graph.computed(node), *node.output):
            home.setdefault(name, {name})
        if node.op_type in COMMUTING:
            joined = set().union(*(home[name] for name in (*graph.computed(node), node.output[0])))
            home.update(dict.fromkeys(joined, joined))
    links = []
    for tensors in {id(tensors): tensors for tensors in home.values()}.values():
        others = [node for node in graph.proto.node if node.op_type not in COMMUTING]
        link = Link(
            tensors=tensors,
            writers=[node for node in others if tensors.intersection(node.output)],
            readers=[node for node in others if tensors.intersection(node.input)],
        )
        if _can_scale(graph, link):
            links.append(link)
    return links


def _can_scale(graph: Graph, link: Link) -> bool:
    """Whether plain 2-D convolutions that own their weights surround the tensors, and no constant is added inside."""
    nodes = [*link.writers, *link.readers]
    if not link.readers or any(node.op_type != "Conv" for node in nodes):
        return False
    if link.tensors.intersection((*graph.inputs, *graph.outputs)):
        return False
    owned = [*(name for node in link.writers for name in node.input[1:]), *(node.input[1] for node in link.readers)]
    if any(name not in graph.constants or len(graph.consumers[name]) > 1 for name in owned):
        return False
    inside = [node for name in link.tensors for node in graph.consumers[name] if node.op_type == "Add"]
    if any(len(graph.computed(node)) != 2 for node in inside):
        return False
    written = {graph.constants[node.input[1]].shape[0] for node in link.writers}
    read = {_channels_read(graph.constants[node.input[1]], attribute(node, "group", 1)) for node in link.readers}
    return len(written) == 1 and written == read


def _channels_read(weights: NDArray[Any], groups: int) -> int:
    """C of a 2-D convolution that is dense or depthwise with one output per channel, else 0."""
    if weights.ndim != 4:
        return 0
    if groups == 1:
        return int(weights.shape[1])
    return int(weights.shape[0]) if weights.shape[:2] == (groups, 1) else 0


def _channel_ranges(graph: Graph, names: set[str], crops: Float32) -> dict[str, Float32]:
    """Largest magnitude per channel of (N, C, ...) values: (C,) float32 each."""
    found: dict[str, Float32] = {}
    for values in walk(graph, crops):
        for name in values.keys() & names:
            found[name] = np.max([np.abs(x).max(axis=(0, *range(2, x.ndim))) for x in values[name]], axis=0)
    return found


# --- calibrate


@dataclass(slots=True, kw_only=True)
class Layer:
    """An int8 layer: int8 weights in the graph's shape, scale and bias (C_out,) float32, output channels on `axis`."""

    weights: NDArray[np.int8]
    scale: Float32
    bias: Float32
    axis: int

    def dequantised(self) -> Float32:
        """The weights that the integers stand for."""
        real: Float32 = (self.weights * _along(self.scale, self.axis, self.weights.ndim)).astype(np.float32)
        return real


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Everything a quantised network consists of besides its nodes, by tensor name."""

    activations: dict[str, Affine] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)


def _along(vector: NDArray[Any], axis: int, ndim: int) -> NDArray[Any]:
    return vector.reshape([-1 if index == axis else 1 for index in range(ndim)])


def calibrate(graph: Graph, chosen: Plan, crops: Float32, settings: Settings) -> Numbers:
    """Walks the int8 network from input to output, fixing each layer's numbers and each tensor's range in turn.

    So a range fits what the int8 network really holds, and a corrected bias (empirical bias correction, Nagel et al.
    2019) makes up for all that was lost before it: correcting several layers at once would do so twice.
    """
    exact = _layer_means(graph, chosen, crops)
    numbers = Numbers()
    rng = np.random.default_rng(0)

    def compute(node: onnx.NodeProto, values: Mapping[str, Chunks]) -> dict[str, Chunks]:
        reading = chosen.rewire(node)
        name = node.output[0]
        if name not in chosen.layers:
            return run_node(graph, reading, values, graph.constants)
        read = numbers.activations[chosen.source.get(node.input[0], node.input[0])]
        covariance = None
        if settings.adaptive_rounding:
            covariance = input_covariance(node, graph.constants[node.input[1]], values[reading.input[0]], rng)
        numbers.layers[name] = layer = quantise_layer(graph, node, read, settings.activations, covariance)
        given = run_node(graph, *_simulated(reading, layer, values))
        if settings.correct_bias and node.op_type != "MatMul":
            given[name] = _correct_bias(layer, exact[name], given[name])
        return given

    def snap(values: dict[str, Chunks]) -> None:
        for name in [name for name in values if name in chosen.tensors]:
            source = chosen.source.get(name, name)
            if source == name:
                low, high = min(x.min() for x in values[name]), max(x.max() for x in values[name])
                numbers.activations[name] = make_affine(float(low), float(high), settings.activations)
            values[restored(name)] = [numbers.activations[source].snap(x) for x in values[name]]
            if all(node.output[0] in chosen.readers for node in graph.consumers[name]):
                del values[name]

    for _ in walk(graph, crops, compute, snap):
        pass
    return numbers


def _layer_means(graph: Graph, chosen: Plan, crops: Float32) -> dict[str, Float32]:
    """Mean of every float layer's output per channel: (C,) float32 each."""
    found: dict[str, Float32] = {}
    for values in walk(graph, crops):
        found.update({name: _channel_mean(values[name]) for name in values.keys() & chosen.layers.keys()})
    return found


def _channel_mean(values: Chunks) -> Float32:
    """Mean per channel of (N, C, H, W) or (..., C) values."""
    channel = 1 if values[0].ndim > 3 else values[0].ndim - 1
    others = tuple(axis for axis in range(values[0].ndim) if axis != channel)
    means = [x.mean(axis=others, dtype=np.float64) for x in values]
    return np.average(means, axis=0, weights=[len(x) for x in values]).astype(np.float32)


def _correct_bias(layer: Layer, exact: Float32, given: Chunks) -> Chunks:
    """Moves each output channel's mean error to the bias."""
    shift = exact - _channel_mean(given)
    layer.bias = layer.bias + shift
    ndim = given[0].ndim
    return [x + _along(shift, 1 if ndim > 3 else ndim - 1, ndim) for x in given]


def quantise_layer(
    graph: Graph, node: onnx.NodeProto, read: Affine, kind: str, covariance: Float64 | None = None
) -> Layer:
    """Rounds a layer's weights: symmetric int8 with a scale per output channel.

    Args:
        graph: Holds the float weights.
        node: The layer.
        read: How its input is quantised.
        kind: Of activations.
        covariance: (groups, fan-in, fan-in) of its input, for adaptive rounding; None rounds to the nearest.
    """
    weights = graph.constants[node.input[1]]
    axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
    shape = np.moveaxis(weights, axis, 0).shape
    rows = np.moveaxis(weights, axis, 0).reshape(shape[0], -1).astype(np.float64)
    bias = np.zeros(len(rows), np.float32)
    if len(node.input) > 2:
        bias = bias + graph.constants[node.input[2]].reshape(-1)
    # ONNX Runtime keeps a bias as int32 in steps of both scales: that of a nearly dead channel must not overflow.
    scale = np.maximum(weight_scale(rows, kind), np.abs(bias) / (read.scale * 2**24)).astype(np.float32)
    scale = np.where(scale > 1e-20, scale, np.float32(1.0))
    integers = round_weights(rows / scale[:, None], covariance).reshape(shape)
    return Layer(weights=np.moveaxis(integers, 0, axis).astype(np.int8), scale=scale, bias=bias, axis=axis)


def weight_scale(rows: Float64, kind: str) -> Float64:
    """(C_out,) step for weights (C_out, fan-in).

    x86 without VNNI adds two uint8 * int8 products in a saturating int16 (`vpmaddubsw`). Beside uint8 activations the
    two largest weights of one sign therefore share 128 steps; the usual remedy, half the range for all ("reduce
    range"), costs more.
    """
    step: Float64 = np.abs(rows).max(axis=1) / LARGEST_WEIGHT
    if kind == "int8" or rows.shape[1] == 1:
        return step
    ranked = np.sort(rows, axis=1)
    pair = np.maximum(ranked[:, -2:].sum(axis=1), -ranked[:, :2].sum(axis=1))
    # Rounding may lift both by half a step.
    limited: Float64 = np.maximum(step, pair / (LARGEST_PAIR - 1))
    return limited


def round_weights(rows: Float64, covariance: Float64 | None) -> Float64:
    """Integers for weights (C_out, fan-in) in steps.

    With the covariance of the input, the rounding error of a weight is made up for by those not yet rounded (GPTQ,
    Frantar et al. 2023), none moving by more than a step.
    """
    nearest = np.clip(np.rint(rows), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    if covariance is None:
        return nearest
    groups, fan_in = covariance.shape[:2]
    power = np.trace(covariance, axis1=1, axis2=2) / fan_in + 1e-12
    damped = covariance + DAMPING * power[:, None, None] * np.eye(fan_in)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left = rows.reshape(groups, -1, fan_in).copy()
    low, high = (np.floor(left), np.ceil(left))
    for i in range(fan_in):
        rounded = np.clip(np.rint(left[..., i]), low[..., i], high[..., i])
        error = (left[..., i] - rounded) / upper[:, i, i, None]
        left[..., i] = rounded
        left[..., i + 1 :] -= error[..., None] * upper[:, None, i, i + 1 :]
    return np.clip(left.reshape(rows.shape), -LARGEST_WEIGHT, LARGEST_WEIGHT)


def input_covariance(
    node: onnx.NodeProto, weights: NDArray[Any], x: Chunks, rng: np.random.Generator
) -> Float64 | None:
    """(groups, fan-in, fan-in) covariance of what a layer multiplies, at random output positions; None if unknown."""
    if node.op_type == "Conv":
        if weights.ndim != 4 or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
            return None
        rows = np.concatenate([_patches(node, weights, piece, rng) for piece in x])
        samples = rows.reshape(len(rows), attribute(node, "group", 1), -1).transpose(1, 0, 2).astype(np.float64)
    else:
        samples = np.concatenate(x).reshape(1, -1, x[0].shape[-1]).astype(np.float64)
    samples = samples - samples.mean(axis=1, keepdims=True)
    covariance: Float64 = samples.transpose(0, 2, 1) @ samples / samples.shape[1]
    return covariance


def _patches(node: onnx.NodeProto, weights: NDArray[Any], x: Float32, rng: np.random.Generator) -> Float32:
    """(m, C, kH, kW) float32: what a 2-D convolution reads of (N, C, H, W) at POSITIONS random places of each crop."""
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    kernel = np.array(weights.shape[2:])
    stride, dilation = (np.array(attribute(node, name, [1, 1])) for name in ("strides", "dilations"))
    places = (padded.shape[2:] - dilation * (kernel - 1) - 1) // stride + 1
    drawn = rng.integers(0, places, (len(x), min(POSITIONS, int(places.prod())), 2)) * stride
    where = [drawn[..., axis, None] + np.arange(kernel[axis]) * dilation[axis] for axis in range(2)]
    crop = np.arange(len(x)).reshape(-1, 1, 1, 1)
    found: Float32 = padded[crop, :, where[0][..., :, None], where[1][..., None, :]]
    return np.moveaxis(found.reshape(-1, *found.shape[2:]), -1, 1)


# --- walk


def _run_float(graph: Graph) -> Callable[[onnx.NodeProto, Mapping[str, Chunks]], dict[str, Chunks]]:
    return lambda node, values: run_node(graph, node, values, graph.constants)


def walk(
    graph: Graph,
    crops: Float32,
    compute: Callable[[onnx.NodeProto, Mapping[str, Chunks]], dict[str, Chunks]] | None = None,
    finish: Callable[[dict[str, Chunks]], None] = lambda made: None,
) -> Iterator[dict[str, Chunks]]:
    """Computes the graph node by node and gives what each makes, holding only what is still needed.

    Args:
        graph: The float graph.
        crops: (n, 3, H, W) float32 network inputs.
        compute: How to compute one node; in float by default.
        finish: May change what a node made before others read it.
    """
    compute = compute or _run_float(graph)
    last = {name: index for index, node in enumerate(graph.proto.node) for name in (*node.input, *node.output)}
    values = {graph.inputs[0]: _pieces(graph, crops)}
    finish(values)
    yield values
    for index, node in enumerate(graph.proto.node):
        made = compute(node, values)
        for name in (*node.input, *node.output):
            if last[name] == index:
                values.pop(name, None)
                values.pop(restored(name), None)
        finish(made)
        yield made
        values.update(made)


def _pieces(graph: Graph, crops: Float32) -> Chunks:
    """Cuts crops to the batch size that the graph is tied to, or to CHUNK; an incomplete last one starts over."""
    fixed = graph.proto.input[0].type.tensor_type.shape.dim[0].dim_value
    if fixed:
        crops = np.resize(crops, (-(-len(crops) // fixed) * fixed, *crops.shape[1:]))
    return [crops[start : start + (fixed or CHUNK)] for start in range(0, len(crops), fixed or CHUNK)]


def run_node(
    graph: Graph, node: onnx.NodeProto, values: Mapping[str, Chunks], constants: Mapping[str, NDArray[Any]]
) -> dict[str, Chunks]:
    """Computes one node in ONNX Runtime: its outputs by name."""
    import onnxruntime as ort

    fed = [name for name in dict.fromkeys(node.input) if name in values]
    kinds = {name: helper.np_dtype_to_tensor_dtype(values[name][0].dtype) for name in fed}
    alone = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        [numpy_helper.from_array(constants[name], name) for name in dict.fromkeys(node.input) if name in constants],
    )
    model = helper.make_model(alone, opset_imports=graph.opsets, ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    count = max((len(values[name]) for name in fed), default=1)
    results = [session.run(None, {name: values[name][piece] for name in fed}) for piece in range(count)]
    return {name: [result[i] for result in results] for i, name in enumerate(name for name in node.output if name)}


def _simulated(
    node: onnx.NodeProto, layer: Layer, values: Mapping[str, Chunks]
) -> tuple[onnx.NodeProto, Mapping[str, Chunks], dict[str, NDArray[Any]]]:
    """A float node with a layer's rounded weights, and what it needs."""
    names = ["weights"] if node.op_type == "MatMul" else ["weights", "bias"]
    node.input[:] = [node.input[0], *names]
    return node, values, {"weights": layer.dequantised(), "bias": layer.bias}


# --- emit


@dataclass(frozen=True, slots=True)
class Writer:
    """The nodes and constants of a graph in the making."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def quantise(self, name: str, affine: Affine, kind: str) -> None:
        """A Q/DQ pair after tensor `name`."""
        step = [f"{name}_scale", f"{name}_zero_point"]
        self.constants[step[0]] = np.array(affine.scale, np.float32)
        self.constants[step[1]] = np.array(affine.zero_point, kind)
        made = [f"{name}_quantized", restored(name)]
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *step], made[:1], name=f"{name}_q"))
        self.nodes.append(helper.make_node("DequantizeLinear", [made[0], *step], made[1:], name=f"{name}_dq"))

    def layer(self, node: onnx.NodeProto, layer: Layer) -> None:
        """A layer that reads its int8 weights through a DQ node; its bias stays float, as TensorRT requires."""
        name = f"{node.output[0]}_weights"
        read = [name, f"{name}_scale", f"{name}_zero_point"]
        zero = np.zeros(layer.scale.shape, np.int8)
        self.constants.update(zip(read, (layer.weights, layer.scale, zero), strict=True))
        self.nodes.append(
            helper.make_node("DequantizeLinear", read, [restored(name)], name=f"{name}_dq", axis=layer.axis)
        )
        node.input[:] = [node.input[0], restored(name)]
        if node.op_type != "MatMul":
            self.constants[f"{node.output[0]}_bias"] = layer.bias
            node.input.append(f"{node.output[0]}_bias")
        self.nodes.append(node)


def emit(model: onnx.ModelProto, graph: Graph, chosen: Plan, numbers: Numbers, kind: str) -> onnx.ModelProto:
    """Writes the quantised graph as a model; everything but nodes and constants is `model`'s."""
    writer = Writer()

    def quantise_all(names: list[str]) -> None:
        for name in [name for name in names if name in chosen.tensors]:
            writer.quantise(name, numbers.activations[chosen.source.get(name, name)], kind)

    quantise_all(graph.inputs)
    for node in graph.proto.node:
        reading = chosen.rewire(node)
        if node.output[0] in chosen.layers:
            writer.layer(reading, numbers.layers[node.output[0]])
        else:
            writer.nodes.append(reading)
        quantise_all(list(node.output))
    used = dict.fromkeys(name for node in writer.nodes for name in node.input)
    constants = {name: graph.constants[name] for name in used if name in graph.constants} | writer.constants
    written = onnx.ModelProto()
    written.CopyFrom(model)
    for emptied in (written.graph.node, written.graph.initializer, written.graph.value_info):
        del emptied[:]
    written.graph.node.extend(writer.nodes)
    written.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return written


def quantise(model: onnx.ModelProto, crops: Float32, settings: Settings) -> tuple[onnx.ModelProto, Json]:
    """Quantises a float graph.

    Args:
        model: A float32 graph with one input; unchanged.
        crops: (n, 3, H, W) float32 network inputs to calibrate on.
        settings: How.

    Returns:
        A model with the same inputs and outputs, and what was decided.
    """
    used = crops[np.linspace(0, len(crops) - 1, min(settings.crops, len(crops))).round().astype(int)]
    graph = Graph.of(model)
    chosen = plan(graph, settings)
    links = equalise(graph, chosen, used, settings.balance)
    numbers = calibrate(graph, chosen, used, settings)
    left = [node.name for node in graph.proto.node if node.op_type in WEIGHTED and node.output[0] not in chosen.layers]
    return emit(model, graph, chosen, numbers, settings.activations), {
        "activations": settings.activations,
        "weights": "int8, symmetric, per output channel",
        "ranges": "minimum and maximum",
        "crops": len(used),
        "balance": settings.balance,
        "equalised": links,
        "layers": len(chosen.layers),
        "float_layers": left,
        "bias_corrected": settings.correct_bias,
    }
