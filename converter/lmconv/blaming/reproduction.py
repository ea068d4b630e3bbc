"""Reproduction of one node: a model, its inputs and a short script, to be attached to a bug report of a runtime."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, shape_inference

from lmconv.blaming.deviations import Deviation, Sides
from lmconv.graph.index import reads
from lmconv.graph.naming import rename
from lmconv.inference.probe import OrtProbe
from lmconv.plugins import TARGETS
from lmconv.store.files import writing
from lmconv.types import Artifact

SCRIPT = '''"""{title}"""
import numpy, onnxruntime, os{imports}
os.chdir(os.path.dirname(os.path.abspath(__file__)))
model, inputs = "model.onnx", dict(numpy.load("inputs.npz"))
expected = onnxruntime.InferenceSession({expected}, providers=["CPUExecutionProvider"]).run(None, inputs)[0]
result = {call}[0]
print("expected", expected.ravel()[:4], "{target}", result.ravel()[:4], "off by", abs(result - expected).max())
'''
"""run.py: prints the result of ONNX Runtime for the network's node, and the result of the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """One node alone on its target.

    Attributes:
        path: Folder with model.onnx, inputs.npz and run.py; source.onnx holds the network's node if the artefact's
            node is another one.
        off: Largest absolute difference of the node alone; None if the node cannot run alone.
    """

    path: Path
    off: float | None


def reproduce(path: Path, sides: Sides, artifact: Artifact, found: Deviation, title: str) -> Reproduction:
    """Writes the reproduction of a node.

    Args:
        path: Folder to write; an older one is replaced.
        sides: The network and the artefact.
        artifact: The artefact.
        found: The node.
        title: Name of the node, for the script.
    """
    target = TARGETS.load(artifact.target)
    assert target.inside
    known = {name for name in sides.common() if name != found.name}
    part = _part(sides.graph, found.name, known)
    values = OrtProbe(sides.graph).run(sides.inputs, [name for name in part.reads if name not in sides.inputs])
    found_values = {name: np.asarray({**sides.inputs, **values}[name]) for name in part.reads}
    # ONNX Runtime returns NumPy's longlong, a type of its own, which OpenVINO refuses.
    inputs = {name: value.astype(value.dtype.name) for name, value in found_values.items()}
    network = part.model(inputs)
    own = _artefact_part(artifact, found.name, set(inputs))
    with writing(path):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        onnx.save(own.model(inputs) if own else network, path / "model.onnx")
        if own:
            onnx.save(network, path / "source.onnx")
        np.savez(path / "inputs.npz", **inputs)  # type: ignore[arg-type]  # the stubs confuse names with options
        imports = "" if target.inside.imports == "onnxruntime" else f", {target.inside.imports}"
        source = '"source.onnx"' if own else "model"
        script = SCRIPT.format(
            title=f"{title} on {artifact.target}",
            imports=imports,
            expected=source,
            call=target.inside.call,
            target=artifact.target,
        )
        (path / "run.py").write_text(script, encoding="utf-8")
    return Reproduction(path=path, off=_off(path, artifact, network, inputs, found.name))


def _off(
    path: Path, artifact: Artifact, network: onnx.ModelProto, inputs: dict[str, NDArray[Any]], name: str
) -> float | None:
    """Runs the node alone on its target; returns the largest absolute difference, None if the node cannot run."""
    inside = TARGETS.load(artifact.target).inside
    assert inside
    expected = OrtProbe(network).run(inputs, [name])[name].astype(np.float64)
    try:
        result = inside.open(path / "model.onnx", artifact.execution).run(inputs, [name])[name].astype(np.float64)
    except Exception:  # the runtime may know a node only as a part of a larger pattern
        return None
    return float(np.abs(result - expected).max()) if result.shape == expected.shape else None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a graph that computes one value.

    Attributes:
        graph: The whole graph.
        nodes: Nodes of the part, in order.
        reads: Values that the part reads from the rest of the graph.
        name: The value.
    """

    graph: onnx.ModelProto
    nodes: Sequence[onnx.NodeProto]
    reads: Sequence[str]
    name: str

    @cached_property
    def types(self) -> dict[str, int]:
        """Element types of the values of the whole graph, numbers of ONNX, by name."""
        inferred = shape_inference.infer_shapes(self.graph).graph
        return {value.name: value.type.tensor_type.elem_type for value in (*inferred.input, *inferred.value_info)}

    def model(self, inputs: dict[str, NDArray[Any]]) -> onnx.ModelProto:
        """Returns the part as a model, with the types and shapes of `inputs`."""
        used = {name for node in self.nodes for name in reads(node)}
        values = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(inputs[name].dtype), inputs[name].shape)
            for name in self.reads
        ]
        constants = [tensor for tensor in self.graph.graph.initializer if tensor.name in used]
        graph = helper.make_graph(self.nodes, "part", values, [onnx.ValueInfoProto(name=self.name)], constants)
        for value in graph.input:
            _cast(graph, value, self.types.get(value.name, 0))
        return helper.make_model(
            graph,
            opset_imports=list(self.graph.opset_import),
            functions=list(self.graph.functions),
            ir_version=self.graph.ir_version,
        )


def _cast(graph: onnx.GraphProto, value: onnx.ValueInfoProto, kind: int) -> None:
    """Puts a Cast behind an input if the nodes read another type, as the nodes of an fp16 artefact do."""
    if kind in (0, value.type.tensor_type.elem_type):
        return
    name = value.name
    rename(graph, name, f"{name}_cast")
    value.name = name
    graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}_cast"], to=kind))


def _part(graph: onnx.ModelProto, name: str, known: set[str]) -> Part:
    """Returns the nodes from known values, constants and inputs of the graph to a value."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    given = {value.name for value in graph.graph.input} - constants
    producers = {output: node for node in graph.graph.node for output in node.output}
    needed, ends, todo = set(), set(), [name]
    while todo:
        node = producers[todo.pop()]
        for read in reads(node) if id(node) not in needed else ():
            if read in known or read in given:
                ends.add(read)
            elif read in producers:
                todo.append(read)
        needed.add(id(node))
    nodes = [node for node in graph.graph.node if id(node) in needed]
    order = [*(value.name for value in graph.graph.input), *producers]
    return Part(graph=graph, nodes=nodes, reads=[each for each in order if each in ends], name=name)


def _artefact_part(artifact: Artifact, name: str, known: set[str]) -> Part | None:
    """Returns the artefact's own nodes for a value if the artefact is an ONNX file that reads the same values."""
    model = next((file for file in artifact.files if file.startswith("model.") and file.endswith(".onnx")), None)
    if model is None:
        return None
    part = _part(onnx.load(artifact.path / model), name, known)
    return part if set(part.reads) <= known else None
