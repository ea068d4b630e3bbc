"""Names the node that makes a finished artefact fail, in the error of the refusal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.blaming.blame import Blame, blame
from lmconv.building.acceptance import NotReproduced
from lmconv.errors import LmconvError, first_line
from lmconv.store import artifact as artifacts

if TYPE_CHECKING:
    import onnx


def blamed(error: NotReproduced, folder: Path, graph: onnx.ModelProto, why: Path) -> NotReproduced:
    """Returns the error with the node at which the artefact differs first.

    Args:
        error: The refusal.
        folder: Folder of the artefact.
        graph: The plain graph of the network.
        why: Folder for the reproduction of the node.
    """
    try:
        found = blame(artifacts.read(folder), graph, why, rows=error.inputs)
    except LmconvError as reason:  # the target shows no intermediate values
        return NotReproduced(error.message, inputs=error.inputs, hint=f"it was not written; {reason.message}")
    except Exception as reason:  # the refusal matters more than its explanation
        hint = f"it was not written, and no node can be named: {type(reason).__name__}: {first_line(reason)}"
        return NotReproduced(error.message, inputs=error.inputs, hint=hint)
    if found.first is None:
        hint = "it was not written; no single node differs: use another target or precision"
        return NotReproduced(error.message, inputs=error.inputs, hint=hint)
    return NotReproduced(
        f"{error.message}: {found.describe(found.first)} differs {'most' if found.lowered else 'first'}",
        inputs=error.inputs,
        hint=f"it was not written; {_advice(found)}",
        operator=found.first.node.op_type,
    )


def _advice(found: Blame) -> str:
    made = found.reproduction
    if made is None:
        return "use another precision or target"
    if made.off is None:
        return f"the node cannot run alone, see {made.path}: use another target, or leave out passes with --no-PASS"
    if made.off <= found.first_rounding:
        return f"the node alone agrees, see {made.path}: use another target, or leave out passes with --no-PASS"
    return f"the node alone is {made.off:.2g} off, see {made.path}: report it to the runtime, or use another target"
