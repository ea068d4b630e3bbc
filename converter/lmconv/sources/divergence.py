"""Names the part of a source network that its exported graph computes differently."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmconv.inference.probe import OrtProbe
from lmconv.types import Float32

if TYPE_CHECKING:
    import onnx
    import torch

    from lmconv.sources.onnx_files.source import OnnxSource
    from lmconv.sources.pytorch import TorchSource

FIRST = 1 / 3
"""Smallest difference of the first part, fractions of the largest difference of any part."""
FOLDED = 1e3
"""Ratio to the difference of the outputs beyond which two values are not comparable: the exporter folded a neighbour
into the layer."""


def first_divergence(
    model: onnx.ModelProto, modules: Mapping[str, str], session: TorchSource | OnnxSource, images: Float32
) -> str:
    """Compares values inside a source network with the values of the exported graph.

    For PyTorch the values are the outputs of all layers. An exporter may fold a layer into another one: the value of a
    layer is compared with the closest output of any layer. For an ONNX file values of equal name are compared.

    Args:
        model: The exported graph.
        modules: Path of the module that computes each value, by name.
        session: The opened source network.
        images: (n, 3, H, W) float32 network inputs.

    Returns:
        The first layer or node that differs, in the order of the graph: name, kind, shape and difference. Empty if
        none can be named: an operation between the layers may differ, or the source cannot be read inside.
    """
    try:
        parts = _layers(model, modules, session, images) if modules else _nodes(model, session, images)
        expected = session.run({"input": images})
        result = OrtProbe(model).run({"input": images}, list(expected))
    except Exception:  # a refusal matters more than its explanation
        return ""
    outside = FOLDED * max(_relative(result[name], expected[name]) for name in expected)
    parts = [(text, relative) for text, relative in parts if relative < outside]
    largest = max((relative for _, relative in parts), default=0.0)
    return next((text for text, relative in parts if relative > 0 and relative >= FIRST * largest), "")


def _layers(
    model: onnx.ModelProto, modules: Mapping[str, str], session: Any, images: Float32
) -> list[tuple[str, float]]:
    """Returns a description and the relative difference of each layer that computes the last value of a module."""
    computed = _layer_outputs(session, images)
    last = {modules[name]: name for node in model.graph.node for name in node.output if modules.get(name) in computed}
    values = OrtProbe(model).run({"input": images}, list(last.values()))
    parts = []
    for path, name in last.items():
        kind = type(session.network.net.get_submodule(path)).__name__
        closest = min(computed.values(), key=lambda output: _relative(values[name], output))
        parts.append(_part(f"{path} ({kind})", values[name], closest))
    return parts


def _layer_outputs(session: Any, images: Float32) -> dict[str, NDArray[Any]]:
    """Runs the network; returns the output of each layer that runs once, by the path of the module."""
    import torch

    outputs: dict[str, list[NDArray[Any]]] = {}

    def keep(path: str) -> Any:
        def hook(module: torch.nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.is_floating_point():
                outputs.setdefault(path, []).append(output.detach().float().numpy().copy())

        return hook

    layers = [(path, layer) for path, layer in session.network.net.named_modules() if not any(layer.children())]
    handles = [layer.register_forward_hook(keep(path)) for path, layer in layers if path]
    try:
        session.run({"input": images})
    finally:
        for handle in handles:
            handle.remove()
    return {path: each[0] for path, each in outputs.items() if len(each) == 1}


def _nodes(model: onnx.ModelProto, session: Any, images: Float32) -> list[tuple[str, float]]:
    """Returns a description and the relative difference of each value that an ONNX file and its graph both name."""
    import onnx

    from lmconv.sources.onnx_files.original import Original
    from lmconv.sources.onnx_files.reading import load_onnx, path_of

    probe = OrtProbe(model)
    original = load_onnx(path_of(session.source))
    known = {value.name for value in original.graph.output}
    computed = {name: node for node in original.graph.node for name in node.output if name in probe.names}
    original.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed if name not in known)
    with tempfile.TemporaryDirectory() as place:
        onnx.save(original, path := Path(place) / "model.onnx")
        expected = Original(path, original, size=session.source.spec.input_size).run(images)
    names = [name for name in computed if name in expected]
    values = probe.run({"input": images}, names)
    return [_part(f"{name} ({computed[name].op_type})", values[name], expected[name]) for name in names]


def _part(name: str, value: NDArray[Any], expected: NDArray[Any]) -> tuple[str, float]:
    relative = _relative(value, expected)
    largest = np.abs(expected).max(initial=0.0)
    off = f"{relative * largest:.2g} off of values up to {largest:.3g}" if np.isfinite(relative) else "another shape"
    return f"{name} {list(expected.shape)}: {off}", relative


def _relative(value: NDArray[Any], expected: NDArray[Any]) -> float:
    """Returns the largest difference, fractions of the largest number; infinite for other shapes."""
    if value.shape != expected.shape or not np.issubdtype(expected.dtype, np.floating):
        return np.inf
    largest = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
    return float(np.abs(value.astype(np.float64) - expected).max(initial=0.0)) / largest
