"""`lmconv inspect`: description of an artefact and its recipe, from the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmconv.console import Console, Outcome, command, table
from lmconv.errors import InputError
from lmconv.store.files import writing

if TYPE_CHECKING:
    from lmconv.types import Artifact, Json, ModelSpec, TensorSpec

HELP = """Checks an artefact's files against its manifest and prints what it is and how it was made.

\b
Examples:
  lmconv inspect build/pfld/onnx-fp32
  lmconv inspect build/pfld/onnx-fp32 --layers --picture layers.svg
"""


UNITS = {
    "fraction": "fractions of the input's width and height",
    "crop pixels": "pixels of the crop",
    "frame pixels": "pixels of the frame",
}


@command(name="inspect", help=HELP, short_help="Print what an artefact is and how it was made.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--layers", is_flag=True, help="What compaction did to each layer, and why dead channels stayed.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw that to an SVG file.")
def plugin(console: Console, *, artifact: Path, layers: bool, picture: Path | None) -> Outcome:
    from lmconv.store import artifact as artifacts

    found = artifacts.read(artifact)
    shown = json.loads((artifact / artifacts.MANIFEST).read_text(encoding="utf-8"))
    source = found.parents["source"]
    lines = [
        f"{found.spec.name}: {found.target} {found.precision}, {artifacts.size(found) / 1e6:.2f} MB, "
        f"{found.parameters:,} parameters, {found.flops / 1e9:.3f} GFLOP",
        *(f"takes      {_tensor(tensor)}" for tensor in found.spec.takes),
        *(f"gives      {_tensor(tensor)}" for tensor in found.spec.outputs),
        f"units      pixels in {found.spec.preprocess.colour}, {_given(found.spec)}",
        f"execution  {json.dumps(found.execution)}",
        f"source     {artifacts.weights(found)}, sha256 {source['sha256']}, {source['parameters']:,} parameters, "
        f"{source['flops'] / 1e9:.3f} GFLOP",
        f"digest     {found.digest}",
    ]
    lines += [f"guard      {line}" for line in _guard(found.measured.get("guard") or {})]
    lines += _compaction(found, table_wanted=layers, picture=picture)
    if not layers:
        parts = {key: _short(shown[key]) for key in ("spec", "recipe", "versions", "measured")}
        lines.append(json.dumps(parts, indent=1))
    return Outcome(document=shown, text="\n".join(lines))


def _given(spec: ModelSpec) -> str:
    return "outputs as the network gives them" if spec.detects else f"landmarks in {UNITS[spec.unit]}"


def _tensor(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} ({', '.join(map(str, tensor.shape))}) {tensor.layout}"


def _guard(figures: Json) -> list[str]:
    """Returns the results of export's guard, one line each."""
    if "skipped" in figures:
        return [f"not judged: {figures['skipped']}"]
    lines = []
    if speed := figures.get("speed"):
        ratio = speed.get("ratio")
        of = f", {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] of {speed['against']}" if ratio else ""
        lines.append(f"speed: {speed['verdict']}{of}" + _why(speed))
    if size := figures.get("size"):
        lines.append(f"size: {size['verdict']}, {size['ratio']:.2f} of {size['against']}")
    if budget := figures.get("budget"):
        lost = budget.get("loss")
        of = f", ION {lost['ion']['mean']:+.3f}, drift {lost['drift']['mean']:.3f} on {lost['n']} faces" if lost else ""
        lines.append(f"budget: {budget['verdict']}{of}" + _why(budget))
    return [*lines, *(["written all the same (--force)"] if figures.get("forced") else [])]


def _why(figures: Json) -> str:
    return f": {figures['reason']}" if figures.get("reason") else ""


def _compaction(artifact: Artifact, *, table_wanted: bool, picture: Path | None) -> list[str]:
    """Returns a summary of compaction, and a table of all layers if `table_wanted`; draws `picture` if given.

    Raises:
        InputError: The user asked for the table or the picture, and the artefact was not compacted.
    """
    from lmconv.compaction.picture import draw, summary
    from lmconv.store import artifact as artifacts

    compacted = artifacts.decided(artifact.recipe, "compact")
    if compacted is None:
        if not (table_wanted or picture):
            return []
        refused = next((step["refused"] for step in artifact.recipe["passes"] if step["pass"] == "compact"), None)
        hint = f"the pass was left out: {refused}" if refused else "export it without --no-compact"
        raise InputError(f"{artifact.path} was not compacted", hint=hint)
    names = artifacts.modules(artifact)
    compacted["layers"] = [{**row, "name": names.get(row["name"], row["name"])} for row in compacted["layers"]]
    if picture:
        title = f"{artifact.spec.name}, {artifact.target} {artifact.precision}: {summary(compacted)}"
        with writing(picture):
            picture.write_text(draw(title, compacted["layers"]), encoding="utf-8")
    line = f"compacted  {summary(compacted)}"
    return [line, "", _layers(compacted)] if table_wanted else [line]


def _short(value: Any) -> Any:
    """Returns a part of the manifest with the long lists of layers and pictures replaced by a short text."""
    if isinstance(value, dict):
        told = {"layers": "see --layers", "faces": f"{len(value.get('faces') or ())} pictures"}
        return {k: told[k] if k in told and isinstance(part, list) else _short(part) for k, part in value.items()}
    return [_short(part) for part in value] if isinstance(value, list) else value


def _layers(compacted: Json) -> str:
    header = ["layer", "operator", "channels", "dead", "parameters", "MFLOP", "why dead channels stayed"]
    rows = [
        [
            row["name"],
            row["operator"],
            _change(row["channels"]),
            str(row["dead"]),
            _change(row["parameters"]),
            " -> ".join(f"{flops / 1e6:.2f}" for flops in row["flops"]),
            "; ".join(f"{count} {reason}" for reason, count in row["kept"].items()),
        ]
        for row in compacted["layers"]
    ]
    left = [f"left as it is: {reason} ({', '.join(names)})" for reason, names in compacted["whole"].items()]
    return "\n".join([table(header, rows, left=2), *left])


def _change(pair: list[int]) -> str:
    return f"{pair[0]:,} -> {pair[1]:,}"
