"""Tables of `lmconv export` for a person, made from the JSON document."""

from __future__ import annotations

from lmconv.console import Outcome, table
from lmconv.types import Json


def text_of(outcome: Outcome, models: tuple[str, ...]) -> str:
    """Returns tables of the artefacts, of the gain of each pass if measured, and of the failures."""
    rows = outcome.document["artifacts"]
    explained = [row for row in rows if "explained" in row]
    return "\n\n".join(filter(None, [_artefacts(rows), *map(_explained, explained), _failures(outcome, models)]))


def _artefacts(artifacts: list[Json]) -> str:
    from lmconv.quantise.coverage import text

    header = ["artefact", "weights", "MB", "parameters", "of source", "GFLOP", "of source", "s"]
    quantised = any(row["int8"] for row in artifacts)
    rows = [
        [
            row["path"],
            row["weights"],
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['parameters']:,}",
            f"{row['source_parameters']:,}",
            f"{row['flops'] / 1e9:.3f}",
            f"{row['source_flops'] / 1e9:.3f}",
            f"{row['seconds']:.1f}",
            *([text(row["int8"]) if row["int8"] else ""] if quantised else []),
        ]
        for row in artifacts
    ]
    header += ["in int8"] if quantised else []
    return table(header, rows, left=2) if rows else ""


def _explained(row: Json) -> str:
    """Returns a table of the gain of each pass of an artefact, and of the passes left out."""
    document = row["explained"]
    header = ["pass", "times faster", "parameters", "GFLOP", "nodes", ""]
    rows = [[step["pass"], *_changes(step), step["refused"] or step["note"]] for step in document["passes"]]
    rows.append(["all", *_changes(document["total"]), "against the plain graph on this target"])
    left_out = [
        [step["pass"], _gain(step["faster"]), "", "", "", f"left out: {step['why']}"] for step in document["left_out"]
    ]
    return f"{row['path']}, one thread:\n" + table(header, [*rows, *left_out])


def _changes(step: Json) -> list[str]:
    """Formats the gain of a pass, and parameters, FLOPs and nodes before and after the pass."""
    changes = [f"{before:,} -> {after:,}" for before, after in (step["parameters"], step["nodes"])]
    work = " -> ".join(f"{flops / 1e9:.3f}" for flops in step["flops"])
    return [_gain(step["faster"]), changes[0], work, changes[1]]


def _gain(gain: Json | None) -> str:
    return f"{gain['median']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]" if gain else "changes nothing"


def _failures(outcome: Outcome, models: tuple[str, ...]) -> str:
    """Returns a table of the failures if several networks were converted; otherwise an empty text."""
    rows = [
        [error.get("model", "all"), " ".join(error.get(key, "") for key in ("target", "precision")), error["message"]]
        for error in outcome.errors
    ]
    return table(["failed", "as", "why"], rows, left=3) if rows and len(models) > 1 else ""
