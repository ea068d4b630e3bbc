"""`lmconv inspect`: what an artefact is, from its manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmconv.console import Console, Outcome, command

if TYPE_CHECKING:
    from lmconv.types import TensorSpec

HELP = """Checks an artefact's files against its manifest and prints what it is and how it was made.

\b
Example:
  lmconv inspect build/pfld/onnx-fp32
"""


UNITS = {
    "fraction": "fractions of the input's width and height",
    "crop pixels": "pixels of the crop",
    "frame pixels": "pixels of the frame",
}


@command(name="inspect", help=HELP, short_help="Print what an artefact is and how it was made.")
@click.argument("artifact", type=click.Path(path_type=Path))
def plugin(console: Console, *, artifact: Path) -> Outcome:
    from lmconv import artifact as artifacts

    found = artifacts.read(artifact)
    shown = json.loads((artifact / artifacts.MANIFEST).read_text(encoding="utf-8"))
    source = found.parents["source"]
    lines = [
        f"{found.spec.name}: {found.target} {found.precision}, {artifacts.size(found) / 1e6:.2f} MB, "
        f"{found.parameters:,} parameters, {found.flops / 1e9:.3f} GFLOP",
        *(f"takes      {_tensor(tensor)}" for tensor in found.spec.takes),
        *(f"gives      {_tensor(tensor)}" for tensor in found.spec.outputs),
        f"units      pixels in {found.spec.preprocess.colour}, landmarks in {UNITS[found.spec.unit]}",
        f"execution  {json.dumps(found.execution)}",
        f"source     {artifacts.weights(found)}, sha256 {source['sha256']}, {source['parameters']:,} parameters, "
        f"{source['flops'] / 1e9:.3f} GFLOP",
        f"digest     {found.digest}",
        json.dumps({key: shown[key] for key in ("spec", "recipe", "versions", "measured")}, indent=1),
    ]
    return Outcome(document=shown, text="\n".join(lines))


def _tensor(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} ({', '.join(map(str, tensor.shape))}) {tensor.layout}"
