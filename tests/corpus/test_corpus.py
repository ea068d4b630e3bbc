"""The corpus of constructs: a fixed sample of the table in every run, the whole table in `make exhaustive`."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.corpus import judge, nodes, page, table
from tests.corpus.coverage import coverage
from tests.corpus.registry import cases
from tests.corpus.trial import OK

from lmconv import machine

ROWS = table.load()
PAIRS = [
    (name, route)
    for name, row in ROWS.items()
    for route, cell in row["routes"].items()
    if all(line.startswith(OK) for line in cell)
]
"""Cells without a refusal: a figure beside a limit may differ on another CPU. `make exhaustive` tries every cell."""
QUICK, LARGER = 5, len(PAIRS) // 20
"""Number of cells that `make test` tries, and that CI tries."""
ORDER = sorted(PAIRS, key=lambda pair: zlib.crc32(" ".join(pair).encode()))
"""The cells in an order that a new construct does not change."""
SAMPLE = [pytest.param(*pair, marks=[pytest.mark.slow] * (n >= QUICK)) for n, pair in enumerate(ORDER[:LARGER])]


EXACT_INT8 = any("vnni" in feature for feature in machine.describe()["features"])
"""True if the CPU adds products of int8 without saturation, as the CPU that made the table."""


def portable(cell: table.Cell) -> dict[str, list[str]]:
    """Returns the part of a cell that every CPU gives: lines without their numbers, int8 only with exact sums."""
    result: dict[str, list[str]] = {}
    for line, artefacts in cell.items():
        kept = [name for name in artefacts if EXACT_INT8 or not name.endswith("int8")]
        if kept or not artefacts:
            result.setdefault(re.sub(r"\d[\d.e-]*", "#", line), []).extend(kept)
    return {line: sorted(artefacts) for line, artefacts in result.items()}


@pytest.mark.parametrize(("name", "route"), SAMPLE)
def test_a_sample_of_the_table_is_as_the_table_says(name: str, route: str) -> None:
    assert portable(table.tried(cases()[name], route)[0]) == portable(ROWS[name]["routes"][route])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ROWS)
def test_every_cell_is_as_the_table_says(name: str) -> None:
    assert table.row_of(cases()[name]) == ROWS[name]


@pytest.mark.exhaustive
def test_the_table_has_every_construct() -> None:
    assert list(ROWS) == list(cases())


def test_no_artefact_is_wrong_and_no_line_is_a_bug() -> None:
    lines = {(name, line) for name, row in ROWS.items() for cell in row["routes"].values() for line in cell}
    assert {pair for pair in lines if pair[1].startswith(("WRONG", "exit 70"))} == set()


def test_a_row_of_the_table_has_every_route_of_its_construct() -> None:
    assert {name: (*row["routes"],) for name, row in ROWS.items()} == {name: cases()[name].routes for name in ROWS}


def test_the_page_is_that_of_the_table() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(ROWS), "run python -m tests.corpus.make --page"


# The judge


def plain() -> onnx.ModelProto:
    return nodes.around(17, lambda graph, x: graph.add("Relu", graph.conv(x, "middle", nodes.CHANNELS, nodes.CHANNELS)))


@pytest.mark.parametrize(("precision", "change"), [("fp32", 1e-4), ("fp16", 0.02), ("int8", 0.5)])
def test_the_judge_sees_a_changed_weight(tmp_path: Path, precision: str, change: float) -> None:
    model = plain()
    output = model.graph.output[0].name
    source = judge.onnx_run(model.SerializeToString(), output)
    inputs = np.random.default_rng(0).random((4, 3, 32, 32), dtype=np.float32)
    path = tmp_path / "model.onnx"
    for factor, wrong in ((1.0, False), (1 + change, True)):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        bias = next(tensor for tensor in changed.graph.initializer if tensor.name == "dense.w")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * np.float32(factor), "dense.w"))
        onnx.save(changed, path)
        assert bool(judge.difference(tmp_path, precision, source, inputs, inputs, output)) == wrong


def test_the_judge_pads_the_last_batch() -> None:
    assert [len(part) for part in judge.batches(np.zeros((5, 1)), 4)] == [4, 4]


def test_coverage_counts_layers_that_read_int8(tmp_path: Path) -> None:
    onnx.save(plain(), tmp_path / "model.onnx")
    none = coverage(tmp_path)
    assert (none.quantised, none.layers, none.share) == (0, 4, 0)
    onnx.save(cases()["quantised/pairs"].build(17), tmp_path / "model.onnx")
    one = coverage(tmp_path)
    assert (one.quantised, one.layers) == (1, 4)
    work = {"stem": 3 * 9 * 16 * 256, "middle": 16 * 9 * 16 * 256, "body": 16 * 9 * 32 * 64, "dense": 32 * 136}
    assert one.share == pytest.approx(work["middle"] / sum(work.values()))
