"""Writes small networks node by node, and keeps a record of what was planted in them."""

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
"""How weights are held: initialisers, Constant nodes, initialisers behind an Identity, some of each."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A channel that is provably without effect.

    Its own filter is zero, or it follows from operators of the same block.
    """

    kind: str
    layer: str
    channel: int
    zero: bool
    block: int


@dataclass(frozen=True, slots=True)
class Trap:
    """A channel, of so many, that looks dead and is not: without it the network gives something else."""

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
        """Another tensor of this shape."""
        return Value(name=name, channels=self.channels, height=self.height, width=self.width)


@dataclass(slots=True, kw_only=True)
class Filters:
    """The weights of a layer before it is written, with what is planted in them.

    `weight` is (out, in / group, …) float32, also where the layer is a transposed convolution; `bias` is (out,).
    """

    weight: Float32
    bias: Float32
    group: int = 1
    planted: list[tuple[str, int, bool]] = field(default_factory=list)
    traps: list[tuple[str, int]] = field(default_factory=list)

    def kill(self, kind: str, channels: Sequence[int], value: float = 0.0) -> None:
        """Makes output channels constant."""
        self.weight[list(channels)] = 0
        self.bias[list(channels)] = value
        self.planted += [(kind, channel, True) for channel in channels]

    def ignore(self, channels: Sequence[int]) -> None:
        """Reads nothing from these input channels."""
        per, outs = self.weight.shape[1], len(self.weight) // self.group
        for channel in channels:
            first = channel // per * outs
            self.weight[first : first + outs, channel % per] = 0

    def only(self, out: int, source: int) -> None:
        """Has one output read nothing but one input."""
        kept = self.weight[out, source].copy()
        self.weight[out], self.bias[out] = 0, 0
        self.weight[out, source] = kept

    def plant(self, kind: str, channels: Sequence[int]) -> None:
        """Records channels that are dead for other reasons than their own filter."""
        self.planted += [(kind, channel, False) for channel in channels]

    def trap(self, kind: str, channels: Sequence[int]) -> None:
        """Records channels that only look dead; those that vary are lifted, lest an activation silence them."""
        self.traps += [(kind, channel) for channel in channels]
        self.bias[[channel for channel in channels if self.weight[channel].any()]] += 1


class Network:
    """A graph that grows; the seed alone decides its weights."""

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
        self.hidden = False  # something is dead in a way that a pass need not see
        self.input = Value(name="input", channels=3, height=size[0], width=size[1])

    def add(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Adds a node; gives the name of its first output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        made = list(outputs) or [name]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=name if self.named else "", **attributes))
        self.features.add(kind)
        self.blocks |= dict.fromkeys(made, self.block)
        return made[0]

    def constant(self, values: NDArray[Any]) -> str:
        """Adds a constant, in the network's way."""
        way = self.constants if self.constants != "mixed" else str(self.random.choice(CONSTANTS[:3]))
        if values.dtype == np.int64 and way == "identity":
            way = "node"  # shape inference does not look behind an Identity
        if way == "node":
            return self.add("Constant", value=numpy_helper.from_array(values))
        name = f"values_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name if way == "initializer" else self.add("Identity", name)

    def integers(self, *values: int) -> str:
        """Adds a constant (n,) int64."""
        return self.constant(np.array(values, np.int64))

    def normal(self, *shape: int, scale: float = 1.0) -> Float32:
        """Normally distributed numbers, none of which is near zero."""
        drawn = self.random.normal(size=shape)
        return np.asarray((drawn + np.copysign(0.05, drawn)) * scale, np.float32)

    def width(self) -> int:
        """A number of channels, a multiple of four."""
        return int(self.random.choice([self.base, self.base, 4, 8, 12]))

    def some(self, count: int) -> list[int]:
        """A few of `count` channels, at most a third."""
        chosen = self.random.choice(count, self.random.integers(1, max(2, count // 3 + 1)), replace=False)
        return sorted(int(channel) for channel in chosen)

    def value(self) -> float:
        """A constant that no activation makes zero."""
        return float(self.random.choice([0.7, 1.3, 2.5]))

    def filters(self, x: int, out: int, kernel: int | tuple[()] = 3, group: int = 1) -> Filters:
        """Weights that keep the size of what passes; no spatial axes with kernel ()."""
        space = (kernel, kernel) if isinstance(kernel, int) else ()
        shape = (out, x // group, *space)
        weight = self.normal(*shape, scale=float(np.sqrt(1.5 / np.prod(shape[1:]))))
        return Filters(weight=weight, bias=self.normal(out, scale=0.3), group=group)

    def record(self, filters: Filters, layer: str) -> str:
        """Notes what was planted in a layer that is now written."""
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
        """Writes a convolution; `weight` names one that is there already."""
        kernel = filters.weight.shape[2]
        pads = self.pads(x, kernel, padding, dilation)
        attributes: dict[str, Any] = {"pads": pads} if not padding.startswith("SAME") else {"auto_pad": padding}
        if self.random.integers(2):  # it may be left out
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
        """What a padding means for a kernel: top, left, bottom, right."""
        reach = dilation * (kernel - 1)
        if padding == "none" and reach < min(x.height, x.width):
            return [0, 0, 0, 0]
        if padding == "wide":
            return [reach // 2 + 1] * 4
        if padding == "uneven":
            return [reach // 2, reach // 2, reach // 2 + 1, reach // 2 + 1]
        return [reach // 2] * 4

    def linear(self, x: str, filters: Filters, form: str = "Gemm") -> str:
        """Writes a linear layer as `Gemm`, `Gemm transB`, `Gemm scaled` or `MatMul`."""
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
        """Writes a BatchNormalization; dead channels are scaled by zero."""
        scale = np.abs(self.normal(x.channels, scale=0.5)) + np.float32(0.5)
        scale[list(dead)] = 0
        shift, mean = self.normal(x.channels, scale=0.3), self.normal(x.channels, scale=0.2)
        variance = np.abs(self.normal(x.channels)) + np.float32(0.5)
        names = [self.constant(values) for values in (scale, shift, mean, variance)]
        return x.named(self.add("BatchNormalization", x.name, *names, epsilon=1e-3))

    def output(self, x: Value) -> None:
        """Makes a tensor an output of the graph, too."""
        shape: list[str | int] = ["N", x.channels, x.height, x.width]
        self.outputs.append(helper.make_tensor_value_info(x.name, TensorProto.FLOAT, shape))

    def trap(self, kind: str, x: Value, channels: Sequence[int]) -> None:
        """Records channels of a tensor that only look dead."""
        self.traps += [Trap(kind, x.name, channel, x.channels) for channel in channels]

    def renamed(self, old: str, new: str) -> None:
        """Renames the output of the last node, which nobody reads yet."""
        self.nodes[-1].output[0] = new
        self.planted = [replace(one, layer=new) if one.layer == old else one for one in self.planted]
