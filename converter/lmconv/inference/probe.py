"""ONNX graphs on ONNX Runtime whose intermediate values can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

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
