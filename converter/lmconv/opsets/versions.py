"""Opsets of a model, and the unused and second names of domains."""

from __future__ import annotations

import onnx

from lmconv.errors import first_line
from lmconv.graph import naming

STANDARD = ("", "ai.onnx")
"""Both names of the domain of standard operators."""


def opset_of(model: onnx.ModelProto) -> int:
    """Returns the version of the standard operators that a model imports; 1 without an import."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=1)


def set_opset(model: onnx.ModelProto, opset: int) -> None:
    """Declares another version of the standard operators; the nodes stay as they are."""
    for entry in model.opset_import:
        entry.version = opset if entry.domain in STANDARD else entry.version


def tidy_domains(model: onnx.ModelProto) -> None:
    """Removes imports of domains that no node uses, and replaces the long name of the standard domain."""
    used = {""}
    for graph in naming.graphs(model.graph):
        for node in graph.node:
            if node.domain in STANDARD:
                node.ClearField("domain")
            used.add(node.domain)
    opset = opset_of(model)
    kept = [onnx.helper.make_opsetid("", opset)]
    kept += [entry for entry in model.opset_import if entry.domain in used and entry.domain not in STANDARD]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def label(node: onnx.NodeProto) -> str:
    """Returns the name of a node and its operator, for messages."""
    op = f"{node.domain}.{node.op_type}" if node.domain not in STANDARD else node.op_type
    return f"node {node.name or next(filter(None, node.output), '?')} ({op})"


def reason(error: Exception) -> str:
    """Returns the first line of an error of ONNX's converter or inliner, without the place in their source."""
    return first_line(error).rpartition("failed: ")[2]
