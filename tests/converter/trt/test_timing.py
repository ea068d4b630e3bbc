from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lmconv.trt import timing
from lmconv.trt.faults import Fault


@pytest.mark.parametrize(
    ("medians", "expected"),
    [
        ([], False),
        ([5.0, 5.0, 5.0], False),  # no earlier window
        ([5.0, 5.0, 5.0, 5.0], True),
        ([5.0, 4.0, 3.0, 2.0], False),
        ([9.0, 5.0, 5.0, 5.0, 4.9], False),  # 2 % better than before
        ([9.0, 5.0, 5.0, 5.0, 4.96], True),  # 0.8 % is noise
        ([5.0, 6.0, 7.0, 8.0], True),  # slower is no gain
        ([5.0, 6.0, 7.0, 4.0], False),
    ],
)
def test_times_have_settled_after_three_windows_without_a_gain(medians: list[float], expected: bool) -> None:
    assert timing.settled(medians) is expected


class Time:
    """A clock in seconds that advances only while a run is simulated."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_warm_up_ends_when_runs_stop_getting_faster() -> None:
    clock, costs = Time(), itertools.chain(np.linspace(0.02, 0.01, 100).tolist(), itertools.repeat(0.01))

    def run() -> None:
        clock.now += next(costs)

    result = timing.warm_up(run, clock=clock)
    assert result["settled"] is True
    assert 100 < result["runs"] < 150
    assert result["seconds"] == pytest.approx(clock.now)
    assert result["windows"][-1] == pytest.approx(10.0)
    assert result["windows"][0] > 19


def test_a_warm_up_that_never_settles_ends_after_its_time_limit() -> None:
    clock, costs = Time(), (0.1 * 0.95**index + 0.001 for index in itertools.count())

    def run() -> None:
        clock.now += next(costs)

    result = timing.warm_up(run, max_seconds=1.0, clock=clock)
    assert result["settled"] is False
    assert 1.0 <= result["seconds"] < 2.0


class OnTheCpu:
    """Steps without a GPU; records the order of the calls."""

    stream: Any = None

    def __init__(self) -> None:
        self.done: list[str] = []

    def set(self, arrays: Mapping[str, Any]) -> None:
        self.done.append("set")

    def copy_in(self) -> None:
        self.done.append("copy_in")

    def execute(self) -> None:
        self.done.append("execute")

    def copy_out(self) -> None:
        self.done.append("copy_out")

    def wait(self) -> None:
        self.done.append("wait")

    def results(self) -> Mapping[str, Any]:
        self.done.append("results")
        return {}


def test_on_the_cpu_only_wall_time_is_measured_and_the_reason_is_given() -> None:
    steps = OnTheCpu()
    timed = timing.Timer(steps, {}, state=lambda: {"temperature": 40})
    assert set(timed.measure(7)) == {"wall"}
    assert len(timed.measure(7)["wall"]) == 7
    assert timed.left_out == dict.fromkeys(("execute", "graph", "copy_in", "copy_out"), "it runs on the CPU")
    assert timed.warm_up["before"] == timed.warm_up["after"] == {"temperature": 40}
    assert timed.warm_up["settled"] is True
    timed.close()


def test_wall_time_includes_the_copies_from_and_to_the_host() -> None:
    steps = OnTheCpu()
    timing.Timer(steps, {}).close()
    assert steps.done[:12] == ["set", "copy_in", "execute", "copy_out", "wait", "results"] * 2


class Ticks:
    """Replaces `driver.Event`: every recorded event is a millisecond after the previous event."""

    now = 0

    def __init__(self) -> None:
        self.at = self.closed = 0

    def record(self, stream: int) -> None:
        Ticks.now += 1
        self.at = Ticks.now

    def since(self, earlier: Ticks) -> float:
        return float(self.at - earlier.at)

    def close(self) -> None:
        self.closed += 1


class OnAStream(OnTheCpu):
    stream: Any = SimpleNamespace(handle=7)


class Captured:
    """A CUDA graph that may fail to launch."""

    def __init__(self, steps: OnTheCpu, fault: Fault | None = None) -> None:
        self.steps, self.fault, self.closed = steps, fault, False

    def launch(self) -> None:
        self.steps.done.append("launch")
        if self.fault:
            raise self.fault

    def close(self) -> None:
        self.closed = True


def test_all_kinds_are_timed_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests the work between events; only a GPU can test the measured times."""
    monkeypatch.setattr("lmconv.trt.driver.Event", Ticks)
    steps = OnAStream()
    graph = Captured(steps)
    timed = timing.Timer(steps, {}, capture=lambda: graph)
    steps.done.clear()
    times = timed.measure(3)
    assert {kind: len(values) for kind, values in times.items()} == dict.fromkeys(timing.KINDS, 3)
    assert {times[kind][0] for kind in ("execute", "graph", "copy_in", "copy_out")} == {1.0}
    whole = ["set", "copy_in", "execute", "copy_out", "wait", "results"]
    assert steps.done[-13:] == [*whole, *whole[:-1], "launch", "wait"]
    timed.close()
    assert graph.closed


@pytest.mark.parametrize("when", ["captured", "launched"])
def test_a_failed_cuda_graph_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.setattr("lmconv.trt.driver.Event", Ticks)
    fault = Fault("run", "cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def capture() -> timing.CudaGraph:
        if when == "captured":
            raise fault
        return Captured(OnAStream(), fault)

    timed = timing.Timer(OnAStream(), {}, capture=capture)
    assert timed.left_out == {"graph": fault.message}
    assert set(timed.measure(2)) == {"execute", "wall", "copy_in", "copy_out"}


def test_without_a_cuda_driver_an_event_is_a_fault() -> None:
    """On a machine with a GPU this tests nothing."""
    from lmconv.trt import driver

    try:
        driver.primary()
    except Fault as fault:
        assert fault.kind == "device"  # noqa: PT017 (a machine with a GPU has no fault)
    else:
        pytest.skip("there is a GPU here")
