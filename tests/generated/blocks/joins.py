"""Blocks that move channels: concatenations, splits, shuffles."""

from __future__ import annotations

import numpy as np
from tests.generated.activations import ACTIVATIONS, activate
from tests.generated.network import Network, Value
from tests.generated.registry import NOTHING, block


@block(
    act=ACTIVATIONS,
    branches=(2, 3),
    axis=(1, -3),
    padding=("zero", "none"),
    plan=(NOTHING, "dead in a branch", "constant in a branch", "slice that nobody reads", "whole branch unread"),
)
def concat(net: Network, x: Value, *, act: str, branches: int, axis: int, padding: str, plan: str) -> Value:
    parts = [net.filters(x.channels, 4 * int(net.random.integers(1, 3)), 1 + 2 * (i % 2)) for i in range(branches)]
    sizes = [len(part.weight) for part in parts]
    last = net.filters(sum(sizes), net.base)
    which = int(net.random.integers(branches))
    dead = net.some(sizes[which])
    if plan == "dead in a branch":
        parts[which].kill(plan, dead)
    elif plan == "constant in a branch":
        parts[which].kill(plan, dead, net.value())
        if padding == "zero":
            parts[which].trap("trap: constant before padding", dead)
    elif plan.endswith(("reads", "unread")):
        dead = dead if plan.endswith("reads") else list(range(sizes[which]))
        last.ignore([sum(sizes[:which]) + channel for channel in dead])
        parts[which].plant(plan, dead)
    outputs = [activate(net, net.conv(x, part), act) for part in parts]
    return net.conv(_joined(net, outputs, axis), last, padding=padding)


@block(axis=(1, -3), times=(2, 3), plan=(NOTHING, "unread at every place", "dead at every place", "trap: one place"))
def twice(net: Network, x: Value, *, axis: int, times: int, plan: str) -> Value:
    """A concatenation that contains one tensor several times."""
    source = net.filters(x.channels, net.width())
    count = len(source.weight)
    last = net.filters(count * times, net.base)
    dead = net.some(count)
    if plan == "dead at every place":
        source.kill(plan, dead)
    elif plan != NOTHING:
        places = range(times) if plan.startswith("unread") else range(1, times)
        last.ignore([place * count + channel for place in places for channel in dead])
        note = source.trap if plan.startswith("trap") else source.plant
        note(plan, dead)
    return net.conv(_joined(net, [net.conv(x, source)] * times, axis), last)


def _joined(net: Network, parts: list[Value], axis: int) -> Value:
    name = net.add("Concat", *(part.name for part in parts), axis=axis)
    channels = sum(part.channels for part in parts)
    return Value(name=name, channels=channels, height=parts[0].height, width=parts[0].width)


@block(
    form=("Split", "Split unequal", "Slice", "Gather"),
    act=ACTIVATIONS,
    plan=(NOTHING, "dead before split", "unread piece", "dead in a piece", "trap: one live writer of a piece"),
)
def res2net(net: Network, x: Value, *, form: str, act: str, plan: str) -> Value:
    """A Res2Net block: splits channels, convolves each piece plus the previous result, concatenates the results."""
    size = 4
    first = net.filters(x.channels, 4 * size)
    inner = [net.filters(size, size) for _ in range(2)]
    last = net.filters(4 * size, net.base, 1)
    c = int(net.random.integers(size))
    if plan == "dead before split":
        first.kill(plan, net.some(4 * size))
    elif plan == "unread piece":
        first.plant(plan, range(3 * size, 4 * size))
        last = net.filters(3 * size, net.base, 1)
    elif plan == "dead in a piece":  # in both operands of the sum
        first.kill(plan, [2 * size + c])
        inner[0].kill(plan, [c])
    elif plan.startswith("trap"):
        inner[0].kill("dead in one writer", [c])
    y = activate(net, net.conv(x, first), "Relu" if plan == "dead in a piece" else act)
    pieces = pieces_of(net, y, [size] * 4 if form != "Split unequal" else [size, 3 * size], form)
    if form == "Split unequal":
        pieces = [pieces[0], *pieces_of(net, pieces[1], [size] * 3, "Slice")]
    one = net.conv(pieces[1], inner[0])
    both = one.named(net.add("Add", one.name, pieces[2].name))
    if plan.startswith("trap"):
        net.trap(plan, both, [c])
    parts = [pieces[0], one, net.conv(both, inner[1]), pieces[3]]
    return net.conv(_joined(net, parts[:3] if plan == "unread piece" else parts, 1), last)


def pieces_of(net: Network, x: Value, sizes: list[int], form: str) -> list[Value]:
    """Cuts the channels into pieces: with one Split, or with one Slice or Gather per piece."""
    ends = np.cumsum(sizes).tolist()
    starts = [end - size for end, size in zip(ends, sizes, strict=True)]
    if form.startswith("Split"):
        names = [f"piece_{len(net.nodes)}_{i}" for i in range(len(sizes))]
        if form == "Split" and net.random.integers(2):
            net.add("Split", x.name, outputs=names, axis=1, num_outputs=len(sizes))
        else:
            net.add("Split", x.name, net.integers(*sizes), outputs=names, axis=int(net.random.choice([1, -3])))
    elif form == "Slice":
        names = [_slice(net, x, start, end) for start, end in zip(starts, ends, strict=True)]
    else:
        chosen = [net.integers(*range(start, end)) for start, end in zip(starts, ends, strict=True)]
        names = [net.add("Gather", x.name, indices, axis=1) for indices in chosen]
    return [
        Value(name=name, channels=size, height=x.height, width=x.width) for name, size in zip(names, sizes, strict=True)
    ]


def _slice(net: Network, x: Value, start: int, end: int) -> str:
    """Slices one piece; sometimes with negative bounds and axes."""
    last = 2**63 - 1 if end == x.channels and net.random.integers(2) else end
    if net.random.integers(2):
        start -= x.channels
    return net.add("Slice", x.name, *(net.integers(n) for n in (start, last, int(net.random.choice([1, -3])))))


@block(form=("every second", "backwards", "some"), act=ACTIVATIONS, plan=(NOTHING, "not picked", "dead before a pick"))
def picked(net: Network, x: Value, *, form: str, act: str, plan: str) -> Value:
    """A selection of channels in another order."""
    source = net.filters(x.channels, net.width())
    count = len(source.weight)
    order = {"every second": range(0, count, 2), "backwards": range(count - 1, -1, -1), "some": range(count // 2)}
    picks = list(order[form])
    if form == "some":
        picks = [int(channel) for channel in net.random.permutation(count)[: count // 2]]
    unread = [channel for channel in range(count) if channel not in picks]
    if plan == "dead before a pick":
        source.kill(plan, net.some(count))
    source.plant("not picked", unread)
    y = activate(net, net.conv(x, source), act)
    if form == "some":
        name = net.add("Gather", y.name, net.integers(*picks), axis=1)
    else:
        bounds = (0, count, 1, 2) if form == "every second" else (-1, -(2**63) + 1, 1, -1)
        name = net.add("Slice", y.name, *(net.integers(n) for n in bounds))
    return net.conv(Value(name=name, channels=len(picks), height=y.height, width=y.width), net.filters(len(picks), 8))


@block(groups=(2, 4), act=ACTIVATIONS, plan=(NOTHING, "dead before a shuffle", "unread after a shuffle"))
def shuffle(net: Network, x: Value, *, groups: int, act: str, plan: str) -> Value:
    """A channel shuffle (Reshape, Transpose, Reshape): channel i moves to i % per * groups + i // per."""
    source = net.filters(x.channels, net.width())
    count = len(source.weight)
    per = count // groups
    last = net.filters(count, net.base, 1)
    dead = net.some(count)
    if plan == "dead before a shuffle":
        source.kill(plan, dead)
    elif plan == "unread after a shuffle":
        last.ignore([channel % per * groups + channel // per for channel in dead])
        net.hidden = True
    y = activate(net, net.conv(x, source), act)
    split = net.add("Reshape", y.name, net.integers(-1, groups, per, y.height, y.width))
    mixed = net.add("Transpose", split, perm=[0, 2, 1, 3, 4])
    return net.conv(y.named(net.add("Reshape", mixed, net.integers(-1, count, y.height, y.width))), last)
