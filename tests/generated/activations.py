"""Activation functions of face networks, and a few other activation functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tests.generated.network import Network, Value

from lmconv.types import Float32


def _scalar(value: float) -> Float32:
    return np.array(value, np.float32)


def _per_channel(net: Network, x: Value) -> str:
    return net.add("PRelu", x.name, net.constant(np.abs(net.normal(x.channels, 1, 1, scale=0.3))))


def _where(net: Network, x: Value) -> str:
    positive = net.add("Greater", x.name, net.constant(_scalar(0)))
    return net.add("Where", positive, x.name, net.add("Mul", x.name, net.constant(_scalar(0.2))))


WRITERS: dict[str, Callable[[Network, Value], str]] = {
    "Relu": lambda net, x: net.add("Relu", x.name),
    "PRelu": _per_channel,
    "PRelu shared": lambda net, x: net.add("PRelu", x.name, net.constant(np.array([0.2], np.float32))),
    "PRelu scalar": lambda net, x: net.add("PRelu", x.name, net.constant(np.full((1, 1, 1), 0.2, np.float32))),
    "LeakyRelu": lambda net, x: net.add("LeakyRelu", x.name, alpha=0.1),
    "Relu6": lambda net, x: net.add("Clip", x.name, net.constant(_scalar(0)), net.constant(_scalar(6))),
    "Clip above": lambda net, x: net.add("Clip", x.name, "", net.constant(_scalar(4))),
    "Clip positive": lambda net, x: net.add("Clip", x.name, net.constant(_scalar(0.1))),
    "Sigmoid": lambda net, x: net.add("Sigmoid", x.name),
    "HardSigmoid": lambda net, x: net.add("HardSigmoid", x.name, alpha=0.2, beta=0.5),
    "HardSwish": lambda net, x: net.add("HardSwish", x.name),
    "SiLU": lambda net, x: net.add("Mul", x.name, net.add("Sigmoid", x.name)),
    "Tanh": lambda net, x: net.add("Tanh", x.name),
    "Elu": lambda net, x: net.add("Elu", x.name, alpha=0.7),
    "Softplus": lambda net, x: net.add("Softplus", x.name),
    "Where": _where,
    "Identity": lambda net, x: net.add("Identity", x.name),
    "none": lambda net, x: x.name,
}
ACTIVATIONS = tuple(WRITERS)
NOT_AT_ZERO = {"Clip positive", "Sigmoid", "HardSigmoid", "Softplus"}
"""Activation functions whose value at 0 is not 0."""


def activate(net: Network, x: Value, kind: str) -> Value:
    """Adds an activation function to the network."""
    net.features.add(f"activation {kind}")
    return x.named(WRITERS[kind](net, x))
