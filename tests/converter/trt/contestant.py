"""A contestant in a process of its own: `python contestant.py FAILURE`, where FAILURE selects the failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from lmconv.trt.faults import Fault
from lmconv.trt.timing import Timer
from lmconv.trt.worker import serve

FAILURE = sys.argv[1]


class Sleep:
    """Steps whose computation takes a millisecond."""

    stream = None

    def set(self, arrays: Mapping[str, Any]) -> None:
        if arrays["batch"] == 64:
            raise Fault("shape", "it takes up to 32 inputs a run, not 64", "use --batch 32")

    def copy_in(self) -> None: ...

    def execute(self) -> None:
        time.sleep(0.001)

    def copy_out(self) -> None: ...

    def wait(self) -> None: ...

    def results(self) -> Mapping[str, Any]:
        return {}


class Contestant:
    """A contestant that fails in the second block of the timing."""

    blocks = 0

    def about(self) -> dict[str, Any]:
        sys.stdout.write("a library prints to standard output\n")
        os.write(1, b"from C, too\n")
        return {"pid": os.getpid(), "way": FAILURE, "said": os.environ.get("SAID")}

    def timer(self, batch: int) -> Timer:
        timer = Timer(Sleep(), {"batch": batch})
        if FAILURE != "well":
            self._let_fail(timer)
        return timer

    def _let_fail(self, timer: Timer) -> None:
        measure = timer.measure

        def failing(samples: int) -> dict[str, list[float]]:
            self.blocks += 1
            if self.blocks == 2:
                fail()
            return measure(samples)

        timer.measure = failing  # type: ignore[method-assign]

    def close(self) -> None:
        if FAILURE == "clings":
            time.sleep(60)


def fail() -> None:
    sys.stderr.write("it is getting worse\n")
    sys.stderr.flush()
    if FAILURE == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if FAILURE == "exits":
        sys.stderr.write("something: out of luck\n")
        sys.stderr.flush()
        os._exit(7)
    if FAILURE == "hangs":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        time.sleep(60)
    if FAILURE == "raises":
        raise ValueError("no such thing\nin two lines")


if FAILURE == "rubbish":
    sys.stdout.write("Traceback? No: {oh}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.exit()
if FAILURE == "fails to open":

    def open_contestant() -> Contestant:
        raise Fault("load", "it cannot be loaded", "build it again")

    serve(open_contestant)
else:
    serve(Contestant)
