"""Blocks with pooling, resizing or padding between two convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.generated.activations import ACTIVATIONS, activate
from tests.generated.network import Filters, Network, Value
from tests.generated.registry import NOTHING, block

PLANS = (NOTHING, "dead", "constant", "unread")


def around(net: Network, x: Value, what: str, plan: str, *, kept: bool) -> tuple[Filters, Filters]:
    """Filters of the convolutions before and after an operator.

    Args:
        net: The network.
        x: Input of the first convolution.
        what: The operator in words.
        plan: Kind of channels to plant.
        kept: True if the operator keeps constant channels constant.
    """
    first = net.filters(x.channels, net.width())
    last = net.filters(len(first.weight), net.base, 1)
    dead = net.some(len(first.weight))
    if plan == "dead":
        first.kill(f"dead before {what}", dead)
    elif plan == "constant":
        first.kill(f"constant before {what}", dead, net.value() * (float(net.random.choice([1, -1])) if kept else 1))
        if not kept:
            first.trap(f"trap: constant before {what}", dead)
    elif plan == "unread":
        last.ignore(dead)
        first.plant(f"unread after {what}", dead)
    return first, last


@block(
    form=("MaxPool", "AveragePool", "AveragePool counting zeros", "LpPool"),
    kernel=(2, 3),
    padded=(True, False, True),
    stride=(1, 2),
    ceil=(False, True),
    plan=PLANS,
)
def pool(net: Network, x: Value, *, form: str, kernel: int, padded: bool, stride: int, ceil: bool, plan: str) -> Value:
    kept = not (padded and form in ("AveragePool counting zeros", "LpPool"))
    first, last = around(net, x, "a pool" if kept else "a pool that counts zeros", plan, kept=kept)
    y = net.conv(x, first)
    pad = int(padded or min(y.height, y.width) < 4)
    extra: dict[str, Any] = {"count_include_pad": int("zeros" in form)} if form.startswith("Average") else {}
    if form == "LpPool":
        extra = {"p": 2}
    ceil = ceil and not pad and form.split()[0] != "LpPool"  # runtimes disagree about a last window in the padding
    sizes = [(side + 2 * pad - kernel) / stride + 1 for side in (y.height, y.width)]
    height, width = (int(np.ceil(size) if ceil else np.floor(size)) for size in sizes)
    if form != "LpPool":
        extra["ceil_mode"] = int(ceil)
    name = net.add(form.split()[0], y.name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, **extra)
    return net.conv(Value(name=name, channels=y.channels, height=height, width=width), last)


@block(
    mode=("nearest", "linear", "cubic"),
    by=("scales", "sizes", "sizes of a shape"),
    where=("half_pixel", "asymmetric", "align_corners"),
    plan=PLANS,
)
def resize(net: Network, x: Value, *, mode: str, by: str, where: str, plan: str) -> Value:
    first, last = around(net, x, "a resize", plan, kept=True)
    y = net.conv(x, first, stride=2 if min(x.height, x.width) > 6 else 1)
    if by == "scales":
        target = [2 * y.height, 2 * y.width]
        inputs = ["", net.constant(np.array([1, 1, 2, 2], np.float32))]
    else:
        target = [y.height + 3, y.width + 2]
        inputs = ["", "", net.integers(*target)]
    if by == "sizes of a shape":  # as exporters write a size
        start = net.add("Slice", net.add("Shape", y.name), net.integers(0), net.integers(2), net.integers(0))
        inputs[2] = net.add("Concat", start, inputs[2], axis=0)
    extra: dict[str, Any] = {"axes": [2, 3]} if by == "sizes" else {}
    if mode == "nearest":  # rounding decides if centres are on edges
        extra["nearest_mode"], where = "floor", "asymmetric"
    name = net.add("Resize", y.name, *inputs, mode=mode, coordinate_transformation_mode=where, **extra)
    return net.conv(Value(name=name, channels=y.channels, height=target[0], width=target[1]), last)


@block(
    mode=("constant", "reflect", "edge"),
    value=(None, 0.0, 0.8),
    act=ACTIVATIONS,
    plan=PLANS,
)
def pad(net: Network, x: Value, *, mode: str, value: float | None, act: str, plan: str) -> Value:
    if plan == "dead" and net.random.integers(2):
        mode, value = "constant", 0.8
    nonzero = mode == "constant" and value == 0.8
    if plan == "dead" and nonzero:
        first, last = around(net, x, "padding", NOTHING, kept=True)
        dead = net.some(len(first.weight))
        first.kill("dead before padding that is not zero", dead)
    else:
        first, last = around(net, x, "padding", plan, kept=mode != "constant")
        dead = []
    y = activate(net, net.conv(x, first), act)
    mode = mode if min(y.height, y.width) > 2 else "edge"
    inputs = [y.name, net.integers(0, 0, 1, 2, 0, 0, 2, 1)]
    if mode == "constant" and value is not None:
        inputs.append(net.constant(np.array(value, np.float32)))
    y = Value(name=net.add("Pad", *inputs, mode=mode), channels=y.channels, height=y.height + 3, width=y.width + 3)
    if nonzero:
        net.trap("trap: dead before padding that is not zero", y, dead)
    return net.conv(y, last, stride=2 if min(y.height, y.width) > 8 else 1)


@block(amount=(1, -1), plan=(NOTHING, "dead under channel padding"))
def channel_pad(net: Network, x: Value, *, amount: int, plan: str) -> Value:
    """A Pad node that adds dead channels at the front and the back, or removes the first channel."""
    first = net.filters(x.channels, net.width())
    if plan != NOTHING:
        first.kill(plan, net.some(len(first.weight)))
    y = net.conv(x, first)
    name = net.add("Pad", y.name, net.integers(0, amount, 0, 0, 0, max(amount, 0), 0, 0), mode="constant")
    net.hidden = True
    channels = y.channels + amount + max(amount, 0)
    y = Value(name=name, channels=channels, height=y.height, width=y.width)
    return net.conv(y, net.filters(channels, net.base))
