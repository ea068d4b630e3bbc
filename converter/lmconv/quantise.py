"""Static int8 quantisation of an ONNX graph of a CNN: what is quantised, with which numbers, written as Q/DQ nodes.

The result is an ordinary graph of the standard domain: `QuantizeLinear` and `DequantizeLinear` around float operators,
which a runtime fuses to integer kernels. Four steps: `plan` chooses tensors, `equalise` moves scale between channels,
`calibrate` walks the float and the int8 network side by side and fits each layer, `emit` writes the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lmconv.types import OPSET, Float32, Float64

Chunks: TypeAlias = list[NDArray[Any]]
"""One value of the graph for all calibration crops, in pieces of a few crops along axis 0."""

WEIGHTED = {"Conv", "Gemm", "MatMul"}
COMBINING = {"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool"}
CARRYING = {"Flatten", "Identity", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
ACTIVATIONS = {"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid"}
COMMUTING = {"Add", "AveragePool", "GlobalAveragePool", "LeakyRelu", "MaxPool", "PRelu", "Relu"}
"""A positive scale per channel may be applied before or after these."""

CHUNK = 8
LARGEST_WEIGHT = 127
SAFE_PAIR = 126
"""Largest sum of two int8 weights that AVX2's `vpmaddubsw` multiplies with uint8 and adds in int16: 128, less rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to quantise.

    Attributes:
        activations: `"uint8"` asymmetric, or `"int8"` symmetric.
        balance: Share of an activation's per-channel range that equalisation moves into a dense consumer's weights.
        norm: p of the L_p error that a clipped range minimises; None keeps the observed minimum and maximum.
        ridge: Pull of a refitted weight towards its float value, in mean input variances; None refits nothing.
        adaptive_rounding: Whether the rounding of a weight compensates those before it (GPTQ).
        correct_bias: Whether the mean error of every layer goes to its bias.
        bracket_prelu: Whether a PRelu's input is quantised too, so that the layer before it fuses.
        float_last: Whether a fully connected last layer stays float: it is small, and its errors are the landmarks' own.
        crops: Most crops used.
        positions: Output positions per crop that a layer is fitted on.
    """

    activations: Literal["uint8", "int8"]
    balance: float = 0.5
    norm: float | None = 3.0
    ridge: float | None = 0.03
    adaptive_rounding: bool = True
    correct_bias: bool = True
    bracket_prelu: bool = True
    float_last: bool = True
    crops: int = 64
    positions: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """real = scale * (integer - zero_point), integers in [low, high]."""

    scale: float
    zero_point: int
    low: int
    high: int

    def dequantise(self, integers: Float32) -> Float32:
        """Any shape to the same shape, float32."""
        return ((integers - self.zero_point) * np.float32(self.scale)).astype(np.float32)

    def snap(self, x: Float32) -> Float32:
        """The nearest representable value of each element of `x`, float32 of any shape."""
        return self.dequantise(np.clip(np.rint(x / np.float32(self.scale)) + self.zero_point, self.low, self.high))


@dataclass(slots=True, kw_only=True)
class Graph:
    """An index of an ONNX graph."""

    proto: onnx.GraphProto
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    consumers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Graph:
        """Indexes `model`, which stays shared with it."""
        graph = cls(proto=model.graph)
        graph.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for node in model.graph.node:
            graph.producers.update(dict.fromkeys(node.output, node))
            for name in dict.fromkeys(node.input):
                graph.consumers.setdefault(name, []).append(node)
        return graph

    @property
    def inputs(self) -> list[str]:
        return [value.name for value in self.proto.input if value.name not in self.constants]

    @property
    def outputs(self) -> list[str]:
        return [value.name for value in self.proto.output]

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of `node` that are computed rather than constant."""
        return [name for name in node.input if name and name not in self.constants]

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads `name`, None where there are more or it leaves the graph."""
        nodes = self.consumers.get(name, [])
        return nodes[0] if len(nodes) == 1 and name not in self.outputs else None


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value."""
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


# ---------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes int8.

    Attributes:
        layers: Nodes with int8 weights, by the name of their output.
        tensors: Activations to quantise, in the graph's order.
        source: For a tensor that only moves another's values, that other one: they share scale and zero point.
        readers: Nodes that read quantised activations, by the name of their output; all others read the float ones.
    """

    layers: dict[str, onnx.NodeProto]
    tensors: list[str]
    source: dict[str, str]
    readers: set[str]

    def rewire(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy of `node` that reads quantised activations where it should."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.output[0] in self.readers:
            copy.input[:] = [restored(name) if name in self.tensors else name for name in node.input]
        return copy


def restored(name: str) -> str:
    """The name of a tensor after its Q/DQ pair."""
    return f"{name}_dequantized"


def plan(graph: Graph, settings: Settings) -> Plan:
    """Chooses layers and tensors: what an int8 operator reads is quantised, and nothing else.

    So an activation function stays between its layer and the Q node, where runtimes fuse it, and the network's outputs
    keep full resolution.
    """
    features = _features(graph)
    layers = {node.output[0]: node for node in graph.proto.node if _is_layer(graph, node, features)}
    if settings.float_last and len(layers) > 1 and next(reversed(layers.values())).op_type != "Conv":
        layers.popitem()
    wanted: set[str] = set()
    readers: set[str] = set()
    for node in reversed(graph.proto.node):
        read = graph.activations(node)
        if node.output[0] in layers:
            read = [node.input[0]]
        elif (
            not features.issuperset(read)
            or not wanted.intersection(_after_activation(graph, node))
            or not _is_integer(node, read, settings)
        ):
            continue
        wanted.update(read)
        readers.add(node.output[0])
    source: dict[str, str] = {}
    for node in graph.proto.node:
        if node.op_type in CARRYING and node.output[0] in wanted and node.input[0] in wanted:
            source[node.output[0]] = source.get(node.input[0], node.input[0])
    order = [*graph.inputs, *(name for node in graph.proto.node for name in node.output)]
    return Plan(layers=layers, tensors=[name for name in order if name in wanted], source=source, readers=readers)


def _is_integer(node: onnx.NodeProto, read: list[str], settings: Settings) -> bool:
    """Whether a node without weights is computed from quantised activations."""
    if node.op_type in COMBINING:
        return len(read) == len(node.input)
    return node.op_type in CARRYING or (node.op_type == "PRelu" and settings.bracket_prelu)


def _features(graph: Graph) -> set[str]:
    """Float tensors reached from the inputs through operators we know: never a computed shape."""
    known = WEIGHTED | COMBINING | CARRYING | ACTIVATIONS
    features = {value.name for value in graph.proto.input if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    for node in graph.proto.node:
        if node.op_type in known and not node.domain and features.issuperset(graph.activations(node)[:1]):
            features.update(node.output)
    return features


def _is_layer(graph: Graph, node: onnx.NodeProto, features: set[str]) -> bool:
    """Whether a node is linear in one activation, with constant weights and bias."""
    if node.op_type not in WEIGHTED or node.domain or graph.activations(node) != [node.input[0]]:
        return False
    if node.input[0] not in features or graph.constants[node.input[1]].dtype != np.float32:
        return False
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        return plain and not attribute(node, "transA", 0)
    return node.op_type == "Conv" or graph.constants[node.input[1]].ndim == 2


def _after_activation(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """A node's output, and what its activation function makes of it."""
    name = node.output[0]
    following = graph.only_consumer(name)
    return [name, following.output[0]] if following is not None and following.op_type in ACTIVATIONS else [name]


# ------------------------------------------------------------------------------------------------------------ equalise


def equalise(graph: Graph, chosen: Plan, crops: Float32, balance: float) -> int:
    """Scales channels between convolutions so that they share one quantisation step fairly.

    Where only convolutions write and read a set of tensors, joined by operators that commute with a positive scale per
    channel, the network is unchanged when channel c is divided by s_c > 0 where it is written and multiplied where it
    is read (cross-layer equalisation: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
    Correction"; here along residual chains too). Output channels have a weight scale of their own, so where only
    depthwise convolutions read, s is the channel's full range; a dense one mixes channels, s widens the range of its
    weights, and is the `balance`-th power of the range (as in SmoothQuant, Xiao et al. 2023). The graph's constants are
    replaced in place.

    Returns:
        How many sets of tensors were equalised.
    """
    links = [link for link in _links(graph) if link.tensors & set(chosen.tensors)]
    ranges = _channel_ranges(graph, set(chosen.tensors), crops)
    for link in links:
        relative = np.max(
            [ranges[name] / max(float(ranges[name].max()), 1e-30) for name in link.tensors & ranges.keys()], axis=0
        )
        depthwise = all(attribute(node, "group", 1) > 1 for node in link.readers)
        scale = np.where(relative > 1e-4, relative, 1.0) ** (1.0 if depthwise else balance)
        _scale_channels(graph, link, scale.astype(np.float32).reshape(-1, 1, 1, 1))
    return len(links)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Tensors whose channels may be scaled together, the convolutions that write them and those that read them."""

    tensors: set[str]
    writers: list[onnx.NodeProto]
    readers: list[onnx.NodeProto]


def _scale_channels(graph: Graph, link: Link, column: Float32) -> None:
    """Divides channels by `column` (C, 1, 1, 1) where they are written, multiplies where they are read."""
    for node in link.writers:
        graph.constants[node.input[1]] = graph.constants[node.input[1]] / column
        if len(node.input) > 2:
            graph.constants[node.input[2]] = graph.constants[node.input[2]] / column.ravel()
    for node in link.readers:
        over_inputs = column if attribute(node, "group", 1) > 1 else column.reshape(1, -1, 1, 1)
        graph.constants[node.input[1]] = graph.constants[node.input[1]] * over_inputs


def _links(graph: Graph) -> list[Link]:
    """Every set of tensors that can be equalised, in the graph's order."""
    home: dict[str, set[str]] = {}
    for node in graph.proto.node:
        for name in (*graph.activations(node), *node.output):
            home.setdefault(name, {name})
        if node.op_type in COMMUTING:
            joined = set().union(*(home[name] for name in (*graph.activations(node), node.output[0])))
            home.update(dict.fromkeys(joined, joined))
    links = []
    for tensors in {id(tensors): tensors for tensors in home.values()}.values():
        writers = [
            node for node in graph.proto.node if tensors.intersection(node.output) and node.op_type not in COMMUTING
        ]
        readers = [
            node for node in graph.proto.node if tensors.intersection(node.input) and node.op_type not in COMMUTING
        ]
        if readers and _can_scale(graph, tensors, writers, readers):
            links.append(Link(tensors=tensors, writers=writers, readers=readers))
    return links


def _can_scale(graph: Graph, tensors: set[str], writers: list[onnx.NodeProto], readers: list[onnx.NodeProto]) -> bool:
    """Whether all of them are plain 2-D convolutions that own their weights, and nothing enters or leaves elsewhere."""
    owned = [name for node in writers for name in node.input[1:]] + [
        node.input[1] for node in readers if len(node.input) > 1
    ]
    if any(node.op_type != "Conv" for node in (*writers, *readers)) or tensors.intersection(
        (*graph.inputs, *graph.outputs)
    ):
        return False
    if any(name not in graph.constants or len(graph.consumers[name]) > 1 for name in owned):
        return False
    if any(graph.constants[node.input[1]].ndim != 4 for node in (*writers, *readers)):
        return False
    channels = {graph.constants[node.input[1]].shape[0] for node in writers}
    read = {_channels_read(graph.constants[node.input[1]].shape, attribute(node, "group", 1)) for node in readers}
    mixed = any(
        len(graph.activations(node)) != 2 for name in tensors for node in graph.consumers[name] if node.op_type == "Add"
    )
    return len(channels) == 1 and channels == read and not mixed


def _channels_read(shape: tuple[int, ...], groups: int) -> int:
    """C of a convolution that is dense or depthwise (multiplier 1), else 0."""
    if groups == 1:
        return shape[1]
    return shape[0] if shape[:2] == (groups, 1) else 0


def _channel_ranges(graph: Graph, names: set[str], crops: Float32) -> dict[str, Float32]:
    """Largest magnitude per channel of (N, C, ...) values: (C,) float32 each."""
    found: dict[str, Float32] = {}
    for values in walk(graph, crops):
        for name in values.keys() & names:
            found[name] = np.max([np.abs(x).max(axis=(0, *range(2, x.ndim))) for x in values[name]], axis=0)
    return found


# ----------------------------------------------------------------------------------------------------------- calibrate


def run_node(
    node: onnx.NodeProto, values: Mapping[str, Chunks], constants: Mapping[str, NDArray[Any]]
) -> dict[str, Chunks]:
    """Computes one node in ONNX Runtime: its outputs by name."""
    import onnxruntime as ort

    fed = [name for name in dict.fromkeys(node.input) if name in values]
    held = [numpy_helper.from_array(constants[name], name) for name in dict.fromkeys(node.input) if name in constants]
    kinds = {name: helper.np_dtype_to_tensor_dtype(values[name][0].dtype) for name in fed}
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    pieces = max((len(values[name]) for name in fed), default=1)
    results = [session.run(None, {name: values[name][piece] for name in fed}) for piece in range(pieces)]
    return {name: [result[i] for result in results] for i, name in enumerate(name for name in node.output if name)}


def chunked(graph: Graph, crops: Float32) -> Chunks:
    """Cuts (n, 3, H, W) crops to pieces of the batch size the graph was made for."""
    axis = graph.proto.input[0].type.tensor_type.shape.dim[0]
    size = axis.dim_value or CHUNK
    return [crops[start : start + size] for start in range(0, len(crops) - len(crops) % size or len(crops), size)]


def walk(graph: Graph, crops: Float32) -> Iterator[dict[str, Chunks]]:
    """Computes the float graph node by node: what each node gives, holding only what is still needed."""
    values = {graph.inputs[0]: chunked(graph, crops)}
    yield dict(values)
    for node, finished in _schedule(graph):
        made = run_node(node, values, graph.constants)
        yield made
        values.update(made)
        for name in finished:
            values.pop(name, None)


def _schedule(graph: Graph) -> Iterator[tuple[onnx.NodeProto, list[str]]]:
    """Nodes in order, each with the values that nobody reads after it."""
    last = {name: index for index, node in enumerate(graph.proto.node) for name in (*node.output, *node.input)}
    for index, node in enumerate(graph.proto.node):
        yield node, [name for name in (*node.input, *node.output) if last.get(name) == index]


@dataclass(slots=True, kw_only=True)
class Layer:
    """An int8 layer: weights (as in the graph) int8, scale and bias (C_out,) float32."""

    weights: NDArray[np.int8]
    scale: Float32
    bias: Float32
    axis: int

    def dequantised(self) -> Float32:
        """The weights that the integers stand for, in the graph's shape."""
        shape = [1] * self.weights.ndim
        shape[self.axis] = -1
        return (self.weights * self.scale.reshape(shape)).astype(np.float32)


@dataclass(slots=True, kw_only=True)
class Calibration:
    """The numbers of a quantised network: activations and layers by tensor name."""

    activations: dict[str, Affine] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)


def calibrate(graph: Graph, chosen: Plan, crops: Float32, settings: Settings) -> Calibration:
    """Walks the float and the int8 network side by side, fixing each tensor's range and each layer's numbers in turn.

    A layer is fitted to give the float network's values from the int8 network's inputs, so it makes up for what was
    lost before it; what it loses itself, the next one sees.
    """
    result = Calibration()
    rng = np.random.default_rng(0)
    exact: dict[str, Chunks] = {graph.inputs[0]: chunked(graph, crops)}
    lossy = _quantise_values(graph, dict(exact), chosen, result, settings)
    for node, finished in _schedule(graph):
        made = run_node(node, exact, graph.constants)
        name = node.output[0]
        reading = chosen.rewire(node)
        if name in chosen.layers:
            x, y = lossy[reading.input[0]], made[name]
            read = result.activations[chosen.source.get(node.input[0], node.input[0])]
            result.layers[name] = fit_layer(graph, node, x, y, read, settings, rng)
            given = _run_layer(reading, lossy, result.layers[name])
            if settings.correct_bias:
                given = _correct_bias(result.layers[name], y, given)
            computed = {name: given}
        else:
            computed = run_node(reading, lossy, graph.constants)
        exact.update(made)
        lossy.update(_quantise_values(graph, computed, chosen, result, settings))
        for gone in finished:
            for values in (exact, lossy):
                values.pop(gone, None)
                values.pop(restored(gone), None)
    return result


def _quantise_values(
    graph: Graph, values: dict[str, Chunks], chosen: Plan, result: Calibration, settings: Settings
) -> dict[str, Chunks]:
    """The values and what their Q/DQ pairs make of them; the pairs' parameters are chosen on the way."""
    for name in values.keys() & set(chosen.tensors):
        source = chosen.source.get(name, name)
        if source == name:
            result.activations[name] = search_range(values[name], settings)
        values[restored(name)] = [result.activations[source].snap(x) for x in values[name]]
        if all(node.output[0] in chosen.readers for node in graph.consumers.get(name, [])):
            del values[name]
    return values


def search_range(values: Chunks, settings: Settings) -> Affine:
    """The range whose rounding and clipping errors together are smallest in the L_p norm.

    p = 2 is the usual choice (Banner et al. 2019, "Post training 4-bit quantization"); a larger p spares the tails.
    """
    low = min(float(x.min()) for x in values)
    high = max(float(x.max()) for x in values)
    best = make_affine(low, high, settings.activations)
    if settings.norm is None:
        return best
    flat = np.concatenate([x.ravel() for x in values])
    sample = flat[:: max(1, flat.size // 65536)]

    def error(candidate: Affine) -> float:
        return float((np.abs(candidate.snap(sample) - sample).astype(np.float64) ** settings.norm).sum())

    least = error(best)
    for _ in range(2):
        kept_low, kept_high = low, high
        for share in np.linspace(0.98, 0.4, 30):
            for pair in ((kept_low * share, high), (low, kept_high * share)):
                candidate = make_affine(*pair, settings.activations)
                if (loss := error(candidate)) < least * 0.999:
                    least, best, (low, high) = loss, candidate, pair
    return best


def make_affine(low: float, high: float, kind: str) -> Affine:
    """The parameters that cover [low, high] and represent 0 exactly, which zero padding needs."""
    low, high = min(low, 0.0), max(high, 0.0)
    if kind == "int8":
        scale = float(np.float32(max(-low, high) / 127)) or 1.0
        return Affine(scale=scale, zero_point=0, low=-128, high=127)
    scale = float(np.float32((high - low) / 255)) or 1.0
    return Affine(scale=scale, zero_point=round(-low / scale), low=0, high=255)


def fit_layer(
    graph: Graph, node: onnx.NodeProto, x: Chunks, y: Chunks, read: Affine, settings: Settings, rng: np.random.Generator
) -> Layer:
    """Quantises a layer's weights so that int8 inputs `x` give the float outputs `y`."""
    weights = graph.constants[node.input[1]]
    axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
    outputs = weights.shape[axis]
    bias = graph.constants[node.input[2]].reshape(-1) if len(node.input) > 2 else np.zeros(outputs, np.float32)
    bias = np.broadcast_to(bias, (outputs,)).astype(np.float32)
    groups = int(attribute(node, "group", 1))
    # (groups, fan-in, outputs per group)
    matrix = np.moveaxis(weights, axis, 0).reshape(groups, outputs // groups, -1).transpose(0, 2, 1).astype(np.float64)
    samples = sample_patches(node, weights, x, y, settings.positions, rng) if _can_sample(node, weights, x) else None
    covariance: Float64 | None = None
    if samples is not None:
        covariance, matrix = _refit(matrix, *samples, settings.ridge)
    largest = _weight_scale(matrix, settings.activations)
    # ONNX Runtime keeps the bias as int32 in steps of both scales: a nearly dead channel must not overflow it.
    scale = np.maximum(largest, np.abs(bias).reshape(groups, -1) / (read.scale * 2**24)).astype(np.float32)
    scale = np.where(scale > 1e-12, scale, np.float32(1.0))
    integers = _round(matrix, scale, covariance if settings.adaptive_rounding else None)
    shape = np.moveaxis(weights, axis, 0).shape
    integers = np.moveaxis(integers.transpose(0, 2, 1).reshape(shape), 0, axis)
    return Layer(weights=integers.astype(np.int8), scale=scale.ravel(), bias=bias, axis=axis)


def _weight_scale(matrix: Float64, kind: str) -> Float64:
    """(groups, outputs) step of the weights (groups, fan-in, outputs).

    Before AVX512-VNNI, x86 adds two uint8 * int8 products in a saturating int16: the two largest weights of a sign may
    only reach 128 together. That is a bit less than the half range that is common ("reduce range").
    """
    step = np.abs(matrix).max(axis=1) / LARGEST_WEIGHT
    if kind == "int8" or matrix.shape[1] == 1:
        return step
    ranked = np.sort(matrix, axis=1)
    return np.maximum(step, np.maximum(ranked[:, -2:].sum(axis=1), -ranked[:, :2].sum(axis=1)) / SAFE_PAIR)


def _can_sample(node: onnx.NodeProto, weights: NDArray[Any], x: Chunks) -> bool:
    if node.op_type != "Conv":
        return x[0].ndim == 2
    return weights.ndim == 4 and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"


def sample_patches(
    node: onnx.NodeProto, weights: NDArray[Any], x: Chunks, y: Chunks, positions: int, rng: np.random.Generator
) -> tuple[Float64, Float64]:
    """What a layer reads and should give at random places: (groups, m, fan-in) and (groups, m, outputs) float64."""
    if node.op_type != "Conv":
        return np.concatenate(x).astype(np.float64)[None], np.concatenate(y).astype(np.float64)[None]
    groups = int(attribute(node, "group", 1))
    stride, dilation = (np.array(attribute(node, name, [1, 1])) for name in ("strides", "dilations"))
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    tall, wide = weights.shape[2:]
    read, given = [], []
    for piece, target in zip(x, y, strict=True):
        padded = np.pad(piece, ((0, 0), (0, 0), (top, bottom), (left, right)))
        count = min(positions, target.shape[2] * target.shape[3])
        row, column = (rng.integers(0, size, (len(piece), count)) for size in target.shape[2:])
        crop = np.arange(len(piece))[:, None]
        given.append(target[crop, :, row, column])
        rows = row[..., None] * stride[0] + np.arange(tall) * dilation[0]
        columns = column[..., None] * stride[1] + np.arange(wide) * dilation[1]
        read.append(padded[crop[..., None, None], :, rows[..., :, None], columns[..., None, :]])
    # (crop, position, tall, wide, channel) to (group, m, fan-in)
    patches = (
        np.concatenate(read)
        .transpose(4, 0, 1, 2, 3)
        .reshape(groups, -1, sum(map(lambda p: p.shape[0] * p.shape[1], read)), tall * wide)
    )
    inputs = patches.transpose(0, 2, 1, 3).reshape(groups, patches.shape[2], -1)
    outputs = np.concatenate(given).reshape(inputs.shape[1], groups, -1).transpose(1, 0, 2)
    return inputs.astype(np.float64), outputs.astype(np.float64)


def _refit(matrix: Float64, x: Float64, y: Float64, ridge: float | None) -> tuple[Float64, Float64]:
    """Input covariance, and the weights that explain `y` from the int8 network's `x`, pulled towards the float ones."""
    x = x - x.mean(axis=1, keepdims=True)
    y = y - y.mean(axis=1, keepdims=True)
    covariance = x.transpose(0, 2, 1) @ x / x.shape[1]
    fan_in = covariance.shape[-1]
    power = np.trace(covariance, axis1=1, axis2=2) / fan_in + 1e-12
    if ridge is None:
        return covariance, matrix
    prior = (ridge * power)[:, None, None] * np.eye(fan_in)
    cross = x.transpose(0, 2, 1) @ y / x.shape[1]
    return covariance, np.linalg.solve(covariance + prior, cross + prior @ matrix)


def _round(matrix: Float64, scale: Float32, covariance: Float64 | None) -> Float64:
    """Integers for weights (groups, fan-in, outputs).

    With the inputs' covariance, the rounding error of a weight is made up for by those not yet rounded (GPTQ, Frantar
    et al. 2023).
    """
    step = scale.astype(np.float64)[:, None, :]
    if covariance is None:
        return np.clip(np.rint(matrix / step), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    fan_in = matrix.shape[1]
    power = np.trace(covariance, axis1=1, axis2=2) / fan_in + 1e-12
    damped = covariance + 0.01 * power[:, None, None] * np.eye(fan_in)
    inverse = np.linalg.inv(damped)
    upper = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1)
    left = matrix.copy()
    integers = np.empty_like(left)
    for i in range(fan_in):
        integers[:, i] = np.clip(np.rint(left[:, i] / step[:, 0]), -LARGEST_WEIGHT, LARGEST_WEIGHT)
        error = (left[:, i] - integers[:, i] * step[:, 0]) / upper[:, i, i, None]
        left[:, i + 1 :] -= upper[:, i, i + 1 :, None] * error[:, None, :]
    return integers


def _run_layer(node: onnx.NodeProto, values: Mapping[str, Chunks], layer: Layer) -> Chunks:
    """A layer's float output with its integer weights."""
    names = ["weights", *(["bias"] if node.op_type != "MatMul" else [])]
    simulated = onnx.NodeProto()
    simulated.CopyFrom(node)
    simulated.input[:] = [node.input[0], *names]
    constants = {"weights": layer.dequantised(), "bias": layer.bias}
    return run_node(simulated, values, constants)[node.output[0]]


def _correct_bias(layer: Layer, exact: Chunks, given: Chunks) -> Chunks:
    """Moves each output channel's mean error to the bias (empirical bias correction, Nagel et al. 2019)."""
    along = 1 if exact[0].ndim == 4 else exact[0].ndim - 1
    others = tuple(axis for axis in range(exact[0].ndim) if axis != along)
    differences = [(e.astype(np.float64) - g).mean(axis=others) for e, g in zip(exact, given, strict=True)]
    shift = np.average(differences, axis=0, weights=[len(e) for e in exact]).astype(np.float32)
    layer.bias = layer.bias + shift
    return [g + shift.reshape([-1 if axis == along else 1 for axis in range(g.ndim)]) for g in given]


# ---------------------------------------------------------------------------------------------------------------- emit


def emit(
    model: onnx.ModelProto, graph: Graph, chosen: Plan, numbers: Calibration, settings: Settings
) -> onnx.ModelProto:
    """Writes the graph with its Q/DQ nodes."""
    kind = np.dtype(settings.activations)
    constants: dict[str, NDArray[Any]] = {}
    nodes: list[onnx.NodeProto] = []

    def quantise(name: str) -> None:
        affine = numbers.activations[chosen.source.get(name, name)]
        step = [f"{name}_scale", f"{name}_zero_point"]
        constants.update(
            zip(step, (np.array(affine.scale, np.float32), np.array(affine.zero_point, kind)), strict=True)
        )
        nodes.append(helper.make_node("QuantizeLinear", [name, *step], [f"{name}_quantized"], name=f"{name}_q"))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_quantized", *step], [restored(name)], name=f"{name}_dq")
        )

    for name in graph.inputs:
        if name in chosen.tensors:
            quantise(name)
    for original in graph.proto.node:
        node = chosen.rewire(original)
        if original.output[0] in chosen.layers:
            added, values = _layer_nodes(node, original.output[0], numbers.layers[original.output[0]])
            nodes.extend(added)
            constants.update(values)
        else:
            nodes.append(node)
        for name in original.output:
            if name in chosen.tensors:
                quantise(name)
    used = dict.fromkeys(name for node in nodes for name in node.input)
    constants |= {name: graph.constants[name] for name in used if name in graph.constants and name not in constants}
    written = onnx.ModelProto()
    written.CopyFrom(model)
    del written.graph.node[:], written.graph.initializer[:], written.graph.value_info[:]
    written.graph.node.extend(nodes)
    written.graph.initializer.extend(numpy_helper.from_array(np.array(v, order="C"), k) for k, v in constants.items())
    return written


def _layer_nodes(node: onnx.NodeProto, name: str, layer: Layer) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]:
    """A layer reading int8 weights through a DequantizeLinear; its bias stays float, as TensorRT requires."""
    weights, step, zero = (f"{name}_weights{suffix}" for suffix in ("", "_scale", "_zero_point"))
    constants = {weights: layer.weights, step: layer.scale, zero: np.zeros(layer.scale.shape, np.int8)}
    restore = helper.make_node(
        "DequantizeLinear", [weights, step, zero], [f"{weights}_dequantized"], name=f"{weights}_dq", axis=layer.axis
    )
    bias = f"{name}_bias"
    constants[bias] = layer.bias
    if node.op_type != "MatMul":
        node.input[:] = [node.input[0], f"{weights}_dequantized", bias]
        return [restore, node], constants
    result = node.output[0]
    node.input[1], node.output[0] = f"{weights}_dequantized", f"{name}_product"
    return [
        restore,
        node,
        helper.make_node("Add", [f"{name}_product", bias], [result], name=f"{name}_bias_add"),
    ], constants


def quantise(model: onnx.ModelProto, crops: Float32, settings: Settings) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Quantises a float graph. `crops`: (n, 3, H, W) float32 network inputs."""
    crops = crops[np.linspace(0, len(crops) - 1, min(settings.crops, len(crops))).round().astype(int)]
    graph = Graph.of(model)
    chosen = plan(graph, settings)
    pairs = equalise(graph, chosen, crops, settings.balance)
    numbers = calibrate(graph, chosen, crops, settings)
    return emit(model, graph, chosen, numbers, settings), {"equalised": pairs}
