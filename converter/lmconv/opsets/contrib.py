"""Operators of `com.microsoft`, which ONNX Runtime's optimiser writes, as standard ONNX operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmconv.errors import InputError

if TYPE_CHECKING:
    import onnx

ACTIVATIONS = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""Activations that FusedConv can apply to its result, with the names of their parameters."""


FUSED = "com.microsoft.FusedConv"
"""Operator that ONNX Runtime's optimiser writes."""


def standard(model: onnx.ModelProto, label: str) -> onnx.ModelProto:
    """Returns the graph of an ONNX file in standard ONNX operators.

    FusedConv, which ONNX Runtime's optimiser writes, is split again into a convolution, a sum and an activation.

    Args:
        model: The model; may be changed.
        label: The file, for messages.

    Raises:
        InputError: The file has other operators that ONNX does not define; the message names the operators.
    """
    nodes = list(model.graph.node)
    foreign = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in ("", "ai.onnx")}
    if others := ", ".join(sorted(foreign - {FUSED})):
        hint = "export it without optimisation"
        raise InputError(f"{label} has operators that are not ONNX's: {others}", hint=hint)
    if foreign:
        del model.graph.node[:]
        for node in nodes:
            model.graph.node.extend(_unfused(model.graph, node) if node.domain == "com.microsoft" else [node])
        kept = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    return model


def _unfused(graph: onnx.GraphProto, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    from onnx import helper

    settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    activation = settings.pop("activation", b"").decode()
    activation_params = settings.pop("activation_params", [])
    out, sums = node.output[0], len(node.input) > 3
    value = f"{out}_convolved" if activation or sums else out
    yield helper.make_node("Conv", node.input[:3], [value], name=f"{out}_conv", **settings)
    if sums:
        before, value = value, f"{out}_summed" if activation else out
        yield helper.make_node("Add", [before, node.input[3]], [value], name=f"{out}_sum")
    if activation:
        yield _activation(graph, activation, activation_params, value, out)


def _activation(
    graph: onnx.GraphProto, kind: str, activation_params: Sequence[float], value: str, out: str
) -> onnx.NodeProto:
    from onnx import helper, numpy_helper

    named: dict[str, Any] = dict(zip(ACTIVATIONS[kind], activation_params, strict=False))
    if kind != "Clip":
        return helper.make_node(kind, [value], [out], name=out, **named)
    for name, limit in named.items():  # limits of Clip are inputs, not attributes
        graph.initializer.append(numpy_helper.from_array(np.array(limit, np.float32), f"{out}_{name}"))
    return helper.make_node("Clip", [value, *(f"{out}_{name}" for name in named)], [out], name=out)
