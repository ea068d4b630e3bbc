"""`lmconv inspect`: an artefact and its recipe, from the manifest; or the inputs and outputs of a network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmconv.console import Console, Outcome, command, table
from lmconv.errors import InputError, UsageError
from lmconv.options import WEIGHTS, SourceOptions, source_options

if TYPE_CHECKING:
    from lmconv.types import Artifact, Json, ModelSpec, TensorSpec

HELP = """Checks the files of an artefact against its manifest, and prints its description and recipe.

For an .onnx file, or FILE.py:NAME for your own network, the command prints the input and all outputs: name, type,
shape, and range of the values on seeded inputs. The last line says which output lmconv takes for the landmarks, or why
none.

\b
Examples:
  lmconv inspect build/pfld/onnx-fp32
  lmconv inspect build/pfld/onnx-fp32 --layers --picture layers.svg
  lmconv inspect face.onnx
  lmconv inspect my_models.py:build --input 3x112x112 --landmarks 68 --weights x.pth
"""


DENORMAL = "which Intel CPUs compute slowly"
UNITS = {
    "fraction": "fractions of the input's width and height",
    "[-1,1]": "-1 to 1 over the input's width and height",
    "crop pixels": "pixels of the crop",
    "frame pixels": "pixels of the frame",
}


@command(name="inspect", help=HELP, short_help="Print an artefact and its recipe, or the outputs of a network.")
@click.argument("inspected", metavar="ARTIFACT|MODEL")
@click.option(
    "--layers", is_flag=True, help="Print the effect of compaction on each layer, and why dead channels stayed."
)
@click.option("--picture", type=click.Path(path_type=Path), help="SVG file for a drawing of the layers.")
@click.option("--weights", type=click.Path(path_type=Path), help=WEIGHTS)
@source_options
def plugin(console: Console, **options: Any) -> Outcome:
    from lmconv.sources.describing import is_described

    request = InspectRequest(**options)
    return (_network if is_described(request.inspected) else _artifact)(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectRequest(SourceOptions):
    """Options of `lmconv inspect`; each field has the name of its option or argument."""

    inspected: str
    layers: bool
    picture: Path | None


def _network(request: InspectRequest) -> Outcome:
    """Describes an ONNX file or a user's own network.

    Raises:
        UsageError: An option is for artefacts.
    """
    from lmconv.networks.heads import choice_notes
    from lmconv.sources.describing import describe
    from lmconv.store.artifact import spec_to_json

    if request.layers or request.picture:
        message = f"--layers and --picture are for artefacts, and {request.inspected} is a network"
        raise UsageError(message, hint="export the network first")
    described = describe(request.inspected, **request.source_arguments())
    outputs = described.outputs.outputs
    lines = [f"takes      {described.takes}", *(f"gives      {output.label}" for output in outputs)]
    lines.append(f"denormals  {described.denormals:,} weights" + f", {DENORMAL}" * bool(described.denormals))
    document: Json = {"takes": described.takes, "outputs": [output.row for output in outputs]}
    document["denormals"] = described.denormals
    if described.refusal:
        document["refused"] = str(described.refusal)
        listed = f": {described.outputs.listed}"  # the lines above
        lines.append(f"no choice  {str(described.refusal).replace(listed, '')}")
    elif described.spec:
        document["spec"] = spec_to_json(described.spec)
        lines.append(f"landmarks  {_taken(described.spec)}")
        lines += [f"note       {note}" for note in choice_notes(described.spec)]
    return Outcome(document=document, text="\n".join(lines))


def _taken(spec: ModelSpec) -> str:
    """Returns the chosen outputs, with their decoding or unit and coordinates."""
    assert spec.chosen
    names = " and ".join(name or "output" for name in spec.chosen.names)
    how = f"decoded by {spec.heatmaps.method}" if spec.heatmaps else f"unit {spec.decode}, {spec.chosen.axes}"
    return f"{spec.landmarks} points in {names}, {how}"


def _artifact(request: InspectRequest) -> Outcome:
    """Describes an artefact.

    Raises:
        UsageError: An option is for networks, or a Python file has no name of a builder.
    """
    from lmconv.sources.resolve import check_options
    from lmconv.store import artifact as artifacts

    if request.inspected.endswith((".py", ".py:")):
        check_options(request.inspected)  # names what is missing: FILE.py:NAME
    typed = [name for name in SourceOptions.__dataclass_fields__ if getattr(request, name) not in (None, ())]
    if typed:
        option = {"shape": "input", "constants": "constant"}.get(typed[0], typed[0]).replace("_", "-")
        message = f"--{option} is for networks, and {request.inspected} is the folder of an artefact"
        raise UsageError(message, hint="leave it out, or name an .onnx file or FILE.py:NAME")
    path = Path(request.inspected)
    inspected = artifacts.read(path)
    manifest = json.loads((path / artifacts.MANIFEST).read_text(encoding="utf-8"))
    lines = _description(inspected)
    lines += [f"guard      {line}" for line in _guard(inspected.measured.get("guard") or {})]
    lines += _denormals(inspected)
    lines += _int8(inspected)
    lines += _compaction(inspected, with_table=request.layers, picture=request.picture)
    if not request.layers:
        parts = {key: _short(manifest[key]) for key in ("spec", "recipe", "versions", "measured")}
        lines.append(json.dumps(parts, indent=1))
    return Outcome(document=manifest, text="\n".join(lines))


def _description(artifact: Artifact) -> list[str]:
    """Returns the lines about size, inputs, outputs, units, opset, execution, source and digest."""
    from lmconv.networks.heads import choice_notes
    from lmconv.networks.interfaces import interface_of
    from lmconv.store import artifact as artifacts

    source = artifact.parents["source"]
    return [
        f"{artifact.spec.name}: {artifact.target} {artifact.precision}, {artifacts.size(artifact) / 1e6:.2f} MB, "
        f"{artifact.parameters:,} parameters, {artifact.flops / 1e9:.3f} GFLOP",
        *(f"takes      {_tensor(tensor)}" for tensor in interface_of(artifact.spec).inputs),
        *(f"gives      {_tensor(tensor)}" for tensor in artifact.spec.outputs),
        *(f"chosen     {note}" for note in choice_notes(artifact.spec)),
        f"units      pixels in {artifact.spec.preprocess.colour}, {_output_units(artifact.spec)}",
        f"graph      opset {artifact.recipe['opset']}, exported by {artifact.recipe['exporter']}",
        f"opset      {_opset(artifact)}",
        f"execution  {json.dumps(artifact.execution)}",
        f"source     {artifacts.weights(artifact)}, sha256 {source['sha256']}, {source['parameters']:,} parameters, "
        f"{source['flops'] / 1e9:.3f} GFLOP",
        f"digest     {artifact.digest}",
    ]


def _opset(artifact: Artifact) -> str:
    """Returns the opset of the graph that the target received, and that of the ONNX file if different."""
    opset, file = artifact.recipe["opset"], artifact.parents["source"].get("opset")
    return f"{opset}, from {file} in the file" if file not in (None, opset) else str(opset)


def _output_units(spec: ModelSpec) -> str:
    from lmconv.networks.heads import head_of
    from lmconv.networks.interfaces import interface_of

    units = ", ".join(f"{name} in {UNITS[interface_of(spec).unit]}" for name in head_of(spec).coordinates)
    return units or "raw outputs of the network"


def _tensor(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} ({', '.join(map(str, tensor.shape))}) {tensor.layout}"


def _guard(figures: Json) -> list[str]:
    """Returns the results of export's guard, one line each."""
    if "skipped" in figures:
        return [f"not judged: {figures['skipped']}"]
    lines = []
    if speed := figures.get("speed"):
        ratio = speed.get("ratio")
        figures_text = (
            f", {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] of {speed['against']}" if ratio else ""
        )
        lines.append(f"speed: {speed['verdict']}{figures_text}" + _reason(speed))
    if size := figures.get("size"):
        lines.append(f"size: {size['verdict']}, {size['ratio']:.2f} of {size['against']}")
    if budget := figures.get("budget"):
        loss = budget.get("loss", {})
        drift = loss.get("drift") or budget.get("drift")
        figures_text = f", ION {loss['ion']['mean']:+.3f}" if loss else ""
        figures_text += f", drift {drift['mean']:.3f} on {budget['faces']['n']} faces" if drift else ""
        lines.append(f"budget: {budget['verdict']}{figures_text}" + _reason(budget))
    return [*lines, *(["written despite the refusal (--force)"] if figures.get("forced") else [])]


def _denormals(artifact: Artifact) -> list[str]:
    """Returns the lines about denormal numbers: in the source, those set to zero, those that stay or are computed."""
    from lmconv.passes.denormals import summary
    from lmconv.store import artifact as artifacts

    source, decisions = artifact.parents["source"].get("denormals"), artifacts.decided(artifact.recipe, "denormals")
    lines = (
        [f"denormals  {source:,} weights of the source" + f", {DENORMAL}" * bool(source)] if source is not None else []
    )
    if decisions is None:
        return lines
    made = f", {artifact.recipe['flushed']:,} that later passes made" if "flushed" in artifact.recipe else ""
    lines.append(f"zero       {summary(decisions)}{made}")
    lines += [f"kept       {name}: zero is another number for {node}" for name, node in decisions["kept"].items()]
    shares = decisions["computed"].items()
    return lines + [f"computes   {node}: {share:.1%} denormal numbers on seeded inputs" for node, share in shares]


def _int8(artifact: Artifact) -> list[str]:
    """Returns the coverage of int8, and the reasons of the float layers; empty for another precision."""
    from lmconv.quantise import coverage
    from lmconv.store.summary import int8_coverage

    figures = int8_coverage(artifact)
    if figures is None:
        return []
    return [f"int8       {coverage.text(figures)}", *(f"float      {line}" for line in coverage.reasons(figures))]


def _reason(figures: Json) -> str:
    return f": {figures['reason']}" if figures.get("reason") else ""


def _compaction(artifact: Artifact, *, with_table: bool, picture: Path | None) -> list[str]:
    """Returns a summary of compaction, and a table of all layers if `with_table`; draws `picture` if given.

    Raises:
        InputError: The user asked for the table or the picture, and the artefact was not compacted.
    """
    from lmconv.store import artifact as artifacts
    from lmconv.visual.layers import draw, summary

    compacted = artifacts.decided(artifact.recipe, "compact")
    if compacted is None:
        if not (with_table or picture):
            return []
        refused = next((step["refused"] for step in artifact.recipe["passes"] if step["pass"] == "compact"), None)
        hint = f"the pass was left out: {refused}" if refused else "export the network without --no-compact"
        raise InputError(f"{artifact.path} was not compacted", hint=hint)
    names = artifacts.modules(artifact)
    compacted["layers"] = [{**row, "name": names.get(row["name"], row["name"])} for row in compacted["layers"]]
    if picture:
        from lmconv.store.files import writing

        title = f"{artifact.spec.name}, {artifact.target} {artifact.precision}: {summary(compacted)}"
        with writing(picture):
            picture.write_text(draw(title, compacted["layers"]), encoding="utf-8")
    line = f"compacted  {summary(compacted)}"
    return [line, "", _layers(compacted)] if with_table else [line]


def _short(value: Any) -> Any:
    """Returns a part of the manifest with the long lists of layers and pictures replaced by a short text."""
    if isinstance(value, dict):
        texts = {"layers": "see --layers", "faces": f"{len(value.get('faces') or ())} pictures"}
        return {k: texts[k] if k in texts and isinstance(part, list) else _short(part) for k, part in value.items()}
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
    unchanged = [f"operators unchanged: {reason} ({', '.join(names)})" for reason, names in compacted["whole"].items()]
    return "\n".join([table(header, rows, left=2), *unchanged])


def _change(pair: list[int]) -> str:
    """Formats a value before and after compaction."""
    return f"{pair[0]:,} -> {pair[1]:,}"
