"""Heads: landmarks by linear layers, landmarks after global pooling, or heatmaps."""

from __future__ import annotations

from typing import Any

from tests.generated.activations import ACTIVATIONS, activate
from tests.generated.network import Network, Value
from tests.generated.registry import NOTHING, head

POINTS = 5
Shape = list[str | int]
FORMS = ("Gemm", "Gemm transB", "Gemm scaled", "MatMul")
ELEMENTWISE = tuple(kind for kind in ACTIVATIONS if not kind.startswith("PRelu"))


def _flat(net: Network, x: Value, form: str) -> str:
    size = x.channels * x.height * x.width
    if form == "Flatten":
        return net.add("Flatten", x.name, axis=int(net.random.choice([1, -3])))
    if form == "Reshape by shape":  # as exporters write a batch size
        count = net.add("Gather", net.add("Shape", x.name), net.integers(0), axis=0)
        return net.add("Reshape", x.name, net.add("Concat", count, net.integers(-1), axis=0))
    return net.add("Reshape", x.name, net.integers(*((-1, size) if form == "Reshape" else (0, -1))))


def _landmarks(net: Network, flat: str, features: int, form: str) -> Shape:
    points = net.linear(flat, net.filters(features, 2 * POINTS, ()), form)
    net.add("Reshape", points, net.integers(-1, POINTS, 2), outputs=["landmarks"])
    return ["N", POINTS, 2]


@head(
    flat=("Flatten", "Reshape", "Reshape the rest", "Reshape by shape"),
    form=FORMS,
    hidden=(False, True),
    act=ELEMENTWISE,
    plan=(
        NOTHING,
        "dead before flatten",
        "constant before flatten",
        "unread after flatten",
        "dead unit",
        "constant unit",
        "unread unit",
        "trap: one pixel is read",
    ),
)
def linear(net: Network, x: Value, *, flat: str, form: str, hidden: bool, act: str, plan: str) -> Shape:
    first = net.filters(x.channels, net.base, 1)
    stride = 2 if min(x.height, x.width) > 8 else 1
    y_size = ((x.height - 1) // stride + 1) * ((x.width - 1) // stride + 1)
    units = net.filters(net.base * y_size, 8, ())
    last = net.filters(8, 8, ())
    dead = net.some(net.base)
    if plan in ("dead before flatten", "constant before flatten"):
        first.kill(plan, dead, 0.0 if plan.startswith("dead") else net.value())
    elif plan in ("unread after flatten", "trap: one pixel is read"):
        units.ignore([channel * y_size + i for channel in dead for i in range(y_size)])
        if plan.startswith("trap"):
            units.weight[:, [channel * y_size for channel in dead]] = 0.5
            first.trap(plan, dead)
        else:
            first.plant(plan, dead)
    elif plan in ("dead unit", "constant unit") and form != "MatMul":
        units.kill(plan, [1, 6], 0.0 if plan.startswith("dead") else net.value())
    elif plan == "unread unit":
        units.plant(plan, [2, 3])
        last.ignore([2, 3])
    y = activate(net, net.conv(x, first, stride=stride), act)
    features = Value(name=net.linear(_flat(net, y, flat), units, form), channels=8, height=1, width=1)
    features = activate(net, features, act)
    if hidden or plan.endswith("unit"):
        features = features.named(net.linear(features.name, last, form))
    return _landmarks(net, features.name, 8, form)


@head(
    pool=("GlobalAveragePool", "GlobalMaxPool", "ReduceMean"),
    form=FORMS,
    plan=(NOTHING, "dead before global pooling", "constant before global pooling", "unread after global pooling"),
)
def pooled(net: Network, x: Value, *, pool: str, form: str, plan: str) -> Shape:
    first = net.filters(x.channels, net.base, 1)
    units = net.filters(net.base, 8, ())
    dead = net.some(net.base)
    if plan.startswith("unread"):
        first.plant(plan, dead)
        units.ignore(dead)
    elif plan != NOTHING:
        first.kill(plan, dead, 0.0 if plan.startswith("dead") else net.value())
    y = net.conv(x, first)
    if pool == "ReduceMean":
        flat = net.add(pool, y.name, net.integers(2, 3), keepdims=0)
    else:
        flat = net.add("Flatten", net.add(pool, y.name))
    return _landmarks(net, net.linear(flat, units, form), 8, form)


@head(act=("none", "Sigmoid"), bias=(True, False), plan=(NOTHING, "dead map", "unread below the maps"))
def maps(net: Network, x: Value, *, act: str, bias: bool, plan: str) -> Shape:
    first, last = net.filters(x.channels, net.base), net.filters(net.base, POINTS, 1)
    dead = net.some(net.base)
    if plan == "dead map":
        last.kill(plan, [3], 0.25)
        bias = True
    elif plan != NOTHING:
        first.plant(plan, dead)
        last.ignore(dead)
    y = net.conv(activate(net, net.conv(x, first), "Relu"), last, bias=bias)
    y = activate(net, y, act)
    renamed: dict[str, Any] = {"outputs": ["landmarks"]}
    if act == "none" or net.random.integers(2):  # a network output is often the output of a convolution
        net.nodes[-1].output[0] = "landmarks"
        net.renamed(y.name, "landmarks")
    else:
        net.add("Identity", y.name, **renamed)
    return ["N", POINTS, y.height, y.width]
