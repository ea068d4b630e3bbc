"""Writes small networks node by node, and records the planted channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lmconv.types import Float32

CONSTANTS = ("initializer", "node", "identity", "mixed")
"""Storage of weights: initializers, Constant nodes, initializers behind an Identity, or a mixture."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A channel that is provably without effect.

    Attributes:
        kind: Kind of planted channel, in words.
        layer: Output name of the layer that writes the channel.
        channel: Index of the channel.
        zero: True if the channel's own filter is zero; False if the proof needs other operators of the block.
        block: Index of the block.
    """

    kind: str
    layer: str
    channel: int
    zero: bool
    block: int


@dataclass(frozen=True, slots=True)
class Trap:
    """A channel that looks dead but is not: without the channel, the network computes other outputs.

    Attributes:
        kind: Kind of trap, in words.
        tensor: Name of the tensor with the channel.
        channel: Index of the channel.
        channels: Number of channels of the tensor.
    """

    kind: str
    tensor: str
    channel: int
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor (N, channels, height, width) of the graph."""

    name: str
    channels: int
    height: int
    width: int

    def named(self, name: str) -> Value:
        """Returns a tensor of the same shape with another name."""
        return Value(name=name, channels=self.channels, height=self.height, width=self.width)


@dataclass(slots=True, kw_only=True)
class Filters:
    """Weights of a layer before the layer is added to the graph, with the planted channels.

    Attributes:
        weight: (out, in / group, …) float32, also for a transposed convolution.
        bias: (out,) float32.
        group: Number of groups.
        planted: Kind and channel of planted channels; True if the channel's filter is zero.
        traps: Kind and channel of traps.
    """

    weight: Float32
    bias: Float32
    group: int = 1
    planted: list[tuple[str, int, bool]] = field(default_factory=list)
    traps: list[tuple[str, int]] = field(default_factory=list)

    def kill(self, kind: str, channels: Sequence[int], value: float = 0.0) -> None:
        """Makes output channels constant: zero weights, and the bias `value`."""
        self.weight[list(channels)] = 0
        self.bias[list(channels)] = value
        self.planted += [(kind, channel, True) for channel in channels]

    def ignore(self, channels: Sequence[int]) -> None:
        """Sets the weights of these input channels to zero."""
        per, outs = self.weight.shape[1], len(self.weight) // self.group
        for channel in channels:
            first = channel // per * outs
            self.weight[first : first + outs, channel % per] = 0

    def only(self, out: int, source: int) -> None:
        """Lets one output channel read one input channel only."""
        kernel = self.weight[out, source].copy()
        self.weight[out], self.bias[out] = 0, 0
        self.weight[out, source] = kernel

    def plant(self, kind: str, channels: Sequence[int]) -> None:
        """Records channels that are dead for another reason than a zero filter."""
        self.planted += [(kind, channel, False) for channel in channels]

    def trap(self, kind: str, channels: Sequence[int]) -> None:
        """Records channels that only look dead; raises the bias of varying channels to keep them alive after a ReLU."""
        self.traps += [(kind, channel) for channel in channels]
        self.bias[[channel for channel in channels if self.weight[channel].any()]] += 1


class Network:
    """A graph under construction; the seed determines the weights."""

    def __init__(self, seed: int, *, channels: int, size: tuple[int, int], constants: str, named: bool = True) -> None:
        self.random = np.random.default_rng(seed)
        self.base, self.constants, self.named = channels, constants, named
        self.nodes: list[onnx.NodeProto] = []
        self.block = 0
        self.blocks: dict[str, int] = {}
        self.initializers: list[TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.planted: list[Planted] = []
        self.traps: list[Trap] = []
        self.features: set[str] = set()
        self.hidden = False  # True if a channel is dead in a form that compaction need not detect
        self.input = Value(name="input", channels=3, height=size[0], width=size[1])

    def add(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Adds a node; returns the name of its first output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        names = list(outputs) or [name]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name if self.named else "", **attributes))
        self.features.add(kind)
        self.blocks |= dict.fromkeys(names, self.block)
        return names[0]

    def constant(self, values: NDArray[Any]) -> str:
        """Adds a constant in the storage form of the network; returns its name."""
        form = self.constants if self.constants != "mixed" else str(self.random.choice(CONSTANTS[:3]))
        if values.dtype == np.int64 and form == "identity":
            form = "node"  # shape inference does not look behind an Identity
        if form == "node":
            return self.add("Constant", value=numpy_helper.from_array(values))
        name = f"values_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name if form == "initializer" else self.add("Identity", name)

    def integers(self, *values: int) -> str:
        """Adds a constant (n,) int64; returns its name."""
        return self.constant(np.array(values, np.int64))

    def normal(self, *shape: int, scale: float = 1.0) -> Float32:
        """Normally distributed numbers, at least 0.05 * scale away from zero."""
        drawn = self.random.normal(size=shape)
        return np.asarray((drawn + np.copysign(0.05, drawn)) * scale, np.float32)

    def width(self) -> int:
        """Draws a number of channels, a multiple of 4."""
        return int(self.random.choice([self.base, self.base, 4, 8, 12]))

    def some(self, count: int) -> list[int]:
        """Draws some of `count` channels: at least one, and about a third at most."""
        chosen = self.random.choice(count, self.random.integers(1, max(2, count // 3 + 1)), replace=False)
        return sorted(int(channel) for channel in chosen)

    def value(self) -> float:
        """Draws a constant that no activation function maps to zero."""
        return float(self.random.choice([0.7, 1.3, 2.5]))

    def filters(self, x: int, out: int, kernel: int | tuple[()] = 3, group: int = 1) -> Filters:
        """Random weights that keep the magnitude of activations; no spatial axes for kernel ()."""
        space = (kernel, kernel) if isinstance(kernel, int) else ()
        shape = (out, x // group, *space)
        weight = self.normal(*shape, scale=float(np.sqrt(1.5 / np.prod(shape[1:]))))
        return Filters(weight=weight, bias=self.normal(out, scale=0.3), group=group)

    def record(self, filters: Filters, layer: str) -> str:
        """Records the planted channels and traps of a layer that is now in the graph; returns the layer's name."""
        self.planted += [Planted(kind, layer, channel, zero, self.block) for kind, channel, zero in filters.planted]
        self.traps += [Trap(kind, layer, channel, len(filters.weight)) for kind, channel in filters.traps]
        return layer

    def conv(
        self,
        x: Value,
        filters: Filters,
        *,
        padding: str = "zero",
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
        weight: str = "",
    ) -> Value:
        """Adds a convolution; `weight` names an existing weight tensor to share."""
        kernel = filters.weight.shape[2]
        pads = self.pads(x, kernel, padding, dilation)
        attributes: dict[str, Any] = {"pads": pads} if not padding.startswith("SAME") else {"auto_pad": padding}
        if self.random.integers(2):  # the attribute is optional
            attributes["kernel_shape"] = [kernel, kernel]
        extra = [self.constant(filters.bias)] if bias else [""][: int(self.random.integers(2))]
        name = self.add(
            "Conv",
            x.name,
            weight or self.constant(filters.weight),
            *extra,
            group=filters.group,
            strides=[stride, stride],
            dilations=[dilation, dilation],
            **attributes,
        )
        reach = dilation * (kernel - 1) + 1
        height, width = x.height + pads[0] + pads[2] - reach, x.width + pads[1] + pads[3] - reach
        return Value(
            name=self.record(filters, name),
            channels=len(filters.weight),
            height=-(-x.height // stride) if padding.startswith("SAME") else height // stride + 1,
            width=-(-x.width // stride) if padding.startswith("SAME") else width // stride + 1,
        )

    def pads(self, x: Value, kernel: int, padding: str, dilation: int = 1) -> list[int]:
        """Returns the pads for a kind of padding: top, left, bottom, right."""
        reach = dilation * (kernel - 1)
        if padding == "none" and reach < min(x.height, x.width):
            return [0, 0, 0, 0]
        if padding == "wide":
            return [reach // 2 + 1] * 4
        if padding == "uneven":
            return [reach // 2, reach // 2, reach // 2 + 1, reach // 2 + 1]
        return [reach // 2] * 4

    def linear(self, x: str, filters: Filters, form: str = "Gemm") -> str:
        """Adds a linear layer as `Gemm`, `Gemm transB`, `Gemm scaled` or `MatMul`; returns the name of its output."""
        if form == "MatMul":
            product = self.record(filters, self.add("MatMul", x, self.constant(filters.weight.T.copy())))
            return self.add("Add", product, self.constant(filters.bias))
        alpha, beta = (0.5, 2.0) if form == "Gemm scaled" else (1.0, 1.0)
        weight = filters.weight / np.float32(alpha)
        transposed = form == "Gemm transB"
        inputs = [x, self.constant(weight if transposed else weight.T.copy())]
        bias = filters.bias / np.float32(beta)
        inputs.append(self.constant(bias[None] if form == "Gemm scaled" else bias))
        return self.record(filters, self.add("Gemm", *inputs, transB=int(transposed), alpha=alpha, beta=beta))

    def norm(self, x: Value, dead: Sequence[int] = ()) -> Value:
        """Adds a BatchNormalization; dead channels have the scale 0."""
        scale = np.abs(self.normal(x.channels, scale=0.5)) + np.float32(0.5)
        scale[list(dead)] = 0
        shift, mean = self.normal(x.channels, scale=0.3), self.normal(x.channels, scale=0.2)
        variance = np.abs(self.normal(x.channels)) + np.float32(0.5)
        names = [self.constant(values) for values in (scale, shift, mean, variance)]
        return x.named(self.add("BatchNormalization", x.name, *names, epsilon=1e-3))

    def output(self, x: Value) -> None:
        """Makes a tensor a further output of the graph."""
        shape: list[str | int] = ["N", x.channels, x.height, x.width]
        self.outputs.append(helper.make_tensor_value_info(x.name, TensorProto.FLOAT, shape))

    def trap(self, kind: str, x: Value, channels: Sequence[int]) -> None:
        """Records channels of a tensor that only look dead."""
        self.traps += [Trap(kind, x.name, channel, x.channels) for channel in channels]

    def renamed(self, old: str, new: str) -> None:
        """Renames the output of the last node, which has no reader yet."""
        self.nodes[-1].output[0] = new
        self.planted = [replace(item, layer=new) if item.layer == old else item for item in self.planted]
