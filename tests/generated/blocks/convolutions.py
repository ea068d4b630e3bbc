"""Blocks of convolutions: one, two in a row, depthwise, transposed, and two with shared weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.generated.activations import ACTIVATIONS, NOT_AT_ZERO, activate
from tests.generated.network import Filters, Network, Value
from tests.generated.registry import NOTHING, block

PADDINGS = ("zero", "none", "wide", "uneven", "SAME_UPPER", "SAME_LOWER")
FILTERS = ("zero filter", "constant filter", "negative filter", "large constant filter")
VALUES = {"zero filter": 0.0, "constant filter": 0.7, "negative filter": -0.6, "large constant filter": 300.0}


@block(
    kernel=(3, 1, 5),
    padding=PADDINGS,
    stride=(1, 2),
    dilation=(1, 2),
    group=(1, 2, 4),
    bias=(True, False),
    norm=(False, True),
    act=ACTIVATIONS,
    plan=(NOTHING, *FILTERS, "norm without scale", "trap: tiny filter"),
)
def conv(
    net: Network,
    x: Value,
    *,
    kernel: int,
    padding: str,
    stride: int,
    dilation: int,
    group: int,
    bias: bool,
    norm: bool,
    act: str,
    plan: str,
) -> Value:
    filters = net.filters(x.channels, net.width(), kernel, group if x.channels % group == 0 else 1)
    dead = net.some(len(filters.weight))
    if plan in VALUES:
        filters.kill(plan, dead, VALUES[plan])
        bias = bias or plan != "zero filter"
    elif plan == "norm without scale":
        filters.plant(plan, dead)
    elif plan.startswith("trap"):
        filters.trap(plan, dead)
        filters.weight[dead] *= 1e-3
        filters.bias[dead] *= 1e-3
    if padding.startswith("SAME") or min(x.height, x.width) < 8:
        dilation = 1
    stride = stride if min(x.height, x.width) >= 6 else 1
    y = net.conv(x, filters, padding=padding, stride=stride, dilation=dilation, bias=bias)
    if plan == "norm without scale":
        y = net.norm(y, dead)
    elif norm:
        y = net.norm(y)
    return activate(net, y, act)


@block(
    act=ACTIVATIONS,
    kernel=(1, 3),
    padding=PADDINGS,
    norm=(False, True),
    plan=(
        NOTHING,
        "unread",
        "constant",
        "large constant",
        "constant chain",
        "trap: cancelling",
        "trap: one tap",
        "trap: asleep",
    ),
)
def pair(net: Network, x: Value, *, act: str, kernel: int, padding: str, norm: bool, plan: str) -> Value:
    padding = "none" if plan == "constant chain" else padding
    first = net.filters(x.channels, net.width())
    second = net.filters(len(first.weight), net.width(), kernel)
    dead = net.some(len(first.weight))
    if plan == "unread":
        second.ignore(dead)
        first.plant("unread", dead)
    elif plan in ("constant", "large constant"):
        first.kill(f"{plan} read", dead, net.value() * (200 if plan == "large constant" else 1))
        if padding != "none":  # at the border the next layer reads a zero instead
            first.trap("trap: constant before padding", dead)
    elif plan == "constant chain":
        first.kill("constant at the start of a chain", dead, net.value())
        out = int(net.random.integers(len(second.weight)))
        second.weight[out, [c for c in range(len(first.weight)) if c not in dead]] = 0
        second.plant("reads nothing but constants", [out])
    elif plan == "trap: cancelling":
        one, other = 0, 1
        first.weight[other], first.bias[other] = first.weight[one], first.bias[one]
        second.weight[:, other] = -second.weight[:, one]
        second.weight[0, one] *= 1.5
        first.trap(plan, [one, other])
    elif plan == "trap: one tap":
        second.ignore(dead)
        second.weight[:, dead, kernel // 2, kernel // 2] = 0.5
        first.trap(plan, dead)
    elif plan == "trap: asleep":  # zero for every usual input, but not provably zero
        act, norm = "Relu", False
        first.trap(plan, dead)
        first.bias[dead] = -6 * np.abs(first.weight[dead]).sum((1, 2, 3))
    y = net.conv(x, first)
    if norm and plan not in ("constant", "large constant", "constant chain"):
        y = net.norm(y)
    return net.conv(activate(net, y, act), second, padding=padding)


@block(
    act=ACTIVATIONS,
    multiplier=(1, 2),
    kernel=(3, 5),
    padding=("zero", "none", "SAME_UPPER"),
    stride=(1, 2),
    shortcut=(False, True),
    plan=(NOTHING, "dead expansion", "unread projection", "dead depthwise", "trap: constant expansion", "trap: half"),
)
def inverted(
    net: Network,
    x: Value,
    *,
    act: str,
    multiplier: int,
    kernel: int,
    padding: str,
    stride: int,
    shortcut: bool,
    plan: str,
) -> Value:
    multiplier = 2 if plan == "trap: half" else multiplier
    expanded = min(2 * x.channels, 24)
    expand = net.filters(x.channels, expanded, 1)
    depth = net.filters(expanded, expanded * multiplier, kernel, group=expanded)
    project = net.filters(expanded * multiplier, x.channels, 1)
    dead = net.some(expanded)
    below = [channel * multiplier + i for channel in dead for i in range(multiplier)]
    if plan == "dead expansion":
        expand.kill(plan, dead)
        if act not in NOT_AT_ZERO:
            depth.plant("depthwise after dead expansion", below)
    elif plan == "unread projection":
        project.ignore(below)
        depth.plant(plan, below)
        expand.plant("unread through depthwise", dead)
    elif plan == "dead depthwise":
        depth.kill(plan, below, net.value())
        expand.plant("unread through depthwise", dead)
    elif plan == "trap: constant expansion":
        expand.kill("constant expansion", dead, net.value())
        expand.trap(plan, dead)
    elif plan == "trap: half":
        project.ignore(below[::2])
        depth.plant("unread half of a depthwise pair", below[::2])
        expand.trap(plan, dead)
    y = activate(net, net.conv(x, expand), act)
    y = activate(net, net.conv(y, depth, padding=padding, stride=stride if min(x.height, x.width) >= 8 else 1), act)
    y = net.conv(y, project)
    if shortcut and (y.height, y.width) == (x.height, x.width):
        y = y.named(net.add("Add", x.name, y.name))
    return y


@block(
    kernel=(2, 3, 4),
    depthwise=(False, True),
    act=ACTIVATIONS,
    plan=(NOTHING, "dead transposed", "dead before transposed", "unread by transposed", "trap: constant transposed"),
)
def transposed(net: Network, x: Value, *, kernel: int, depthwise: bool, act: str, plan: str) -> Value:
    first = net.filters(x.channels, net.width())
    middle = len(first.weight)
    up = net.filters(middle, middle if depthwise else net.width(), kernel, middle if depthwise else 1)
    dead = net.some(middle)
    if plan == "dead transposed":
        out = net.some(len(up.weight))
        up.kill(plan, out, net.value())
        if depthwise:
            first.plant("unread by transposed", out)
    elif plan == "dead before transposed":
        first.kill(plan, dead)
    elif plan == "unread by transposed":
        up.ignore(dead)
        first.plant(plan, dead)
    elif plan.startswith("trap"):
        first.kill("constant before transposed", dead, net.value())
        first.trap(plan, dead)
    y = activate(net, net.conv(x, first, stride=2 if min(x.height, x.width) > 8 else 1), act)
    return transpose(net, y, up)


def transpose(net: Network, x: Value, up: Filters) -> Value:
    """Adds a transposed convolution of stride 2, which at least doubles the size."""
    kernel = up.weight.shape[2]
    group = up.group
    out, per = len(up.weight), up.weight.shape[1]
    stored = up.weight.reshape(group, out // group, per, kernel, kernel).swapaxes(1, 2)
    weight = np.ascontiguousarray(stored.reshape(group * per, out // group, kernel, kernel))
    pad = 1 if kernel == 4 else 0
    extra: dict[str, Any] = {"output_padding": [1, 1]} if kernel == 2 and net.random.integers(4) == 0 else {}
    name = net.add(
        "ConvTranspose",
        x.name,
        net.constant(weight),
        net.constant(up.bias),
        strides=[2, 2],
        pads=[pad] * 4,
        group=group,
        **extra,
    )
    grown = kernel - 2 - 2 * pad + (1 if extra else 0)
    height, width = 2 * x.height + grown, 2 * x.width + grown
    return Value(name=net.record(up, name), channels=out, height=height, width=width)


@block(
    act=ACTIVATIONS,
    what=("weight", "bias", "slope"),
    plan=(NOTHING, "dead in shared weights", "trap: shared weights, one unread"),
)
def shared(net: Network, x: Value, *, act: str, what: str, plan: str) -> Value:
    """Two convolutions in a row with the same weight tensor."""
    first = net.filters(x.channels, x.channels)
    bias = first.bias.copy()
    last = net.filters(x.channels, net.width())
    dead = net.some(x.channels)
    second = Filters(weight=first.weight, bias=first.bias if what == "bias" else bias)
    if plan.startswith("dead"):
        first.kill(plan, dead)
        second.kill(plan, dead)
    elif plan.startswith("trap"):
        last.ignore(dead)
        second.plant("unread with shared weights", dead)
        first.trap(plan, dead)
    weight = net.constant(first.weight)
    y = activate(net, net.conv(x, first, weight=weight), act)
    slope = net.constant(np.abs(net.normal(x.channels, 1, 1, scale=0.3))) if what == "slope" else ""
    if what == "slope":
        y = y.named(net.add("PRelu", y.name, slope))
    y = net.conv(y, second, weight=weight)
    if what == "slope":
        y = y.named(net.add("PRelu", y.name, slope))
    return net.conv(y, last)
