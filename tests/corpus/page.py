"""The page docs/converts.md, written from the table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from tests.corpus import judge
from tests.corpus.registry import EXPORTERS, Case, cases
from tests.corpus.table import NOT_EXPORTED, Cell, Row
from tests.corpus.trial import ARTEFACTS, ENOUGH, OK

MISSING = "-"
"""Shown for a file that PyTorch's exporter cannot write."""
PAGE = Path(__file__).parents[2] / "docs" / "converts.md"

INTRODUCTION = f"""\
# Constructs that convert

Each row is a small network, or a small ONNX file, with one construct. Each cell is one route from the construct to
lmconv, and stands for six artefacts: ONNX Runtime and OpenVINO in fp32, fp16 and int8. Every artefact is compared with
eager PyTorch, or with the original file in ONNX Runtime, by code that shares nothing with lmconv's own comparison
(`tests/corpus/judge.py`). The largest allowed difference is {judge.LIMITS["fp32"]:g} of the largest number
in fp32, {judge.LIMITS["fp16"]:g} in fp16, and {judge.INT8:.0%} of the mean absolute deviation over faces in int8.

- ✓: all six artefacts are right, and int8 covers at least {ENOUGH:.0%} of the multiply-accumulates.
- A number: the note with this number describes some of the six artefacts; all others are right.
- {MISSING}: PyTorch's exporter cannot write the network at this opset. An empty cell is not tried: each construct has
  every second opset of each exporter.
- own: lmconv exports the network itself (`FILE.py:NAME`). T and an opset: a file of the older exporter (TorchScript).
  D and an opset: a file of the newer exporter (dynamo).

`python -m tests.corpus.make` writes the page from `tests/corpus/expected.json`, and a test compares page and table.
`make test` tries a sample of the cells, `make exhaustive` every cell.
"""

KINDS = {
    "activations": "Activations",
    "norms": "Normalisation",
    "sizes": "Resizing, padding and pooling",
    "channels": "Splits, joins and moves",
    "attention": "Gates and attention",
    "recurrent": "Recurrent layers and loops",
    "decoding": "Heads that decode landmarks",
    "dtypes": "Types of numbers",
    "outputs": "Outputs",
    "names": "Names",
    "batches": "Batch and control flow",
    "wrappers": "Wrappers of PyTorch",
    "old": "ONNX files: operators that changed",
    "new": "ONNX files: operators of opset 15 and later",
    "habits": "ONNX files: habits of exporters and people",
    "inputs": "ONNX files: images",
    "quantised": "ONNX files: int8 already",
}
"""Headings of the kinds, in the order of the page."""


class Notes:
    """Lines of lmconv, numbered in the order in which cells need them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def numbers(self, cell: Cell) -> str:
        """Returns what a cell of the page shows."""
        if NOT_EXPORTED in cell:
            return MISSING
        texts = [f"{_artefacts(names)}: {_code(line)}" for line, names in cell.items() if line != OK]
        found = [self._numbers.setdefault(text, len(self._numbers) + 1) for text in texts]
        return ", ".join(map(str, found)) or "✓"

    def lines(self) -> list[str]:
        """Returns the list of notes."""
        return [f"{number}. {text}" for text, number in self._numbers.items()]


def _artefacts(names: list[str]) -> str:
    """Returns artefacts in words: `int8`, `fp16 on openvino`, `all`."""
    if len(names) == len(ARTEFACTS):
        return "all"
    targets = [name.partition("-")[0] for name in ARTEFACTS[::3]]
    by_target = {target: [name.partition("-")[2] for name in names if name.startswith(target)] for target in targets}
    if len({tuple(precisions) for precisions in by_target.values()}) == 1:
        return " and ".join(by_target[targets[0]])
    return "; ".join(f"{' and '.join(found)} on {target}" for target, found in by_target.items() if found)


def _code(line: str) -> str:
    return line if line.startswith("ok, ") else f"`{line.replace('`', chr(39))}`"


def text(rows: dict[str, Row]) -> str:
    """Returns the page."""
    notes = Notes()
    known = [case for case in cases().values() if case.name in rows]
    plain = sorted((case for case in known if not case.is_architecture), key=lambda case: list(KINDS).index(case.kind))
    parts = [INTRODUCTION]
    for kind, group in groupby(plain, key=lambda case: case.kind):
        parts.append(f"## {KINDS[kind]}\n\n{_kind(list(group), rows, notes)}\n")
    parts.append(f"## Architectures\n\n{_architectures([c for c in known if c.is_architecture], rows, notes)}\n")
    parts.append("## Notes\n\n" + ("\n".join(notes.lines()) or "None: every cell converts.") + "\n")
    return "\n".join(parts)


def _kind(group: list[Case], rows: dict[str, Row], notes: Notes) -> str:
    """Returns the table of one kind; a column is a route that one of the constructs has."""
    used = {route for case in group for route in case.routes}
    columns = [route for route in _columns() if route in used]
    table = [["construct", *(_heading(route) for route in columns)]]
    for case in group:
        cells = rows[case.name]["routes"]
        table.append([case.summary, *(notes.numbers(cells[route]) if route in cells else "" for route in columns)])
    return _markdown(table)


def _columns() -> list[str]:
    files = [f"file-{opset}" for opset in range(1, 30)]
    exported = [f"{exporter}-{opset}" for exporter, opsets in EXPORTERS.items() for opset in opsets]
    return ["own", *exported, *files]


def _heading(route: str) -> str:
    kind, _, opset = route.partition("-")
    return {"torchscript": f"T {opset}", "dynamo": f"D {opset}", "file": opset}.get(kind, kind)


ARCHITECTURES = """\
Each network is written anew on plain PyTorch, narrow, with seeded weights, and exported by lmconv. The columns of int8
count the layers that compute in int8, of all layers with weights, and their share of the multiply-accumulates.
"""


def _architectures(group: list[Case], rows: dict[str, Row], notes: Notes) -> str:
    names = [name for name in ARTEFACTS if name.endswith("int8")]
    header = ["network", "result", *(f"int8 layers, {name.partition('-')[0]}" for name in names)]
    table = [header]
    for case in group:
        row = rows[case.name]
        counts = [row["coverage"].get(name) for name in names]
        shown = [f"{count[0]} of {count[1]}, {count[2]} %" if count else "" for count in counts]
        table.append([case.summary, notes.numbers(row["routes"]["own"]), *shown])
    return ARCHITECTURES + "\n" + _markdown(table)


def _markdown(rows: Iterable[list[str]]) -> str:
    header, *others = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *others))
