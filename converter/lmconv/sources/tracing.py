"""PyTorch's exporter: a module with its weights becomes an ONNX graph, and every node keeps its module."""

from __future__ import annotations

import ast
import io
import logging
import warnings
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from lmconv.errors import Bug
from lmconv.graph import naming
from lmconv.networks.heads import head_of
from lmconv.sources import usercode
from lmconv.types import OPSET, Source

if TYPE_CHECKING:
    import onnx
    import torch

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata key under which the exporter writes the module path of a node."""


def traced(source: Source, network: torch.nn.Module) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Exports a PyTorch network, see `lmconv.sources.export.export`."""
    model = _dynamo(source, network)
    if model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value"):
        raise Bug(f"the exporter fixed the batch size of {source.spec.name}")
    modules = _modules(model)
    naming.strip(model)
    _unwrap(model.graph)
    head_of(source.spec).finish_traced(model)
    return model, modules


def _dynamo(source: Source, network: torch.nn.Module) -> onnx.ModelProto:
    import torch

    spec, dim = source.spec, torch.export.Dim
    height, width = spec.input_size
    free = {0: dim("N")}
    if spec.sample:  # tracing at another size than the comparison reveals a size that is fixed in the graph
        height, width = height - 13, width - 21
        free |= {2: dim("H"), 3: dim("W")}
    for name in ("torch.onnx", "torch.fx", "torch.export"):  # long warnings about torchvision and raised errors
        logging.getLogger(name).setLevel(logging.CRITICAL)
    hint, theirs = "PyTorch's exporter cannot trace it; -v shows its traceback", usercode.foreign(source)
    with (
        usercode.theirs(theirs, hint=hint) if theirs else nullcontext(),
        redirect_stdout(io.StringIO()),  # a failing exporter prints whole graphs
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        torch.inference_mode(),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, height, width),),  # the exporter treats sizes 0 and 1 as constants
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=["input"],
            output_names=list(head_of(spec).traced_outputs),
            dynamic_shapes=(free,),
            verbose=False,
        )
    if program is None:
        raise Bug("torch.onnx.export gave nothing")
    model: onnx.ModelProto = program.model_proto
    return model


def _modules(model: onnx.ModelProto) -> dict[str, str]:
    table = {}
    for node in model.graph.node:
        scopes: list[str] = next(
            (ast.literal_eval(entry.value) for entry in node.metadata_props if entry.key == SCOPES), []
        )
        path = scopes[-2].removeprefix("net").removeprefix(".") if len(scopes) > 1 else ""
        weights = node.input[1] if len(node.input) > 1 else ""
        if weights.startswith("net.") and weights.endswith(".weight"):
            # The exporter folded a BatchNorm into this layer, and names the BatchNorm.
            path = weights.removeprefix("net.").removesuffix(".weight")
        table.update({output: path for output in node.output if path})
    return table


def _unwrap(graph: onnx.GraphProto) -> None:
    """Removes the wrapper's `net.` from the names of weights."""
    for tensor in graph.initializer:
        tensor.name = tensor.name.removeprefix("net.")
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = name.removeprefix("net.")
