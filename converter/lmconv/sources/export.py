"""Exports the source network to one ONNX graph, opset 18, `input` (N, 3, H, W) to `landmarks` (N, L, 2).

A detector keeps its raw outputs. A network for pictures of any size gives a graph for pictures of any size.
"""

from __future__ import annotations

import ast
import io
import logging
import warnings
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import numpy as np

from lmconv.errors import Bug, InputError, first_line
from lmconv.graph import naming
from lmconv.graph.facts import set_batch
from lmconv.networks.heads import head_of
from lmconv.opsets.contrib import standard
from lmconv.sources import usercode
from lmconv.sources.onnx_file import graph_inputs, load_source
from lmconv.sources.resolve import Opened, open_source
from lmconv.types import OPSET, ModelSpec, Source

if TYPE_CHECKING:
    import onnx
    import torch

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata key under which the exporter writes the module path of a node."""


def export(source: Source, session: Opened | None = None) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Exports a network without simplification.

    Args:
        source: The network.
        session: The opened network; by default the function opens the network.

    Returns:
        The model, with a free batch axis if the network allows a free batch, and the module table: from the name of a
        node's output to the path of the PyTorch module that computes the output (empty for an ONNX file).

    Raises:
        InputError: The network cannot be exported.
    """
    if session is None:
        with open_source(source) as session:
            return export(source, session)
    network = getattr(session, "network", None)
    model, modules = (_from_onnx(source), {}) if network is None else _from_torch(source, network)
    opset = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if opset != OPSET:
        raise Bug(f"the exporter gave opset {opset} for {source.spec.name} where {OPSET} was asked for")
    return model, modules


def _from_torch(source: Source, network: torch.nn.Module) -> tuple[onnx.ModelProto, dict[str, str]]:
    model = _dynamo(source, network)
    if model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value"):
        raise Bug(f"the exporter fixed the batch size of {source.spec.name}")
    modules = _modules(model)
    _strip(model)
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


def _strip(model: onnx.ModelProto) -> None:
    """Removes stack traces and paths of the exporting machine."""
    del model.metadata_props[:]
    model.doc_string = ""
    for graph in naming.graphs(model.graph):
        del graph.metadata_props[:], graph.value_info[:]
        graph.doc_string = ""
        for part in [*graph.node, *graph.initializer, *graph.input, *graph.output]:
            del part.metadata_props[:]
            part.doc_string = ""


def _unwrap(graph: onnx.GraphProto) -> None:
    """Removes the wrapper's `net.` from the names of weights."""
    for tensor in graph.initializer:
        tensor.name = tensor.name.removeprefix("net.")
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = name.removeprefix("net.")


def _from_onnx(source: Source) -> onnx.ModelProto:
    from onnx import version_converter

    model = standard(load_source(source), source.label)
    inputs = graph_inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    head = head_of(source.spec)
    if not head.published_outputs:
        del model.graph.output[1:]
    # Up to IR 3 weights are listed as inputs, and the converter looks for weights in this list only.
    model.ir_version = max(model.ir_version, 4)
    try:
        model = version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError
        reason = first_line(error)
        raise InputError(
            f"{source.label} cannot be brought to opset {OPSET}: {reason}", hint="export it anew"
        ) from error
    model.ir_version = 10
    _strip(model)
    naming.rename(model.graph, model.graph.input[0].name, "input")
    head.finish_file(model)
    naming.distinct_nodes(model.graph)
    _free_batch(model, source.spec)
    return model


def _free_batch(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Frees the batch axis if two inputs together give the same outputs as alone; otherwise fixes the batch to 1."""
    from lmconv.inference.ort import OrtSession
    from lmconv.inference.session import noise

    set_batch(model, "N")
    images = noise(spec, 2, 0)
    try:
        with OrtSession(model.SerializeToString()) as session:
            both, *alone = (session.run({"input": batch}) for batch in (images, images[:1], images[1:]))
        whole = {name: np.concatenate([part[name] for part in alone]) for name in head_of(spec).continuous_outputs}
        free = all(
            both[name].shape == each.shape and np.allclose(both[name], each, atol=1e-5) for name, each in whole.items()
        )
    except Exception:  # any error of the runtime means that the axis is not free
        free = False
    if not free:
        set_batch(model, 1)
