"""Interleaved workers in real processes: normal operation, and every failure in the middle of the timing."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from lmconv.trt import device
from lmconv.trt.faults import Fault
from lmconv.trt.interleaving import InterleavedTimes, Worker, module_command, schedule, time_interleaved

SCRIPT = Path(__file__).with_name("contestant.py")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def worker(stack: ExitStack, way: str, name: str = "") -> Worker:
    return stack.enter_context(Worker([sys.executable, str(SCRIPT), way], name or way, {"SAID": "so"}, timeout=60))


def timed(stack: ExitStack, *ways: str) -> InterleavedTimes:
    return time_interleaved([worker(stack, way) for way in ways], 8, 20, 4, state=dict)


def gone(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_every_worker_gives_all_its_samples(stack: ExitStack) -> None:
    steps: list[None] = []
    workers = [worker(stack, "well", name) for name in "AB"]
    result = time_interleaved(workers, 8, 21, 4, state=lambda: {"temperature": 40}, step=lambda: steps.append(None))
    assert {name: len(kinds["wall"]) for name, kinds in result.times.items()} == {"A": 21, "B": 21}
    assert all(1 <= milliseconds < 1000 for kinds in result.times.values() for milliseconds in kinds["wall"])
    assert result.faults == {}
    assert result.warm_up["A"]["settled"] in (True, False)
    assert result.left_out["B"]["graph"] == "it runs on the CPU"
    assert [state["when"] for state in result.states] == [
        "before",
        *(f"after block {number}" for number in range(1, 5)),
    ]
    assert all(state["temperature"] == 40 for state in result.states)
    assert len(steps) == 8


def test_a_worker_is_a_process_with_its_own_environment(stack: ExitStack) -> None:
    about = worker(stack, "well").ask(do="about")["about"]
    assert about["pid"] != os.getpid()
    assert about["said"] == "so"


def test_a_worker_ends_with_its_context() -> None:
    with ExitStack() as opened:
        pid = worker(opened, "well").ask(do="about")["about"]["pid"]
    assert gone(pid)


def test_a_worker_that_does_not_close_is_killed(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmconv.trt.interleaving.CLOSE_TIMEOUT", 0.5)
    with ExitStack() as opened:
        pid = worker(opened, "clings").ask(do="about")["about"]["pid"]
    assert gone(pid)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("killed", "killed: the worker process ended by SIGKILL: it is getting worse"),
        ("exits", "exits: the worker process ended with exit code 7: it is getting worse / something: out of luck"),
        ("rubbish", "rubbish: the worker process sent 'Traceback? No: {oh}', which is not a reply"),
        ("raises", "raises: ValueError: no such thing"),
    ],
)
def test_a_worker_that_fails_is_one_error_and_the_others_continue(stack: ExitStack, way: str, message: str) -> None:
    result = timed(stack, "well", way)
    assert len(result.times["well"]["wall"]) == 20
    assert set(result.times) == set(result.warm_up) == set(result.left_out) == {"well"}
    assert result.faults.keys() == {way}
    assert result.faults[way].message == message
    assert result.faults[way].kind == "run"


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_with_its_children_after_the_timeout(stack: ExitStack) -> None:
    hanging = worker(stack, "hangs")
    pid = hanging.ask(do="about")["about"]["pid"]
    hanging.timeout = 3
    start = time.monotonic()
    result = time_interleaved([worker(stack, "well"), hanging], 8, 20, 4, state=dict)
    assert time.monotonic() - start < 30
    message = result.faults["hangs"].message
    assert message.startswith("hangs: the worker process has not answered for 3 s: ")
    assert message.endswith("from C, too / it is getting worse")
    assert len(result.times["well"]["wall"]) == 20
    assert gone(pid)


def test_a_worker_reports_an_error_and_accepts_the_next_request(stack: ExitStack) -> None:
    well = worker(stack, "well")
    with pytest.raises(Fault, match="it takes up to 32 inputs a run, not 64") as raised:
        well.ask(do="time", batch=64, samples=1)
    assert (raised.value.kind, raised.value.hint) == ("shape", "use --batch 32")
    assert len(well.ask(do="time", batch=32, samples=3)["times"]["wall"]) == 3
    with pytest.raises(Fault, match="no action 'dance'"):
        well.ask(do="dance")


def test_a_contestant_that_cannot_be_loaded_is_a_fault_of_kind_load(stack: ExitStack) -> None:
    result = timed(stack, "fails to open", "well")
    assert (result.faults["fails to open"].kind, result.faults["fails to open"].hint) == ("load", "build it again")
    assert "well" in result.times


def test_a_command_that_does_not_exist_is_a_fault() -> None:
    with pytest.raises(Fault, match="nowhere: /no/such/python cannot be run: No such file"):
        Worker(["/no/such/python"], "nowhere")


def served(stack: ExitStack, engine: Path, *sha256: str) -> Worker:
    return stack.enter_context(Worker(module_command("lmconv.trt.worker", engine, *sha256), "engine"))


def test_an_engine_that_changed_after_its_check_is_refused(stack: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"swapped")
    with pytest.raises(Fault, match=r"model\.engine has changed since its sha256 was checked") as raised:
        served(stack, tmp_path / "model.engine", hashlib.sha256(b"checked").hexdigest()).ask(do="about")
    assert raised.value.kind == "load"


@pytest.mark.skipif(device.missing() is None, reason="TensorRT and a GPU are here")
def test_an_engine_without_tensorrt_or_a_gpu_is_a_fault(stack: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"an engine")
    with pytest.raises(Fault, match="engine: engines cannot be used on this machine: ") as raised:
        served(stack, tmp_path / "model.engine", hashlib.sha256(b"an engine").hexdigest()).ask(do="about")
    assert raised.value.kind == "device"


def test_blocks_have_different_orders_and_no_worker_follows_itself() -> None:
    blocks = schedule(3, 103, 20)
    assert sum(count for count, _ in blocks) == 103
    assert all(sorted(order) == [0, 1, 2] for _, order in blocks)
    sequence = [index for _, order in blocks for index in order]
    assert all(first != second for first, second in pairwise(sequence))
    assert len({tuple(order) for _, order in blocks}) > 3
    assert schedule(3, 103, 20) == blocks
    assert schedule(3, 103, 20, seed=1) != blocks


def test_the_number_of_blocks_is_at_most_the_number_of_samples() -> None:
    assert [count for count, _ in schedule(2, 3, 10)] == [1, 1, 1]


def test_without_workers_every_block_is_empty() -> None:
    assert schedule(0, 10, 5) == [(2, [])] * 5
