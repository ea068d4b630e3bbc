"""Squeeze-and-excitation blocks, in the forms that exporters write."""

from __future__ import annotations

from tests.generated.activations import ACTIVATIONS, activate
from tests.generated.network import Filters, Network, Value
from tests.generated.registry import NOTHING, block


@block(
    act=ACTIVATIONS,
    form=("gemm", "conv"),
    pool=("GlobalAveragePool", "ReduceMean", "ReduceMean flat"),
    closed=("HardSigmoid", "Sigmoid"),
    plan=(
        NOTHING,
        "gate of a dead channel",
        "closed gate",
        "constant gate",
        "dead squeeze",
        "unread and ungated",
        "trap: read by the gate only",
    ),
)
def gate(net: Network, x: Value, *, act: str, form: str, pool: str, closed: str, plan: str) -> Value:
    """A squeeze-and-excitation block."""
    source = net.filters(x.channels, net.width())
    channels = len(source.weight)
    kernel: int | tuple[()] = 1 if form == "conv" and pool != "ReduceMean flat" else ()
    squeeze, excite = net.filters(channels, 4, kernel), net.filters(4, channels, kernel)
    last = net.filters(channels, net.base)
    dead = net.some(channels)
    if plan == "gate of a dead channel":
        source.kill(plan, dead)
        excite.plant(plan, dead)
    elif plan == "closed gate":
        closed = "HardSigmoid"  # is exactly 0 at -10
        excite.kill(plan, dead, -10)
        squeeze.ignore(dead)
        source.plant("behind a closed gate", dead)
    elif plan == "constant gate":
        excite.kill(plan, dead, 0.4)
    elif plan == "dead squeeze":
        squeeze.kill(plan, [1], net.value())
    elif plan == "unread and ungated":
        last.ignore(dead)
        squeeze.ignore(dead)
        source.plant(plan, dead)
        excite.plant("gate of an unread channel", dead)
    elif plan.startswith("trap"):
        last.ignore(dead)
        source.trap(plan, dead)
        excite.plant("gate of an unread channel", dead)
    y = activate(net, net.conv(x, source), "Relu")
    weights = net.add(closed, _excited(net, y, squeeze, excite, pool, act))
    y = y.named(net.add("Mul", *[y.name, weights][:: int(net.random.choice([1, -1]))]))
    return net.conv(y, last)


def _excited(net: Network, y: Value, squeeze: Filters, excite: Filters, pool: str, act: str) -> str:
    """Weights of the channels before the sigmoid: (N, C, 1, 1)."""
    if squeeze.weight.ndim == 4:
        pooled = net.add("GlobalAveragePool", y.name) if pool == "GlobalAveragePool" else _mean(net, y, keep=1)
        hidden = net.conv(Value(name=pooled, channels=y.channels, height=1, width=1), squeeze)
        return net.conv(activate(net, hidden, act if act != "PRelu" else "Relu"), excite).name
    if pool == "GlobalAveragePool":
        flat = net.add("Flatten", net.add("GlobalAveragePool", y.name))
    elif pool == "ReduceMean":
        flat = net.add("Squeeze", _mean(net, y, keep=1), net.integers(2, 3))
    else:
        flat = _mean(net, y, keep=0)
    hidden = Value(name=net.linear(flat, squeeze), channels=4, height=1, width=1)
    act = "Relu" if act.startswith("PRelu") else act
    excited = net.linear(activate(net, hidden, act).name, excite, "MatMul" if net.random.integers(2) else "Gemm transB")
    if net.random.integers(2):
        return net.add("Unsqueeze", excited, net.integers(2, 3))
    return net.add("Reshape", excited, net.integers(-1, y.channels, 1, 1))


def _mean(net: Network, y: Value, keep: int) -> str:
    axes = net.integers(-2, -1) if net.random.integers(2) else net.integers(2, 3)
    return net.add("ReduceMean", y.name, axes, keepdims=keep)
