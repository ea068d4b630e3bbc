"""Exports the source network to one ONNX graph, opset 18 to 24, `input` (N, 3, H, W) to `landmarks` (N, L, 2).

A detector keeps its raw outputs. A network for pictures of any size gives a graph for pictures of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lmconv.errors import Bug
from lmconv.graph import naming
from lmconv.graph.facts import set_batch
from lmconv.graph.order import keep_live
from lmconv.networks.heads import head_of
from lmconv.opsets.hub import to_hub
from lmconv.opsets.versions import opset_of
from lmconv.sources.onnx_files.constants import bake
from lmconv.sources.onnx_files.floats import in_float32
from lmconv.sources.onnx_files.original import BATCH_TOLERANCE, all_close
from lmconv.sources.onnx_files.reading import keep_graph_inputs, load_source, path_of
from lmconv.sources.onnx_files.source import OnnxSource
from lmconv.sources.resolve import Opened, open_source
from lmconv.sources.tracing import Exported, traced
from lmconv.types import OPSETS, ModelSpec, Source

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
    exported = export_session(session.source, session)
    return exported.model, exported.modules


def export_session(source: Source, session: Opened, batch: int | None = None) -> Exported:
    """Exports an opened network, see `export`, and says how.

    Args:
        source: The network.
        session: The opened network.
        batch: Batch size that the user asked for; None for a free batch.

    Raises:
        InputError: The network cannot be exported.
    """
    if isinstance(session, OnnxSource):
        notes: list[str] = []
        model = _from_onnx(source, session, notes.append)
        exported = Exported(model=model, modules={}, exporter="onnx file", notes=tuple(notes))
    else:
        exported = traced(source, session, batch)
    if (opset := opset_of(exported.model)) not in OPSETS:
        raise Bug(f"the graph of {source.spec.name} has opset {opset}, not one of {OPSETS[0]} to {OPSETS[-1]}")
    return exported


def _from_onnx(source: Source, session: OnnxSource, say: Callable[[str], None]) -> onnx.ModelProto:
    model = bake(path_of(source), load_source(source), source.constants)
    model = in_float32(model, session.original)
    image, forms = session.original.image, session.original.outputs()
    outputs = {value.name: value for value in model.graph.output}
    kept = [outputs[name] for name in session.outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    keep_live(model.graph)
    keep_graph_inputs(model)
    model = to_hub(model, source.label, say)
    model.ir_version = 10
    naming.strip(model)
    (replace(image, size=(None, None)) if source.spec.sample else image).put_in_front(model.graph)
    for name, value in zip(session.outputs, model.graph.output, strict=True):  # names may have changed in front
        forms[name].put_behind(model.graph, value)
    head_of(source.spec).finish_file(model)
    naming.distinct_nodes(model.graph)
    _free_batch(model, source.spec, session.original.batch or 1)
    return model


def _free_batch(model: onnx.ModelProto, spec: ModelSpec, batch: int) -> None:
    """Frees the batch axis if images together give the same outputs as each alone; otherwise fixes the batch.

    Args:
        model: Changed in place.
        spec: Spec of the network.
        batch: Batch that the network takes.
    """
    from lmconv.inference.ort import OrtSession
    from lmconv.inference.session import noise

    set_batch(model, "N")
    images = noise(spec, 8, 0)
    names = head_of(spec).continuous_outputs
    try:
        with OrtSession(model.SerializeToString()) as session:
            alone = [session.run({"input": image[None]}) for image in images]
            whole = {name: np.concatenate([part[name] for part in alone]) for name in names}
            together = [session.run({"input": images[:count]}) for count in (2, len(images))]
        free = all(
            all_close(part, {name: whole[name][: len(part[name])] for name in names}, BATCH_TOLERANCE)
            for part in together
        )
    except Exception:  # any error of the runtime means that the axis is not free
        free = False
    if not free:
        set_batch(model, batch)
