"""The record of a GPU: gates of every engine, failed cases, and times as text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmconv.errors import InputError, UsageError
from lmconv.gpu_record import cases, networks, record, subject
from lmconv.types import Json, Precision


def test_networks_come_in_the_order_of_the_record() -> None:
    assert [network.name for network in networks.chosen(["resnet18", "pfld"])] == ["pfld", "resnet18"]
    assert networks.chosen(None) == list(networks.NETWORKS)
    with pytest.raises(UsageError, match="pfdl is none of the networks"):
        networks.chosen(["pfdl"])


def test_tolerances_on_the_host_equal_those_of_export() -> None:
    assert [cases.tolerance(precision) for precision in cases.PRECISIONS] == [1e-4, 1e-2, 2e-1]


@pytest.fixture(scope="module")
def random_pfld(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a host whose fp32 engine computes PFLD with seeded random weights exactly. Must not be changed."""
    out = tmp_path_factory.mktemp("random_pfld")
    network = subject.opened("pfld", out / "build")
    source = network.plain.artifact.parents["source"]
    case = {"name": "pfld-fp32", "precision": str(Precision.FP32)}
    model = {"name": "pfld", "source": source, "cases": [case], "left_out": {"pfld-int8": "why"}}
    document = {"digest": "a", "made": {}, "models": [model, {"name": "resnet18", "cases": []}]}
    written(out, "part0/cases.json", document)
    results(out, network.reference.outputs.landmarks)
    return out


@pytest.fixture
def prepared(random_pfld: Path, tmp_path: Path) -> Path:
    """Copy of `random_pfld`."""
    return Path(shutil.copytree(random_pfld, tmp_path / "prepared"))


def written(out: Path, name: str, document: Json) -> None:
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text(json.dumps(document), encoding="utf-8")


def results(out: Path, landmarks: Any, failed: tuple[str, ...] = ()) -> None:
    row = {"cases": {"pfld-fp32": {"off": {"max": 0.0, "mean": 0.0}, "failed": failed}}, "latency": {}}
    machine = {"gpu": "NVIDIA H200", "tensorrt": "8.6.1"}
    written(out, "host/found.json", {"digest": "a", "machine": machine, "models": {"pfld": row}})
    np.savez(out / "host" / "found.npz", **{"pfld-fp32/landmarks": landmarks})


@pytest.mark.slow
def test_an_engine_is_judged_by_the_host_and_by_its_outputs(prepared: Path) -> None:
    path, document = record.judge(prepared, prepared)
    assert path == prepared / "gpu-h200.json"
    assert document["proven"] == "TensorRT 8.6.1 on NVIDIA H200; no other version was run"
    assert document["not_done"] == ["resnet18", "mistakes"]
    assert document["left_out"] == {"pfld-int8": "why"}
    assert document["failed"] == []  # random weights may lose a precision
    case = document["models"]["pfld"]["cases"]["pfld-fp32"]
    assert list(case) == ["off", "failed", "parity", "gates", "passed"]
    assert case["gates"] == {"host": "passed", "max_abs": "passed"}
    assert json.loads(path.read_text(encoding="utf-8")) == document


@pytest.mark.slow
def test_nan_outputs_fail_and_infinite_figures_are_written_as_words(prepared: Path) -> None:
    results(prepared, np.full((8, 68, 2), np.nan, np.float32), failed=("landmarks are nan off",))
    path, document = record.judge(prepared, prepared)
    assert document["failed"] == ["pfld-fp32"]
    case = json.loads(path.read_text(encoding="utf-8"))["models"]["pfld"]["cases"]["pfld-fp32"]
    assert case["gates"] == {"host": "failed", "max_abs": "failed"}
    assert case["parity"]["max_abs"] == "inf"


@pytest.mark.slow
def test_weights_that_differ_from_the_preparation_are_refused(prepared: Path) -> None:
    path = prepared / "part0" / "cases.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["models"][0]["source"] = {"file": "pfld.pth"}
    path.write_text(json.dumps(document), encoding="utf-8")
    message = "pfld was prepared with pfld.pth, and now its weights are random weights, seed 0"
    with pytest.raises(InputError, match=message):
        record.judge(prepared, prepared)


def test_times_compare_a_cuda_graph_with_pytorch_eager() -> None:
    def time(median: float) -> dict[str, float]:
        return {"median_ms": median, "low_ms": median, "high_ms": median}

    engine = {"execute": time(0.05), "graph": time(0.02)}
    times = {"torch eager": {"execute": time(0.1)}, "pfld-fp16": engine, "idle": {}, "found": {}}
    document = {"models": {"pfld": {"latency": {"8": times}}}}
    assert list(record.lines(document)) == [
        "pfld batch 8 torch eager: 100.0 [100.0, 100.0] us on the GPU, 1.00 x torch eager",
        "pfld batch 8 pfld-fp16: 20.0 [20.0, 20.0] us on the GPU, 5.00 x torch eager",
    ]
