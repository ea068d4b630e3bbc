"""`lmconv blame`: the node at which an artefact and its network differ first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmconv.console import Console, Outcome, command, table
from lmconv.options import TRUST

if TYPE_CHECKING:
    from lmconv.blaming.blame import Blame

HELP = """Names the node at which an artefact and its network differ first.

lmconv runs the artefact and the plain graph of its network (DIR/MODEL/plain/) on the seeded inputs of reference.npz,
and compares every value that both compute. In fp32 the first node is named whose output differs by more than rounding
although its inputs do not. Below fp32 every node rounds: the nodes that add most to the difference are listed.

DIR/MODEL/why/ then holds the node alone: model.onnx, inputs.npz, and run.py, which prints the result of ONNX Runtime
and of the target. The folder can be attached to a bug report of the runtime. docs/blame.md explains the figures.

The exit code is 1 if the outputs of the artefact differ from the network by more than `lmconv export` allows. A
TensorRT engine shows no intermediate values: blame the onnx artefact of the same precision.

\b
Examples:
  lmconv blame build/pfld/openvino-fp32
  lmconv blame build/pfld/onnx-int8 --json
"""


@command(name="blame", help=HELP, short_help="Name the node at which an artefact differs from its network.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--trust", is_flag=True, help=TRUST)
def plugin(console: Console, *, artifact: Path, trust: bool) -> Outcome:
    import onnx

    from lmconv.blaming.blame import blame
    from lmconv.building.acceptance import disagreement
    from lmconv.errors import InputError
    from lmconv.inference.loading import usable
    from lmconv.store import artifact as artifacts
    from lmconv.types import OpenOptions

    blamed = artifacts.read(artifact)
    target = usable(blamed, OpenOptions(trust=trust))
    plain = artifacts.plain_beside(blamed)
    if plain is None or plain.path == blamed.path:
        hint = "export again: the plain graph is kept in DIR/MODEL/plain/" if plain is None else "name another artefact"
        raise InputError(f"{artifact} has no plain graph to be compared with", hint=hint)
    reason = disagreement(blamed, target)
    graph, why = onnx.load(artifacts.model_file(plain, ".onnx")), blamed.path.parent / artifacts.WHY
    found = blame(blamed, graph, why, agrees=not reason)
    document = {"path": str(artifact), "disagreement": reason, **found.to_json()}
    return Outcome(document=document, text=_text(found, reason), failed=bool(reason))


def _text(found: Blame, reason: str) -> str:
    lines = [reason or "the outputs agree within the limits of export"]
    if found.first is None:
        lines.append(f"none of the {found.compared} compared values differs by more than rounding")
        return "\n".join(lines)
    lines.append(f"{'most' if found.lowered else 'first':11}{found.describe(found.first)}")
    if made := found.reproduction:
        alone = "cannot run alone" if made.off is None else f"alone {made.off:.2g} off"
        lines.append(f"why        {made.path}: the node {alone}")
    return "\n".join([*lines, "", _growths(found)])


def _growths(found: Blame) -> str:
    """Returns a table of the nodes that add most to the difference."""
    from lmconv.blaming.blame import module_of

    header = ["operator", "value", "module", "shape", "off", "largest value", "relative", "added"]
    rows = [
        [
            each.node.op_type,
            each.name,
            module_of(each, found.modules),
            "x".join(map(str, each.shape)),
            f"{each.off:.2g}",
            f"{each.largest:.3g}",
            f"{each.relative:.1e}",
            f"{each.growth:.1e}",
        ]
        for each in found.growths
        if each.growth > 0
    ]
    return table(header, rows, left=4)
