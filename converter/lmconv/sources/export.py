"""From the source network to the hub: one ONNX graph, opset 18, `input` (N, 3, H, W) to `landmarks` (N, L, 2).

A network for detection keeps its outputs. Where it takes pictures of any size, so does the graph.
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
from lmconv.networks import heatmaps
from lmconv.sources import usercode
from lmconv.sources.onnx_file import graph_inputs, standard
from lmconv.sources.resolve import Opened, open_source
from lmconv.types import OPSET, Decode, ModelSpec, Source

if TYPE_CHECKING:
    import onnx
    import torch

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter writes the path of modules that a node belongs to."""


def export(source: Source, session: Opened | None = None) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Exports a network, nothing simplified.

    Args:
        source: What it is.
        session: The same, opened, where it is.

    Returns:
        The model with a free batch axis where the network allows one, and the module table: name of a node's
        output to the path of the PyTorch module that computes it (empty for an ONNX source).

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
    if how := source.spec.heatmaps:
        _decode(model, how)
    if source.spec.detects:
        _name_sides(model, source.spec)
    return model, modules


def _name_sides(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Free sides of outputs are called as the spec has them: the exporter calls them by how they are computed."""
    for value, tensor in zip(model.graph.output, spec.outputs, strict=True):
        for dim, side in zip(value.type.tensor_type.shape.dim, tensor.shape, strict=True):
            if not dim.HasField("dim_value"):
                dim.dim_param = str(side)


def _dynamo(source: Source, network: torch.nn.Module) -> onnx.ModelProto:
    import torch

    spec, dim = source.spec, torch.export.Dim
    height, width = spec.input_size
    free = {0: dim("N")}
    if spec.sample:  # traced at another size than it is compared at, so that none is written into the graph unseen
        height, width = height - 13, width - 21
        free |= {2: dim("H"), 3: dim("W")}
    names = [tensor.name for tensor in spec.outputs] if spec.detects else ["heatmaps" if spec.heatmaps else "landmarks"]
    for name in ("torch.onnx", "torch.fx", "torch.export"):  # warn at length, of torchvision and of what is raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    hint, theirs = "PyTorch's exporter cannot trace it; -v shows its traceback", usercode.foreign(source)
    with (
        usercode.theirs(theirs, hint=hint) if theirs else nullcontext(),
        redirect_stdout(io.StringIO()),  # it prints whole graphs when it fails
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        torch.inference_mode(),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, height, width),),  # 0 and 1 would be taken for constants
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=["input"],
            output_names=names,
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
            # A BatchNorm was folded into this layer, and the exporter names the BatchNorm.
            path = weights.removeprefix("net.").removesuffix(".weight")
        table.update({output: path for output in node.output if path})
    return table


def _strip(model: onnx.ModelProto) -> None:
    """Removes what ties the file to the exporting machine: stack traces, paths."""
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

    model = standard(source)
    inputs = graph_inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    if not source.spec.detects:
        del model.graph.output[1:]
    # Weights are listed as inputs up to IR 3, and the converter finds them nowhere else then.
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
    if source.spec.detects:
        pass
    elif how := source.spec.heatmaps:
        _to_maps(model, source.spec)
        _decode(model, how)
    else:
        _to_points(model, source.spec)
    naming.distinct_nodes(model.graph)
    _free_batch(model, source.spec)
    return model


def _to_points(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Appends the cut to the points, as (N, L, 2), under the name `landmarks`."""
    from onnx import TensorProto, helper

    graph = model.graph
    naming.vacate(graph, "landmarks")  # the name is wanted for what comes after it
    flat = graph.output[0].name
    if spec.output_slice:
        taken = naming.taken(graph)
        whole, part = (naming.fresh(name, taken) for name in ("landmarks_flat", "landmarks_slice"))
        flat = _append(graph, "Reshape", flat, whole, flat=[0, -1])
        start, stop = spec.output_slice
        flat = _append(graph, "Slice", flat, part, starts=[start], ends=[stop], axes=[1])
    _append(graph, "Reshape", flat, "landmarks", shape=[-1, spec.landmarks, 2])
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["N", spec.landmarks, 2]))


def _to_maps(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Brings the output, or the part of its channels that holds the points, under the name `heatmaps`."""
    output = model.graph.output[0]
    if spec.output_slice:
        naming.vacate(model.graph, "heatmaps")
        start, stop = spec.output_slice
        _append(model.graph, "Slice", output.name, "heatmaps", starts=[start], ends=[stop], axes=[1])
        output.name = "heatmaps"
        output.type.tensor_type.shape.dim[1].dim_value = stop - start
    else:
        naming.rename(model.graph, output.name, "heatmaps")


def _append(graph: onnx.GraphProto, op: str, data: str, out: str, **constants: list[int]) -> str:
    """Appends a node whose other inputs are constants; gives its output, `out`, which no value may be called."""
    from onnx import helper, numpy_helper

    taken = naming.taken(graph)
    names = [naming.fresh(f"{out}_{key}", taken) for key in constants]
    for name, value in zip(names, constants.values(), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    graph.node.append(helper.make_node(op, [data, *names], [out], name=out))
    return out


def _decode(model: onnx.ModelProto, how: Decode) -> None:
    """Appends the decode of the one output, heatmaps; `landmarks` becomes the first output."""
    from onnx import TensorProto, helper

    naming.vacate(model.graph, "landmarks")
    maps = model.graph.output[0]
    batch, points, height, width = maps.type.tensor_type.shape.dim
    prefix = naming.prefix(model.graph, "decode")
    heatmaps.append(model.graph, maps.name, (height.dim_value, width.dim_value), how, prefix=prefix)
    free = batch.dim_param or batch.dim_value or "N"
    shape = [free, points.dim_value, 2]
    model.graph.output.insert(0, helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, shape))


def _free_batch(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Frees a fixed batch axis where two inputs then give what each gives alone; else leaves it at 1."""
    from lmconv.inference.ort import OrtSession
    from lmconv.inference.session import noise

    set_batch(model, "N")
    images = noise(spec, 2, 0)
    try:
        with OrtSession(model.SerializeToString()) as session:
            names = [tensor.name for tensor in spec.outputs]
            if spec.heatmaps:
                names.remove("landmarks")  # an arg-max may jump where nothing is wrong
            both, *alone = (session.run({"input": batch}) for batch in (images, images[:1], images[1:]))
        whole = {name: np.concatenate([part[name] for part in alone]) for name in names}
        free = all(
            both[name].shape == each.shape and np.allclose(both[name], each, atol=1e-5) for name, each in whole.items()
        )
    except Exception:  # whatever the runtime says of it, the axis is not free
        free = False
    if not free:
        set_batch(model, 1)
