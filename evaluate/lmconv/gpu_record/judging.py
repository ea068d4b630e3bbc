"""Verdict on the results of a GPU host: parity, ION and loss of every engine, against the gates of `lmconv verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lmconv.building import limits as tables
from lmconv.errors import InputError
from lmconv.faces.crops import FaceCrops, load_face_crops
from lmconv.gpu_record.host import Replay, Results
from lmconv.gpu_record.subject import TARGET, Subject, annotated_faces, opened
from lmconv.inference.latency import latency
from lmconv.judging import gates, parity
from lmconv.judging.accuracy import accuracy, paired, to_json
from lmconv.judging.gates import Verdict
from lmconv.judging.loss import Budget, loss, losses
from lmconv.networks.heads import head_of
from lmconv.networks.outputs import Outputs
from lmconv.plugins import TARGETS
from lmconv.sources.resolve import open_source
from lmconv.types import Arrays, Json, Precision, Session


def judge(model: Json, results: Results, build: Path) -> Json:
    """Judges all engines of one network; returns its entry in the record.

    Args:
        model: Its entry in `cases.json`.
        results: Results of the host.
        build: Folder of the plain graphs.

    Raises:
        InputError: The weights differ from the weights of the preparation, or the annotated faces are missing.
    """
    subject = opened(model["name"], build)
    _check_source(model, subject)
    precisions = {case["name"]: Precision(case["precision"]) for case in model["cases"]}
    result = results.document["models"][model["name"]]
    cases = {
        name: _case(subject, row, results.outputs(name), precisions[name]) for name, row in result["cases"].items()
    }
    times = {batch: dict(_summaries(row)) for batch, row in result["latency"].items()}
    source = subject.source
    return {"weights": source.path.name if source.path else source.label, "cases": cases, "latency": times}


def _check_source(model: Json, subject: Subject) -> None:
    """Refuses weights other than the weights of the preparation."""
    now: Json = subject.plain.artifact.parents["source"]
    before: Json = model.get("source", now)
    if before != now:
        names = [source.get("file") or f"random weights, seed {source.get('seed')}" for source in (before, now)]
        message = f"{model['name']} was prepared with {names[0]}, and now its weights are {names[1]}"
        raise InputError(message, hint="set LMCONV_WEIGHTS as it was then, or prepare again")


def _case(subject: Subject, row: Json, outputs: Arrays, precision: Precision) -> Json:
    """One case of the record: the host's row, figures of the outputs that the host kept, and gates."""
    verdicts: dict[str, Verdict] = {"host": "failed" if row["failed"] else "passed"}
    figures: Json = {}
    if outputs:
        figures, more = _figures(subject, Replay(outputs), precision)
        verdicts |= more
    return row | figures | {"gates": verdicts, "passed": "failed" not in verdicts.values()}


def _figures(subject: Subject, session: Session, precision: Precision) -> tuple[Json, dict[str, Verdict]]:
    """Figures and gates on the seeded inputs; of trained weights on faces, too.

    The session replays the host's outputs: seeded inputs first, then faces.
    """
    limits = _limits(subject, precision)
    seeded = asdict(parity.reference_parity(session, subject.spec, subject.reference))
    row: Json = {"parity": seeded}
    verdicts = gates.judge(limits, seeded)
    if subject.trained:
        figures, more = _on_faces(subject, session, precision, limits)
        row, verdicts = row | figures, verdicts | more
    return row, verdicts


def _limits(subject: Subject, precision: Precision) -> dict[str, float]:
    """Gates of an engine: limits of `lmconv verify` for points, tolerance of `lmconv export` for heatmaps.

    Pixels are no gate of random weights, which rounding moves without bound; the host has its own limit for them.
    """
    points = ("max_abs", "max_px") if subject.trained else ("max_abs",)
    target = TARGETS.load(TARGET)
    limits = tables.gates(target, precision, head="points")
    limits = {name: limit for name, limit in limits.items() if name in points}
    maps = {"max_map": tables.acceptance(target, precision)["heatmaps"]} if subject.judged == "heatmaps" else {}
    return limits | maps


def _on_faces(
    subject: Subject, session: Session, precision: Precision, limits: Mapping[str, float]
) -> tuple[Json, dict[str, Verdict]]:
    """Figures and gates on the annotated test faces; int8 is judged by the budget of `lmconv export`."""
    faces = load_face_crops(annotated_faces(), subject.spec)
    with open_source(subject.source) as network:
        expected = parity.on_faces(network, subject.spec, faces)
    outputs = parity.on_faces(session, subject.spec, faces)
    difference = asdict(head_of(subject.spec).gap(outputs, expected).landmarks)
    lost = loss(losses(outputs, expected, faces))
    row: Json = {"on_faces": difference, "loss": lost.to_json(), **_accuracy(outputs, expected, faces)}
    points = {name: limit for name, limit in limits.items() if name in difference}
    verdicts = {f"{name} on faces": verdict for name, verdict in gates.judge(points, difference).items()}
    if precision == Precision.INT8:
        verdicts["budget"] = "failed" if Budget().judge(lost)[0] == "outside" else "passed"
    return row, verdicts


def _accuracy(outputs: Outputs, expected: Outputs, faces: FaceCrops) -> Json:
    """ION of the engine and of its source, and their paired difference, for each subset."""
    errors, source_errors = parity.errors(outputs, faces), parity.errors(expected, faces)
    return {
        "ion": to_json(accuracy(errors, faces.subsets, faces.totals)),
        "source_ion": to_json(accuracy(source_errors, faces.subsets, faces.totals)),
        "delta_ion": to_json(paired(errors, source_errors, faces.subsets)),
    }


def _summaries(row: Json) -> Iterator[tuple[str, Json]]:
    """Median times with their intervals, milliseconds, by contestant and kind; then `found`, the rest of the row."""
    for name, kinds in row["times"].items():
        yield name, {kind: asdict(latency(np.array(times))) for kind, times in kinds.items()}
    yield "found", {key: value for key, value in row.items() if key != "times"}
