"""Folds constants and shape arithmetic and fuses BatchNorm, by onnxsim. Exact up to reassociation."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import onnx

from lmconv.errors import first_line
from lmconv.graph.constants import lift_constants
from lmconv.types import Json, Pass, PassContext


def simplify(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
    """Simplifies the graph. The check of onnxsim is off, because every pass is compared with its input anyway.

    If onnxsim fails on a construct, constants are folded alone, and the decisions have the error as `onnxsim`.
    """
    with _hidden("torch"):
        import onnxsim

    nodes, decisions = len(model.graph.node), {}
    lift_constants(model.graph)
    try:
        model, _ = onnxsim.simplify(model, check_n=0)
    except Exception as error:  # onnxsim raises types of its compiled module
        decisions = {"onnxsim": first_line(error)}
    del model.graph.value_info[:], model.metadata_props[:]
    lift_constants(model.graph)
    return model, {"nodes": [nodes, len(model.graph.node)], **decisions}


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Hides a package that is not imported yet: onnxsim imports PyTorch for a part that lmconv does not use."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


plugin = Pass(
    name="simplify",
    summary="constant folding, shape arithmetic, BatchNorm fusion (onnxsim)",
    apply=simplify,
    tolerance=1e-6,
)
