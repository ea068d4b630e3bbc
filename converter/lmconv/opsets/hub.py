"""Converts the operators of any ONNX file to the operators of the hub: opset 18 to 24, standard operators.

The result computes what ONNX Runtime computes from the file.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from lmconv.graph import naming
from lmconv.graph.naming import operators_of
from lmconv.opsets.bfloat16 import widen_constants
from lmconv.opsets.functions import inlined, written_out
from lmconv.opsets.lowering import lowered
from lmconv.opsets.microsoft import RULES, early
from lmconv.opsets.raising import raised
from lmconv.opsets.rewriting import rewrite
from lmconv.opsets.training import training
from lmconv.opsets.versions import label, opset_of, tidy_domains
from lmconv.types import OPSETS

PER_CHANNEL = 21
"""Opset that replaced GroupNormalization, with scales per group, by one with scales per channel.

ONNX Runtime still computes the earlier operator; other tools refuse it."""


def to_hub(model: onnx.ModelProto, name: str, say: Callable[[str], None] = lambda note: None) -> onnx.ModelProto:
    """Returns a model in the operators of the hub.

    Args:
        model: The model; may be changed. Its initializers are not among the inputs of the graph.
        name: The file, for messages.
        say: Receives notes about nodes that were removed, and about nodes that only ONNX Runtime computes.

    Returns:
        A model of an opset in `OPSETS`: that of the file if possible, else the nearest. Operators of other domains
        without a standard decomposition stay; `foreign` names them.

    Raises:
        InputError: A node cannot be brought to these opsets; the message names the node.
    """
    model = inlined(model, name)
    tidy_domains(model)
    widen_constants(model)
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    changed = rewrite(model, {**training(ends), **early.RULES})
    if changed["Dropout"]:
        say(f"Dropout in training mode is removed, as ONNX Runtime does ({changed['Dropout']} of them)")
    model = raised(model, name)
    while rewrite(model, RULES):  # a replaced node may reveal the rank that another rule needs
        pass
    model = lowered(model, OPSETS[-1], name)
    if opset_of(model) < PER_CHANNEL and "GroupNormalization" in operators_of(model):
        model = written_out(model, ["GroupNormalization"])
    tidy_domains(model)
    if others := ", ".join(map(label, foreign(model))):
        say(f"only the target onnx is sure to read {others}")
    return model


def foreign(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns the nodes whose operators ONNX does not define, subgraphs included."""
    return [node for node in naming.nodes_of(model) if node.domain]
