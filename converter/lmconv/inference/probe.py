"""ONNX graphs on ONNX Runtime whose intermediate values can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from lmconv.graph.execution import from_runtime, to_runtime
from lmconv.graph.facts import copied
from lmconv.inference.ort import OrtSession
from lmconv.types import Arrays


class OrtProbe:
    """A `Probe` on ONNX Runtime's CPU provider.

    Args:
        model: The model, or its file.
    """

    def __init__(self, model: onnx.ModelProto | Path) -> None:
        self._model = onnx.load(model) if isinstance(model, Path) else model
        self.names = frozenset(name for node in self._model.graph.node for name in node.output if name)

    def run(self, inputs: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Probe`."""
        model = copied(self._model)
        known = {value.name for value in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        with OrtSession(model.SerializeToString()) as session:
            results = session.run(inputs)
        return {name: results[name] for name in names}


def computed(model: onnx.ModelProto, names: Sequence[str], inputs: Arrays) -> dict[str, Any]:
    """Computes values of a graph in ONNX Runtime, node by node as the graph is written: nothing is fused.

    Args:
        model: The graph; not changed.
        names: Names of the values; other outputs of the graph are not computed.
        inputs: Inputs of the graph by name.

    Returns:
        The values by name; a value that numpy does not have, such as a sequence, is a value of ONNX Runtime.
    """
    import onnxruntime as ort

    copy = copied(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = session.run_with_ort_values(names, {name: to_runtime(value) for name, value in inputs.items()})
    return {name: from_runtime(value) for name, value in zip(names, results, strict=True)}
