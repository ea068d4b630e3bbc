"""The sentence of `lmconv best` and the table of a race."""

from __future__ import annotations

from lmconv.tuning.text import answer, race_table
from lmconv.types import Json


def ratio(median: float) -> Json:
    return {"median": median, "low": median - 0.05, "high": median + 0.05}


LOSS: Json = {
    "ion": {"mean": 0.004, "low": -0.003, "high": 0.011},
    "drift": {"mean": 0.31, "low": 0.3, "high": 0.32},
    "n": 102,
}
ANSWER: Json = {
    "faster": ratio(2.31),
    "loss": LOSS,
    "runner_up": {"target": "onnx", "name": "int8", "ms": 1.0},
    "lead": ratio(1.12),
    "equally_fast": False,
}


def test_the_answer_names_the_artefact_its_lead_and_its_loss() -> None:
    assert answer(ANSWER, "build/pfld/openvino-int8") == (
        "Ship build/pfld/openvino-int8: 2.31 [2.26, 2.36] times the plain graph, 1.12 [1.07, 1.17] times the runner-up "
        "onnx int8; ION +0.004 [-0.003, +0.011], drift 0.310"
    )


def test_the_answer_says_that_two_are_equally_fast() -> None:
    level = ANSWER | {"equally_fast": True, "lead": ratio(1.0)}
    assert ", as fast as onnx int8 (1.00 [0.95, 1.05] times); " in answer(level, "a")


def test_the_answer_without_a_runner_up_has_no_lead() -> None:
    assert ", " not in answer(ANSWER | {"runner_up": None, "lead": None}, "a").split(";")[0].replace("[2.26, 2.36]", "")


def test_a_rise_that_rounds_to_zero_has_no_minus() -> None:
    loss = LOSS | {"ion": {"mean": -0.0001, "low": -0.0002, "high": 0.0001}}
    assert "ION +0.000 [+0.000, +0.000]" in answer(ANSWER | {"loss": loss}, "a")


def test_the_table_is_ordered_by_time_and_holds_the_plain_graph() -> None:
    point = {"target": "onnx", "name": "int8", "faster": ratio(2), "verdict": "within", "chosen": True, "front": True}
    slow = point | {"ms": 3.0, "loss": None, "verdict": None, "chosen": False, "front": False}
    budget: Json = {"ion": 0.03, "drift": 0.4, "strict": False}
    rows = race_table([point | {"ms": 1.0, "loss": LOSS}, slow], 2.0, budget).splitlines()[2:]
    assert [row.split()[:2] for row in rows] == [["->*", "onnx"], ["onnx", "plain"], ["onnx", "int8"]]
    assert rows[2].split()[-4:] == ["-"] * 4
