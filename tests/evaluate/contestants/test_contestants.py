"""PyTorch and ONNX Runtime as contestants: interleaved, in processes of their own, on the CPU."""

from __future__ import annotations

import os
import signal
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lmconv.contestants import ort, pytorch
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.plugins import TARGETS
from lmconv.sources import resolve as source
from lmconv.store import artifact as artifacts
from lmconv.trt.faults import Fault
from lmconv.trt.interleaving import Worker, module_command, time_interleaved
from lmconv.types import OpenOptions

pytestmark = pytest.mark.slow  # PyTorch and ONNX Runtime, in processes of their own


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def folder(own_build: Path) -> Path:
    return own_build / "flat-Flat" / "onnx-fp32"


def network(stack: ExitStack, own_build: Path, *options: str) -> Worker:
    model = f"{own_build / 'flat.py'}:Flat"
    line = module_command(
        "lmconv.contestants.pytorch", folder(own_build), "--device", "cpu", "--model", model, *options
    )
    return stack.enter_context(Worker(line, "torch"))


def graph(stack: ExitStack, artifact: Path) -> Worker:
    return stack.enter_context(Worker(module_command("lmconv.contestants.ort", artifact, "--device", "cpu"), "graph"))


def test_pytorch_and_onnx_runtime_are_timed_interleaved(stack: ExitStack, own_build: Path) -> None:
    one, two = network(stack, own_build), graph(stack, folder(own_build))
    result = time_interleaved([one, two], 2, 12, 3, state=dict)
    assert result.faults == {}
    assert {name: len(kinds["wall"]) for name, kinds in result.times.items()} == {"torch": 12, "graph": 12}
    assert all(min(kinds["wall"]) > 0 for kinds in result.times.values())
    assert one.ask(do="about")["about"]["on"] == "cpu"
    assert two.ask(do="about")["about"]["providers"] == ["CPUExecutionProvider"]


def test_a_killed_contestant_does_not_stop_the_other(stack: ExitStack, own_build: Path) -> None:
    one, two = network(stack, own_build), graph(stack, folder(own_build))
    steps: list[None] = []

    def step() -> None:
        steps.append(None)
        if len(steps) == 2:
            os.kill(one.pid, signal.SIGKILL)

    result = time_interleaved([one, two], 1, 12, 3, state=dict, step=step)
    assert result.faults["torch"].message.startswith("torch: the worker process ended by SIGKILL")
    assert set(result.times) == {"graph"}
    assert len(result.times["graph"]["wall"]) == 12


def test_an_unavailable_network_is_a_fault_of_kind_missing(stack: ExitStack, own_build: Path) -> None:
    line = module_command("lmconv.contestants.pytorch", folder(own_build), "--device", "cpu")
    with pytest.raises(Fault, match="torch: the artefact's PyTorch network is not available") as raised:
        stack.enter_context(Worker(line, "torch")).ask(do="about")
    assert raised.value.kind == "missing"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_an_unavailable_gpu_is_a_fault_of_kind_missing(stack: ExitStack, own_build: Path) -> None:
    line = module_command("lmconv.contestants.pytorch", folder(own_build), "--device", "cuda")
    with pytest.raises(Fault, match="PyTorch finds no CUDA device") as raised:
        stack.enter_context(Worker(line, "torch")).ask(do="about")
    assert raised.value.kind == "missing"


def test_the_steps_of_pytorch_compute_the_outputs_of_the_source(own_build: Path) -> None:
    artifact, model = artifacts.read(folder(own_build)), f"{own_build / 'flat.py'}:Flat"
    options = Namespace(artifact=artifact.path, device="cpu", compiled=False, weights=None, model=model)
    resolved = source.recover(artifact, model=model)
    assert resolved is not None
    contestant = pytorch.Network(options)
    steps = contestant.steps()
    for count in (3, 2):
        inputs = {"input": noise(artifact.spec, count, 5)}
        assert np.array_equal(
            run_steps(steps, inputs)["landmarks"], source.open_source(resolved).run(inputs)["landmarks"]
        )
    contestant.close()


def test_the_steps_of_onnx_runtime_compute_the_outputs_of_its_session(own_build: Path) -> None:
    artifact = artifacts.read(folder(own_build))
    with TARGETS.load("onnx").open(artifact, OpenOptions()) as session:
        assert isinstance(session, OrtSession)
        steps = ort.Steps(session.session, None)
        for count in (3, 2, 2):
            inputs = {"input": noise(artifact.spec, count, count)}
            assert np.array_equal(run_steps(steps, inputs)["landmarks"], session.run(inputs)["landmarks"])


Inputs = dict[str, NDArray[Any]]


def run_steps(steps: ort.Steps | pytorch.Steps, inputs: Inputs) -> Inputs:
    steps.set(inputs)
    steps.copy_in()
    steps.execute()
    steps.copy_out()
    steps.wait()
    return steps.results()


def test_a_compiled_network_is_timed(stack: ExitStack, own_build: Path) -> None:
    compiled = network(stack, own_build, "--compiled")
    result = time_interleaved([compiled], 2, 6, 2, state=dict)
    assert result.faults == {}
    assert len(result.times["torch"]["wall"]) == 6
    assert compiled.ask(do="about")["about"]["compiled"] is True
