"""Blocks whose tensors have several writers or readers: residual sums, stages, forks, constants per channel."""

from __future__ import annotations

import numpy as np
from tests.generated.activations import ACTIVATIONS, NOT_AT_ZERO, activate
from tests.generated.network import Network, Value
from tests.generated.registry import NOTHING, block


def total(net: Network, form: str, *values: Value) -> Value:
    """Adds values: in one `Sum` node, or in a chain of `Add` nodes."""
    names = [value.name for value in values]
    if form == "Sum":
        return values[0].named(net.add("Sum", *names))
    while len(names) > 1:
        names = [net.add("Add", *names[:2]), *names[2:]]
    return values[0].named(names[0])


@block(
    act=ACTIVATIONS,
    form=("Add", "Sum"),
    writers=(2, 3),
    after=ACTIVATIONS,
    plan=(
        NOTHING,
        "dead branch",
        "constant branch",
        "dead in every writer",
        "constant in every writer",
        "sum that nobody reads",
        "trap: one live writer",
        "trap: constant in one writer",
    ),
)
def residual(net: Network, x: Value, *, act: str, form: str, writers: int, after: str, plan: str) -> Value:
    base = net.filters(x.channels, net.width(), 1)
    channels = len(base.weight)
    one, two = net.filters(channels, net.base), net.filters(net.base, channels)
    third = net.filters(x.channels, channels)
    last = net.filters(channels, channels, 1)
    dead = net.some(channels)
    if plan in ("dead branch", "constant branch"):
        value = 0.0 if plan == "dead branch" else net.value()
        two.kill(plan, range(channels), value)
        one.plant(f"behind a {plan}", range(len(one.weight)))
    elif plan.endswith("every writer"):
        value = 0.0 if plan.startswith("dead") else net.value()
        for writer in (base, two, third)[:writers]:
            writer.kill(plan, dead, value)
    elif plan.startswith("sum"):
        last.ignore(dead)
        one.ignore(dead)
        for writer in (base, two, third)[:writers]:
            writer.plant(plan, dead)
    elif plan == "trap: one live writer":
        two.kill("dead in one writer", dead)
    elif plan == "trap: constant in one writer":
        two.kill("constant in one writer", dead, net.value())
    start = net.conv(x, base)
    branch = net.conv(activate(net, net.conv(start, one), act), two)
    extra = [net.conv(x, third)] if writers == 3 else []
    y = total(net, form, start, branch, *extra)
    if plan.startswith("trap"):
        net.trap(plan, y, dead)
    return net.conv(activate(net, y, after), last)


@block(
    act=ACTIVATIONS,
    stages=(2, 3),
    form=("Add", "Sum"),
    plan=(NOTHING, "cycle that nobody reads", "zero through stages", "trap: live in the last stage"),
)
def stages(net: Network, x: Value, *, act: str, stages: int, form: str, plan: str) -> Value:
    """A stage of residual blocks on one tensor; a channel may feed only itself through all blocks."""
    base, last = net.filters(x.channels, net.base), net.filters(net.base, net.base, 1)
    inner = [(net.filters(net.base, net.base), net.filters(net.base, net.base)) for _ in range(stages)]
    (c, d) = (int(i) for i in net.random.choice(net.base, 2, replace=False))
    if plan == "zero through stages" and act in NOT_AT_ZERO:
        act = "Relu"
    others = [channel for channel in range(net.base) if channel not in (c, d)]
    if plan.startswith("cycle"):
        base.plant(plan, [c])
        last.ignore([c])
        for one, two in inner:
            one.weight[[*others, c], c] = 0
            two.weight[[*others, d], d] = 0
            one.plant(plan, [d])
            two.plant(plan, [c])
    elif plan.startswith("zero"):
        base.kill(plan, [c])
        for one, two in inner:
            one.only(d, c)
            two.only(c, d)
            one.plant(plan, [d])
            two.plant(plan, [c])
    elif plan.startswith("trap"):
        base.kill("dead in one writer", [c])
        for _, two in inner[:-1]:
            two.kill("dead in one writer", [c])
    y = net.conv(x, base)
    for one, two in inner:
        y = total(net, form, y, net.conv(activate(net, net.conv(y, one), act), two))
    if plan.startswith("trap"):
        net.trap(plan, y, [c])
    return net.conv(y, last)


@block(
    act=ACTIVATIONS,
    second=("conv", "conv of another size", "pooled", "output"),
    plan=(NOTHING, "unread by both", "trap: unread by one", "trap: huge and unread by one"),
)
def fork(net: Network, x: Value, *, act: str, second: str, plan: str) -> Value:
    """A tensor with two readers."""
    source = net.filters(x.channels, net.width())
    channels = len(source.weight)
    one = net.filters(channels, net.base)
    other = net.filters(channels, net.base, 1 if second == "conv" else 3)
    dead = net.some(channels)
    if plan != NOTHING:
        one.ignore(dead)
        if second == "output":
            source.trap("trap: read as an output", dead)
        elif plan == "unread by both":
            other.ignore(dead)
            source.plant(plan, dead)
        else:
            source.trap(plan, dead)
    if plan.startswith("trap: huge"):
        source.weight[dead] *= 1e4
        other.weight[:, dead] *= 1e-3
    y = activate(net, net.conv(x, source), "LeakyRelu" if plan.startswith("trap: huge") else act)
    first = net.conv(y, one)
    if second == "output":
        net.output(y)
        return first
    if second == "pooled":
        pooled = Value(name=net.add("GlobalAveragePool", y.name), channels=channels, height=1, width=1)
        return first.named(net.add("Add", net.conv(pooled, other).name, first.name))
    return total(net, "Add", first, net.conv(y, other))


@block(
    form=("Mul", "Add", "Sub", "Sub from", "Div", "Max"),
    shape=("(C, 1, 1)", "(1, C, 1, 1)", "scalar", "(1, 1, H, W)", "(C, H, W)"),
    plan=(NOTHING, "scaled by zero", "dead before a constant", "trap: dead before a map"),
)
def scale(net: Network, x: Value, *, form: str, shape: str, plan: str) -> Value:
    """Arithmetic with a constant between two convolutions."""
    source = net.filters(x.channels, net.width())
    last = net.filters(len(source.weight), net.base, 1)
    dead = net.some(len(source.weight))
    if plan == "scaled by zero":
        source.plant(plan, dead)
        form, shape = "Mul", shape if "C" in shape else "(C, 1, 1)"
    elif plan == "dead before a constant":
        source.kill(plan, dead)
        form = form if form != "Div" else "Mul"
    elif plan.startswith("trap"):
        form, shape = "Add", "(C, H, W)"
        source.kill("dead before a map", dead)
    y = net.conv(x, source)
    sizes = {"C": y.channels, "H": y.height, "W": y.width, "1": 1}
    dims = [] if shape == "scalar" else [sizes[axis] for axis in shape.strip("()").split(", ")]
    values = np.asarray(net.normal(*dims), np.float32)
    if form == "Div":
        values = np.asarray(np.abs(values) + 0.5, np.float32)
    if plan == "scaled by zero":
        values[_channels(shape, dead)] = 0
    names = [y.name, net.constant(values)]
    y = y.named(net.add(form.split()[0], *(reversed(names) if form == "Sub from" else names)))
    if plan.startswith("trap"):
        net.trap(plan, y, dead)
    return net.conv(y, last)


def _channels(shape: str, dead: list[int]) -> tuple[slice | list[int], ...]:
    return (slice(None), dead) if shape.startswith("(1, C") else (dead,)


@block(
    form=("Mul", "Add", "Max", "Min"),
    act=("Sigmoid", "Relu", "Tanh"),
    plan=(NOTHING, "constant attention", "trap: dead beside another"),
)
def attention(net: Network, x: Value, *, form: str, act: str, plan: str) -> Value:
    """A map (N, 1, H, W) that is combined with every channel; or the maximum or minimum of two tensors."""
    source, last = net.filters(x.channels, net.base), net.filters(net.base, net.base, 1)
    wide = plan.startswith("trap")
    beside = net.filters(x.channels, net.base if wide else 1, 1)
    dead = net.some(net.base)
    if plan == "constant attention":
        beside.kill(plan, [0], net.value())
    elif wide:
        form = "Max" if form in ("Mul", "Add") else form
        source.kill("dead beside another", dead)
        beside.bias[dead] += 0.5 if form == "Max" else -0.5
    y, other = net.conv(x, source), net.conv(x, beside)
    names = [y.name, other.name if wide else activate(net, other, act).name]
    y = y.named(net.add(form, *names[:: int(net.random.choice([1, -1]))]))
    if wide:
        net.trap(plan, y, dead)
    return net.conv(y, last)
