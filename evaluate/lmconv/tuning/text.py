"""Text of a race: the table of candidates, and the sentence that says what to ship."""

from __future__ import annotations

from lmconv.building.limits import ION_ROUNDING, beside
from lmconv.console import table
from lmconv.types import Json
from lmconv.visual.tables import number

HEADER = ("", "target", "computed in", "ms", "times faster than plain", "drift", "ION, paired", "faces", "budget")


def race_table(points: list[Json], plain_ms: float, budget: Json) -> str:
    """Returns the table of all candidates and of the plain graph, fastest first.

    Args:
        points: `points` of the document of a race.
        plain_ms: Time of the plain graph without denormal numbers, milliseconds.
        budget: `budget` of the same document.
    """
    rows = [(plain_ms, ["", "onnx", "plain graph, fp32", f"{plain_ms:.2f}", "1", *["-"] * 4])]
    rows += [(point["ms"], _row(point, budget)) for point in points]
    return table(HEADER, [row for _, row in sorted(rows, key=lambda pair: pair[0])], left=3)


NOTE = (
    "Plain: the exported graph with its denormal numbers set to zero, in ONNX Runtime fp32; a CPU may compute denormal "
    "numbers many times slower. All rows: one run, one thread, in turn.\n"
    "*: no other row has both less time and less drift. A dash: slower than two rows within the budget, so not judged."
)
"""Explanation below the table."""


def _row(point: Json, budget: Json) -> list[str]:
    loss = point["loss"]
    figures = ["-"] * 4
    if loss:
        figures = [
            _near(loss["drift"]["mean"], budget["drift"], ".3f"),
            ion(loss, budget),
            str(loss["n"]),
            point["verdict"],
        ]
    return [
        f"{'->' if point['chosen'] else ''}{'*' if point['front'] else ''}",
        point["target"],
        point["name"],
        f"{point['ms']:.2f}",
        gain(point["faster"]),
        *figures,
    ]


def answer(document: Json, path: str) -> str:
    """Returns the sentence that says what to ship.

    Args:
        document: `answer` of the document of a race.
        path: Folder of the artefact.
    """
    parts = [f"Ship {path}: {gain(document['faster'])} times the plain graph"]
    other, lead = document["runner_up"], document["lead"]
    if other:
        name = f"{other['target']} {other['name']}"
        if document["equally_fast"]:
            parts.append(f", as fast as {name} ({gain(lead)} times)")
        else:
            parts.append(f", {gain(lead)} times the runner-up {name}")
    return "".join([*parts, f"; ION {ion(document['loss'])}, drift {document['loss']['drift']['mean']:.3f}"])


def gain(figures: Json) -> str:
    """Formats a ratio with its interval."""
    return f"{figures['median']:.2f} [{figures['low']:.2f}, {figures['high']:.2f}]"


def ion(loss: Json, budget: Json | None = None) -> str:
    """Formats a paired difference of ION with its interval, next to a budget with the digits that decide."""
    paired = loss["ion"]
    limit = budget["ion"] if budget else None
    highest = budget["ion"] * (1 if budget["strict"] else 2) if budget else None
    mean, high = _near(paired["mean"], limit, "+.3f"), _near(paired["high"], highest, "+.3f")
    return f"{mean} [{_near(paired['low'], None, '+.3f')}, {high}]"


def _near(figure: float | None, limit: float | None, form: str) -> str:
    """Formats a figure with enough digits to show on which side of a limit the figure is; zero without a minus."""
    if figure is None or limit is None:
        text = number(figure, form)
    else:
        text = beside(figure, max(limit, ION_ROUNDING), form)[0]
    return text.replace("-", "+") if text.startswith("-0.") and float(text) == 0 else text
