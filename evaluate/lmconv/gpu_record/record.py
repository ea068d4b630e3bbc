"""The record of a GPU, `gpu-NAME.json`: one document, a gate for every engine, and its figures as lines of text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from lmconv.gpu_record import host, judging
from lmconv.store.files import finite, writing
from lmconv.types import Json


def judge(out: Path, folder: Path) -> tuple[Path, Json]:
    """Judges the results of a host and writes the record.

    Args:
        out: Folder of the preparation; the results of the host are in its subfolder `host`.
        folder: Folder of the record.

    Returns:
        The file and its content, whose `failed` names every failed case and mistake.

    Raises:
        InputError: A file is missing, broken or of another preparation, or the record cannot be written.
    """
    results = host.read(out)
    done = results.document["models"]
    models = {
        model["name"]: judging.judge(model, results, out / "build")
        for model in results.cases["models"]
        if model["name"] in done
    }
    document = _document(results, models)
    name = results.document["machine"]["gpu"].lower().replace("nvidia", "").split()
    path = folder / f"gpu-{'-'.join(name)}.json"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(finite(document, otherwise=str), indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    return path, document


def _document(results: host.Results, models: Json) -> Json:
    """Content of the record, from the judged networks."""
    cases, document = results.cases, results.document
    mistakes: Json = document.get("mistakes", {})
    missing = [model["name"] for model in cases["models"] if model["name"] not in models]
    return {
        "machine": document["machine"],
        "prepared_with": cases["made"],
        "graphs": cases["digest"],
        "proven": proven(document["machine"]),
        "not_done": missing + [part for part in ("mistakes",) if part not in document],
        "left_out": {name: why for model in cases["models"] for name, why in model.get("left_out", {}).items()},
        "failed": list(_failed(cases, models, mistakes)),
        "models": models,
        "mistakes": mistakes,
    }


def _failed(cases: Json, models: Json, mistakes: Json) -> Iterator[str]:
    """Names of mistakes that were not refused, of cases that failed, and of graphs that trained weights lack."""
    yield from (name for name, row in mistakes.items() if not row["ok"])
    for model in models.values():
        yield from (name for name, case in model["cases"].items() if not case["passed"])
    for model in cases["models"]:
        if model.get("source", {}).get("seed") is None:
            yield from model.get("left_out", {})


def proven(machine: Json) -> str:
    """Says what a record proves about TensorRT."""
    if machine["tensorrt"] is None:
        return "nothing of TensorRT: ONNX Runtime computed the graphs"
    return f"TensorRT {machine['tensorrt']} on {machine['gpu']}; no other version was run"


def lines(document: Json) -> Iterator[str]:
    """Median GPU time of every contestant at every batch size, as text."""
    for model, row in document["models"].items():
        for batch, times in row["latency"].items():
            yield from (f"{model} batch {batch} {line}" for line in _times(times))


def _times(times: Json) -> Iterator[str]:
    """Times of one batch size: microseconds, as a CUDA graph if the host timed one, and the ratio to PyTorch eager."""
    eager = (times.get("torch eager") or {}).get("execute")
    for name, kinds in times.items():
        if name == "found" or not kinds.get("execute"):
            continue
        best = kinds.get("graph") or kinds["execute"]
        ratio = f", {eager['median_ms'] / best['median_ms']:.2f} x torch eager" if eager else ""
        micro = f"{best['median_ms'] * 1e3:.1f} [{best['low_ms'] * 1e3:.1f}, {best['high_ms'] * 1e3:.1f}]"
        yield f"{name}: {micro} us on the GPU{ratio}"
