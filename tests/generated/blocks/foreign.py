"""Operators that compaction may not know: it must then keep their channels, and report the operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.generated.activations import ACTIVATIONS, activate
from tests.generated.network import Network, Value
from tests.generated.registry import NOTHING, block


def _swapped(net: Network, x: Value) -> str:
    nhwc = net.add("Transpose", x.name, perm=[0, 2, 3, 1])
    mixed = net.add("MatMul", nhwc, net.constant(net.normal(x.channels, x.channels, scale=x.channels**-0.5)))
    return net.add("Transpose", mixed, perm=[0, 3, 1, 2])


def _softmax(net: Network, x: Value) -> str:
    soft = net.add("Softmax", x.name, axis=int(net.random.choice([1, -3])))
    return net.add("Mul", soft, net.constant(np.array(x.channels, np.float32)))


def _centred(net: Network, x: Value) -> str:
    return net.add("Sub", x.name, net.add("ReduceMean", x.name, net.integers(1), keepdims=1))


def _greatest(net: Network, x: Value) -> str:
    return net.add("Add", x.name, net.add("ReduceMax", x.name, net.integers(-3), keepdims=1))


def _instance(net: Network, x: Value) -> str:
    scale, shift = net.normal(x.channels), net.normal(x.channels)
    return net.add("InstanceNormalization", x.name, net.constant(scale), net.constant(shift), epsilon=1e-2)


def _layer(net: Network, x: Value) -> str:
    shape = (x.channels, x.height, x.width)
    return net.add(
        "LayerNormalization", x.name, net.constant(net.normal(*shape)), net.constant(net.normal(*shape)), axis=1
    )


def _local(net: Network, x: Value) -> str:
    return net.add("LRN", x.name, size=3, alpha=1.0, beta=0.75, bias=1.0)


def _spatial(net: Network, x: Value) -> str:
    return net.add("MatMul", x.name, net.constant(net.normal(x.width, x.width, scale=x.width**-0.5)))


def _folded(net: Network, x: Value) -> str:
    """Moves channels into space and back, in another order."""
    return net.add("SpaceToDepth", net.add("DepthToSpace", x.name, blocksize=2, mode="CRD"), blocksize=2)


def _cumulative(net: Network, x: Value) -> str:
    net.initializers.append(numpy_helper.from_array(np.array(1), axis := f"axis_{len(net.nodes)}"))
    return net.add("CumSum", x.name, axis)


def _branching(net: Network, x: Value) -> str:
    """An If whose branches read the tensor from outside."""
    positive = net.add("Greater", net.add("Size", "input"), net.constant(np.array(0)))

    def branch(kind: str) -> onnx.GraphProto:
        name = f"{kind.lower()}_inside_{len(net.nodes)}"
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", x.channels, x.height, x.width])
        return helper.make_graph([helper.make_node(kind, [x.name], [name])], name, [], [output])

    return net.add("If", positive, then_branch=branch("Abs"), else_branch=branch("Identity"))


OPERATORS: dict[str, Callable[[Network, Value], str]] = {
    "transpose": _swapped,
    "softmax": _softmax,
    "mean of channels": _centred,
    "maximum of channels": _greatest,
    "instance norm": _instance,
    "layer norm": _layer,
    "local response": _local,
    "matmul over width": _spatial,
    "depth to space": _folded,
    "cumulative sum": _cumulative,
    "if": _branching,
}
MIXING = {"softmax", "mean of channels", "maximum of channels", "layer norm"}
"""Operators in which a channel of zeros changes the other channels."""


@block(operator=tuple(OPERATORS), act=ACTIVATIONS, plan=(NOTHING, "dead", "constant", "unread"))
def foreign(net: Network, x: Value, *, operator: str, act: str, plan: str) -> Value:
    first = net.filters(x.channels, net.width())
    last = net.filters(len(first.weight), net.base)
    dead = net.some(len(first.weight))
    if plan in ("dead", "constant"):
        first.kill(f"{plan} before a foreign operator", dead, 0.0 if plan == "dead" else 2.5)
        if operator in MIXING and plan == "constant":
            first.trap("trap: constant before an operator over channels", dead)
    elif plan == "unread":
        last.ignore(dead)
        net.hidden = True
        if operator in MIXING:
            first.trap("trap: unread after an operator over channels", dead)
    y = activate(net, net.conv(x, first), act)
    net.features.add(f"operator {operator}")
    return net.conv(y.named(OPERATORS[operator](net, y)), last)


@block(
    form=("Identity", "Dropout", "Cast", "Unsqueeze and Squeeze", "Reshape to itself", "Reshape to rows", "Expand"),
    plan=(NOTHING, "dead before nothing much"),
)
def detour(net: Network, x: Value, *, form: str, plan: str) -> Value:
    """Operators that change no value."""
    first = net.filters(x.channels, net.width())
    if plan != NOTHING:
        first.kill(plan, net.some(len(first.weight)))
    y = net.conv(x, first)
    if form == "Cast":
        name = net.add("Cast", y.name, to=TensorProto.FLOAT)
    elif form == "Unsqueeze and Squeeze":
        name = net.add("Squeeze", net.add("Unsqueeze", y.name, net.integers(2)), net.integers(2))
    elif form == "Reshape to itself":
        name = net.add("Reshape", y.name, net.integers(0, 0, -1, y.width))
    elif form == "Reshape to rows":
        rows = net.add("Reshape", y.name, net.integers(0, y.channels, -1))
        name = net.add("Reshape", rows, net.integers(0, y.channels, y.height, y.width))
    elif form == "Expand":
        name = net.add("Expand", y.name, net.integers(1, y.channels, 1, 1))
    else:
        name = net.add(form, y.name)
    return net.conv(y.named(name), net.filters(y.channels, net.base, 1))


@block(act=ACTIVATIONS, plan=(NOTHING, "read by nobody", "dead in an output"))
def aside(net: Network, x: Value, *, act: str, plan: str) -> Value:
    """A branch beside the network: a graph output, or a tensor without a reader."""
    filters = net.filters(x.channels, net.width())
    if plan == "read by nobody":
        filters.plant(plan, range(len(filters.weight)))
    elif plan == "dead in an output":
        filters.kill(plan, net.some(len(filters.weight)))
    y = activate(net, net.conv(x, filters), act)
    if plan != "read by nobody":
        net.output(y)
    return net.conv(x, net.filters(x.channels, net.base))
