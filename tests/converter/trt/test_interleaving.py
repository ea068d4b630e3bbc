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
    found = time_interleaved(workers, 8, 21, 4, state=lambda: {"temperature": 40}, step=lambda: steps.append(None))
    assert {name: len(kinds["wall"]) for name, kinds in found.times.items()} == {"A": 21, "B": 21}
    assert all(1 <= milliseconds < 1000 for kinds in found.times.values() for milliseconds in kinds["wall"])
    assert found.faults == {}
    assert found.warm_up["A"]["settled"] in (True, False)
    assert found.left_out["B"]["graph"] == "it runs on the CPU"
    assert [state["when"] for state in found.states] == ["before", *(f"after block {one}" for one in range(1, 5))]
    assert all(state["temperature"] == 40 for state in found.states)
    assert len(steps) == 8


def test_a_worker_is_another_process_with_an_environment_of_its_own(stack: ExitStack) -> None:
    about = worker(stack, "well").ask(do="about")["about"]
    assert about["pid"] != os.getpid()
    assert about["said"] == "so"


def test_a_worker_ends_with_its_block() -> None:
    with ExitStack() as opened:
        pid = worker(opened, "well").ask(do="about")["about"]["pid"]
    assert gone(pid)


def test_a_worker_that_will_not_close_is_ended(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_worker_that_fails_half_way_is_one_clear_error_and_the_others_go_on(
    stack: ExitStack, way: str, message: str
) -> None:
    found = timed(stack, "well", way)
    assert len(found.times["well"]["wall"]) == 20
    assert set(found.times) == set(found.warm_up) == set(found.left_out) == {"well"}
    assert found.faults.keys() == {way}
    assert found.faults[way].message == message
    assert found.faults[way].kind == "run"


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_after_its_time_with_all_that_it_started(stack: ExitStack) -> None:
    hanging = worker(stack, "hangs")
    pid = hanging.ask(do="about")["about"]["pid"]
    hanging.timeout = 3
    start = time.monotonic()
    found = time_interleaved([worker(stack, "well"), hanging], 8, 20, 4, state=dict)
    assert time.monotonic() - start < 30
    message = found.faults["hangs"].message
    assert message.startswith("hangs: the worker process has not answered for 3 s: ")
    assert message.endswith("from C, too / it is getting worse")
    assert len(found.times["well"]["wall"]) == 20
    assert gone(pid)


def test_a_worker_says_what_is_wrong_and_can_be_asked_again(stack: ExitStack) -> None:
    well = worker(stack, "well")
    with pytest.raises(Fault, match="it takes up to 32 inputs a run, not 64") as raised:
        well.ask(do="time", batch=64, samples=1)
    assert (raised.value.kind, raised.value.hint) == ("shape", "use --batch 32")
    assert len(well.ask(do="time", batch=32, samples=3)["times"]["wall"]) == 3
    with pytest.raises(Fault, match="no action 'dance'"):
        well.ask(do="dance")


def test_what_cannot_be_loaded_is_a_fault_of_its_kind(stack: ExitStack) -> None:
    found = timed(stack, "fails to open", "well")
    assert (found.faults["fails to open"].kind, found.faults["fails to open"].hint) == ("load", "build it again")
    assert "well" in found.times


def test_a_command_that_does_not_exist_is_a_fault() -> None:
    with pytest.raises(Fault, match="nowhere: /no/such/python cannot be run: No such file"):
        Worker(["/no/such/python"], "nowhere")


def served(stack: ExitStack, engine: Path, *sha256: str) -> Worker:
    return stack.enter_context(Worker(module_command("lmconv.trt.worker", engine, *sha256), "engine"))


def test_another_engine_than_the_one_that_was_checked_is_refused_unread(stack: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"swapped")
    with pytest.raises(Fault, match=r"model\.engine has changed since its sha256 was checked") as raised:
        served(stack, tmp_path / "model.engine", hashlib.sha256(b"checked").hexdigest()).ask(do="about")
    assert raised.value.kind == "load"


@pytest.mark.skipif(device.missing() is None, reason="TensorRT and a GPU are here")
def test_an_engine_without_tensorrt_or_a_gpu_is_one_clear_fault(stack: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"an engine")
    with pytest.raises(Fault, match="engine: engines cannot be used on this machine: ") as raised:
        served(stack, tmp_path / "model.engine", hashlib.sha256(b"an engine").hexdigest()).ask(do="about")
    assert raised.value.kind == "device"


def test_blocks_differ_in_order_and_no_worker_follows_itself() -> None:
    found = schedule(3, 103, 20)
    assert sum(count for count, _ in found) == 103
    assert all(sorted(order) == [0, 1, 2] for _, order in found)
    sequence = [index for _, order in found for index in order]
    assert all(first != second for first, second in pairwise(sequence))
    assert len({tuple(order) for _, order in found}) > 3
    assert schedule(3, 103, 20) == found
    assert schedule(3, 103, 20, seed=1) != found


def test_the_number_of_blocks_is_at_most_the_number_of_samples() -> None:
    assert [count for count, _ in schedule(2, 3, 10)] == [1, 1, 1]


def test_without_workers_there_is_nobody_to_order() -> None:
    assert schedule(0, 10, 5) == [(2, [])] * 5
