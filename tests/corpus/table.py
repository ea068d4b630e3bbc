"""The table of what converts: expected.json, one result a construct and route."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

from tests.corpus.coverage import Coverage
from tests.corpus.registry import Case, Route
from tests.corpus.trial import ARTEFACTS, NotExported, Result, attempt

FILE = Path(__file__).with_name("expected.json")
NOT_EXPORTED = "not exported"

Cell: TypeAlias = dict[str, list[str]]
"""Artefacts by line: `ok`, the line of lmconv, or `not exported` without artefacts if PyTorch cannot write the file."""
Row: TypeAlias = dict[str, Any]
"""Row of a construct: `routes`, a cell for each route; `coverage` of an architecture, [quantised, layers, percent]."""


def load() -> dict[str, Row]:
    """Returns the table by the name of the construct."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def save(rows: dict[str, Row]) -> None:
    """Writes the table, one line a cell, so that a difference shows the construct and the route."""
    FILE.write_text(_text(rows), encoding="utf-8")


def _text(rows: dict[str, Row]) -> str:
    def dumped(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    blocks = []
    for name, row in rows.items():
        parts = [f'  "coverage": {dumped(row["coverage"])}'] if "coverage" in row else []
        cells = ",\n".join(f"   {dumped(route)}: {dumped(cell)}" for route, cell in row["routes"].items())
        blocks.append(f" {dumped(name)}: {{\n" + ",\n".join([*parts, f'  "routes": {{\n{cells}\n  }}']) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def row_of(case: Case) -> Row:
    """Tries a construct by all its routes."""
    routes: dict[Route, Cell] = {}
    covered: dict[str, Coverage] = {}
    for route in case.routes:
        routes[route], coverage = tried(case, route)
        covered = covered or coverage
    row: Row = {"routes": routes}
    if case.is_architecture:
        row["coverage"] = {
            name: [each.quantised, each.layers, round(100 * each.share)] for name, each in covered.items()
        }
    return row


def tried(case: Case, route: Route) -> tuple[Cell, dict[str, Coverage]]:
    """Tries a construct by one route."""
    try:
        result = attempt(case, route)
    except NotExported:
        return {NOT_EXPORTED: []}, {}
    return cell_of(result), result.coverage


def cell_of(result: Result) -> Cell:
    """Returns the artefacts of a result by line."""
    cell: Cell = {}
    for name in ARTEFACTS:
        cell.setdefault(result.lines[name], []).append(name)
    return cell
