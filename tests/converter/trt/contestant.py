"""A contestant in a process of its own: `python contestant.py WAY`, where the way is what goes wrong."""

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

WAY = sys.argv[1]


class Sleep:
    """Steps that take a millisecond."""

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
    """Fails at the second batch size or in the second block, in the middle of the timing."""

    blocks = 0

    def about(self) -> dict[str, Any]:
        sys.stdout.write("a library prints to standard output\n")
        os.write(1, b"from C, too\n")
        return {"pid": os.getpid(), "way": WAY, "said": os.environ.get("SAID")}

    def timer(self, batch: int) -> Timer:
        made = Timer(Sleep(), {"batch": batch})
        if WAY != "well":
            self._spoil(made)
        return made

    def _spoil(self, made: Timer) -> None:
        measure = made.measure

        def spoilt(samples: int) -> dict[str, list[float]]:
            self.blocks += 1
            if self.blocks == 2:
                go_wrong()
            return measure(samples)

        made.measure = spoilt  # type: ignore[method-assign]

    def close(self) -> None:
        if WAY == "clings":
            time.sleep(60)


def go_wrong() -> None:
    sys.stderr.write("it is getting worse\n")
    sys.stderr.flush()
    if WAY == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if WAY == "exits":
        sys.stderr.write("something: out of luck\n")
        sys.stderr.flush()
        os._exit(7)
    if WAY == "hangs":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        time.sleep(60)
    if WAY == "raises":
        raise ValueError("no such thing\nin two lines")


if WAY == "rubbish":
    sys.stdout.write("Traceback? No: {oh}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.exit()
if WAY == "fails to open":

    def opened() -> Contestant:
        raise Fault("load", "it cannot be loaded", "build it again")

    serve(opened)
else:
    serve(Contestant)
