"""Exports the source network to one ONNX graph, opset 18, `input` (N, 3, H, W) to `landmarks` (N, L, 2).

A detector keeps its raw outputs. A network for pictures of any size gives a graph for pictures of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmconv.errors import Bug, InputError, first_line
from lmconv.graph import naming
from lmconv.graph.facts import set_batch
from lmconv.networks.heads import head_of
from lmconv.networks.heads.points import keep_chosen
from lmconv.opsets.contrib import standard
from lmconv.sources.onnx_file import graph_inputs, load_source
from lmconv.sources.resolve import Opened, open_source
from lmconv.sources.tracing import traced
from lmconv.types import OPSET, ModelSpec, Source

if TYPE_CHECKING:
    import onnx


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
    model, modules = (_from_onnx(source), {}) if network is None else traced(source, network)
    opset = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if opset != OPSET:
        raise Bug(f"the exporter gave opset {opset} for {source.spec.name} where {OPSET} was asked for")
    return model, modules


def _from_onnx(source: Source) -> onnx.ModelProto:
    from onnx import version_converter

    model = standard(load_source(source), source.label)
    inputs = graph_inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    head = head_of(source.spec)
    if not head.published_outputs:
        keep_chosen(model.graph, source.spec)
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
    naming.strip(model)
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
